//! What is decided by what is recorded: pure decisions over rows, a request and the time. They give changes of rows, an answer and
//! events.
//!
//! | module | what |
//! | --- | --- |
//! | [`records`], [`transactions`] | each question and each change, and which transaction it is; [`Db`] runs them from async code |
//! | [`view`] | one transaction, as the others work in it |
//! | [`model`] | what rows are read into: a node, its enrollments, boots, what governs it, proposals |
//! | [`index`], [`sequence`], [`state_file`], [`opening`] | which documents there are, and whether the database is the one that was answered with |
//! | [`document`], [`audit`] | what is only ever appended to |
//! | [`node`], [`enrollment`], [`revocation`], `words` | nodes: which keys, and whether anything goes out |
//! | [`ruling`], [`evidence`], [`boot`], `released` | rulings on evidence, the record of it, boots that wait for an operator, the last that was released |
//! | [`policy`], [`governing`], [`propose`], [`proposal`], [`review`] | what governs a node, what it proposes, and both looked at again |
//! | [`registration`], `room`, [`client`] | the registrar's records, and room among them; certificates |
//! | [`notice`] | what webhooks are to tell |
//! | [`retention`] | what is forgotten |
//! | `seal`, `check` | tags of rows by the cluster key; rows of nodes compared with the documents |

mod ahead;
mod at_once;
pub mod audit;
pub mod boot;
mod check;
pub mod client;
mod db;
pub mod document;
pub mod enrollment;
mod error;
pub mod evidence;
pub mod governing;
pub mod index;
pub mod model;
pub mod node;
pub mod notice;
pub mod opening;
pub mod policy;
pub mod policy_source;
pub mod proposal;
pub mod propose;
pub mod records;
pub mod registration;
mod released;
pub mod retention;
pub mod review;
pub mod revocation;
mod room;
pub mod ruling;
pub mod seal;
pub mod sequence;
pub mod state_file;
pub mod transactions;
pub mod view;
mod words;

pub use crate::store::{RegistrationLine, StoreError, Which};
pub use audit::By;
pub use boot::{Approval, BootReviewer};
pub use client::{Client, ClientKind};
pub use db::{Db, THREADS};
pub use document::NewDocument;
pub use enrollment::NewEnrollment;
pub use error::{Error, Result, json, legible};
pub use model::{
    Boot, Counters, Damage, Decision, Enrollment, Governing, NewPending, Node, NodeSnapshot, PolicyRef,
    ProposalDecision, ReleasedBoot, Stage, StoredProposal, Trusted, TrustedUnder, Waiting,
};
pub use notice::{Notice, NoticeKind, Subscription};
pub use policy::NewPolicy;
pub use policy_source::PolicySource;
pub use propose::{ProposalRequest, ProposalRuling, ProposalSnapshot};
pub use registration::{Answered, NewRegistration, Registration, Saved};
pub use review::Reviewer;
pub use ruling::EvidenceRequest;
pub use transactions::{Records, Standing};
pub use view::TxView;
