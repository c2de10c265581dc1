//! What a registrar answers the verifier of another host.

use crate::store::RegistrationLine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of the list.
#[derive(Debug, JsonSchema, Serialize, Deserialize)]
pub struct RegistrationList {
    /// By node id.
    pub registrations: Vec<RegistrationLine>,
}

/// It never expires.
#[derive(Debug, JsonSchema, Serialize, Deserialize)]
pub struct Kept {
    /// Node id.
    pub node_id: String,
}
