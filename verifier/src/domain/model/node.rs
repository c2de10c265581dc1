//! A node and its enrollments.

use super::boot::{Counters, ReleasedBoot};
use super::policy::Governing;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::wire::operator::{Held, NodeState, TpmFirmware};
use halfkey_protocol::wire::{Credential, Register, SignedDocument};
use std::fmt;

/// A node, as the verifier knows it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Given by the tenant.
    pub label: String,
    /// Why it is revoked, if it is.
    pub revoked: Option<String>,
    /// Who holds it and why, if somebody does: its boots are denied.
    pub held: Option<Held>,
    /// What its TPM said of its firmware last.
    pub tpm_firmware: Option<TpmFirmware>,
    /// Proved: serves `boot`.
    pub current: Option<Enrollment>,
    /// Not proved yet: serves `enroll`. The current one stays valid beside it,
    /// else an interrupted re-enrollment would lock the machine out.
    pub open: Option<Enrollment>,
    /// What its boots are judged by.
    pub governing: Governing,
    /// Where rows and documents differ.
    pub damage: Option<Damage>,
    /// Last evidence.
    pub last_seen: u64,
    /// Its outcome.
    pub last_outcome: Option<String>,
    /// Its code.
    pub last_code: Option<String>,
}

impl Node {
    /// Where it stands. `Enrolling` also while a re-enrollment is open.
    pub fn state(&self) -> NodeState {
        node_state(self.revoked.is_some(), self.open.is_some(), self.current.is_some())
    }
}

/// Rows of a node that say otherwise than the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Which enrollment is open or proved: nothing goes out to the node.
    Enrollment(String),
    /// What governs it: nothing judges its boots, and nobody can approve them.
    Governing(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Enrollment(why) | Self::Governing(why)) = self;
        write!(f, "the database is not what was signed: {why}")
    }
}

/// Where a node stands.
pub fn node_state(revoked: bool, open: bool, current: bool) -> NodeState {
    match (revoked, open, current) {
        (true, _, _) => NodeState::Revoked,
        (false, true, _) => NodeState::Enrolling,
        (false, false, true) => NodeState::Enrolled,
        (false, false, false) => NodeState::Registered,
    }
}

/// An enrollment with what was released for it.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// Its UUID.
    pub id: String,
    /// What the tenant signed.
    pub signed: SignedDocument,
    /// Whose it is, and which challenge it answers: a node that wants another one does not get it.
    pub answers: Wanted,
    /// SHA-256 of the proof of K, as the tenant signed it.
    pub proof_sha256: [u8; 32],
    /// Its place in the sequence.
    pub document: Place,
    /// When the tenant made it, seconds since 1970.
    pub created: u64,
    /// The registration that the tenant checked.
    pub registration: Register,
    /// The bank.
    pub bank: PcrBank,
    /// V for the SRK.
    pub c_v: Credential,
    /// U for the EK, until the node proved.
    pub c_u: Option<Credential>,
    /// Of the last quote that was accepted.
    pub counters: Option<Counters>,
    /// Where it stands by the sequence; none as long as nobody has compared it.
    pub stage: Option<Stage>,
    /// Ticket of the boot that fetched C_U first.
    pub fetched_by: Option<String>,
    /// The last boot that was released.
    pub released: Option<ReleasedBoot>,
}

/// Where an enrollment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The newest of its node, and not proved.
    Open,
    /// The same, and it was that when a restored database was accepted: whether it was proved before the restore nobody knows, so
    /// nothing of it goes out, and nobody can prove it.
    UsedUp,
    /// The one that was proved last.
    Proved,
    /// A newer one was signed or proved.
    Replaced,
}
