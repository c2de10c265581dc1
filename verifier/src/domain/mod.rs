//! What is decided by what is recorded: pure decisions over rows, a request and the time. They give changes of rows, an answer and
//! events.
//!
//! | module | what |
//! | --- | --- |
//! | [`records`] | each question and each change, as one transaction; [`Db`] runs them from async code |
//! | [`view`] | one transaction, as the others work in it |
//! | [`sequence`], [`state_file`], [`opening`] | which documents there are, and whether the database is the one that was answered with |
//! | [`document`], [`audit`] | what is only ever appended to |
//! | [`node`], [`enrollment`], [`revocation`] | nodes: which keys, and whether anything goes out |
//! | [`evidence`], [`boot`] | rulings on evidence; boots that wait for an operator |
//! | [`policy`], [`proposal`], [`review`] | what governs a node, what it proposes, and both looked at again |
//! | [`registration`], [`client`] | the registrar's records; certificates |
//! | [`retention`] | what is forgotten |
//! | [`seal`] | tags of rows by the cluster key |

pub mod audit;
pub mod boot;
pub mod client;
pub mod document;
pub mod enrollment;
mod error;
pub mod evidence;
pub mod node;
pub mod opening;
pub mod policy;
pub mod proposal;
pub mod records;
pub mod registration;
pub mod retention;
pub mod review;
pub mod revocation;
mod seal;
pub mod sequence;
pub mod state_file;
pub mod view;

pub use crate::store::{RegistrationLine, StoreError, Which};
pub use boot::{Approval, Boot, BootReviewer, Decision, NewPending, ReleasedBoot, Waiting};
pub use client::{Client, ClientKind};
pub use document::NewDocument;
pub use enrollment::{Enrollment, NewEnrollment};
pub use error::{Error, Result, legible};
pub use evidence::{Case, Counters, Standing};
pub use node::{Damage, Node, NodeLine};
pub use policy::{Governing, NewPolicy, PolicyRef};
pub use proposal::{
    ProposalCase, ProposalDecision, ProposalRuling, ProposalStanding, StoredProposal, Trusted, TrustedUnder,
};
pub use records::Records;
pub use registration::{Answered, NewRegistration, Registration, Saved};
pub use review::Reviewer;
pub use view::{Documents, TxView};

use std::sync::Arc;

/// Who does something, and when.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Common name of the certificate.
    pub actor: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

/// Runs [`Records`] methods from async code.
#[derive(Clone)]
pub struct Db(Arc<Records>);

impl Db {
    /// Over these records.
    pub fn new(records: Arc<Records>) -> Self {
        Self(records)
    }

    /// Reads or changes something. The caller may go away in the middle: a change and its events still go together.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&records)).await;
        done.unwrap_or_else(|e| Err(Error::unavailable(format!("our bug: {e}"))))
    }
}

/// As it is kept in a column.
fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::unavailable(format!("our bug: {e}")))
}
