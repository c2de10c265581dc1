//! Labels of nodes, where a table shows more than ids.

use crate::client::Client;
use crate::error::Result;
use crate::render::text::clean_short;
use std::collections::HashMap;

/// Labels by id.
pub struct Labels(HashMap<String, String>);

/// All of them.
///
/// # Errors
/// As every request.
pub fn all(client: &Client) -> Result<Labels> {
    Ok(Labels(client.nodes()?.nodes.into_iter().map(|node| (node.id, node.label)).collect()))
}

impl Labels {
    /// `label (first digits of the id)`.
    pub fn short(&self, id: &str) -> String {
        let digits = clean_short(id, 36).chars().take(8).collect::<String>();
        match self.0.get(id) {
            Some(label) => format!("{} ({digits})", clean_short(label, 40)),
            None => digits,
        }
    }
}
