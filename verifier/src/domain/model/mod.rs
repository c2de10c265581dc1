//! Loaded state: what rows are read into, and decisions are made from. No question is asked here.

mod boot;
mod node;
mod policy;
mod proposal;

pub use boot::{Boot, Counters, Decision, NewPending, NodeSnapshot, ReleasedBoot, Waiting};
pub use node::{Damage, Enrollment, Node, Stage, node_state};
pub use policy::{Governing, PolicyRef, Trusted, TrustedUnder};
pub use proposal::{ProposalDecision, StoredProposal};
