//! What may be released, and to whom: built from proofs only.
//!
//! V, U and the release key's signature leave this server through [`ReleaseGrant::release`] and [`EnrollGrant::release`]
//! and by no other way. What a constructor asks for can't be had without the check that it stands for, and what goes out
//! is taken from what the quote commits to, not from the message.

use super::sealed;
use crate::domain::Stage;
use crate::domain::{Boot, Damage, Decision, Enrollment, Node};
use crate::keys::{ClusterKey, ReleaseKey};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::AttestedBoot;
use halfkey_evidence::policy::{Evaluation, Matched};
use halfkey_evidence::quote::{Committed, VerifiedQuote};
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::identity::fingerprint_of;
use halfkey_protocol::keys::hpke::Released;
use halfkey_protocol::keys::label;
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::wire::operator::Held;
use halfkey_protocol::wire::{Purpose, Sealed, SignedDocument};
use halfkey_protocol::{Bytes, NodeId, Reason};
use zeroize::Zeroizing;

/// Proof: an operator approved this boot, and that approval is neither used nor expired.
pub struct ApprovedBoot<'a>(&'a BootTicket);

impl<'a> ApprovedBoot<'a> {
    /// What was decided about a boot, if it is an approval of the one with this ticket.
    pub fn of(boot: &Boot, ticket: &'a BootTicket, now: u64) -> Option<Self> {
        match boot.decision {
            Some(Decision::Approved { expires, used: false })
                if expires > now && boot.pending.approvable && boot.pending.ticket == ticket.as_str() =>
            {
                Some(Self(ticket))
            }
            Some(Decision::Approved { .. } | Decision::Denied { .. }) | None => None,
        }
    }
}

/// Why a boot may be released.
enum Ground<'a> {
    /// By a policy that allows it: which, for people, and by which of its boots.
    Policy { policy: &'a str, allowed: &'a Evaluation },
    /// By an operator, this one time.
    Approval(ApprovedBoot<'a>),
}

/// C_V and the release signature may go to this boot.
pub struct ReleaseGrant<'a> {
    quote: &'a VerifiedQuote,
    enrollment: &'a Enrollment,
    ground: Ground<'a>,
}

impl<'a> ReleaseGrant<'a> {
    /// For a boot that its policy allows. `policy` is that policy's name, for people. A machine that shows no log is allowed by none.
    ///
    /// # Errors
    /// `PolicyMismatch` (it is not allowed); `Malformed` (a quote for another purpose, or another node's), `Revoked`, `Held`,
    /// `RolledBack` (the database is not what was signed), `NotEnrolled`.
    pub fn by_policy(node: &'a Node, boot: AttestedBoot<'a>, policy: &'a str) -> Result<Self, Rejection> {
        let allowed = boot.allowed().ok_or_else(|| {
            Rejection::new(Reason::PolicyMismatch, "expected a boot that the policy allows, found another")
        })?;
        Self::new(node, boot, Ground::Policy { policy, allowed })
    }

    /// For a boot that an operator approved.
    ///
    /// # Errors
    /// As [`ReleaseGrant::by_policy`], but for the policy's.
    pub fn by_approval(
        node: &'a Node,
        boot: AttestedBoot<'a>,
        approved: ApprovedBoot<'a>,
    ) -> Result<Self, Rejection> {
        Self::new(node, boot, Ground::Approval(approved))
    }

    fn new(node: &'a Node, boot: AttestedBoot<'a>, ground: Ground<'a>) -> Result<Self, Rejection> {
        let quote = boot.quote();
        require_purpose(quote, node.id, Purpose::Boot)?;
        require_not_revoked(node)?;
        require_not_held(node)?;
        require_undamaged(node)?;
        let enrollment = node
            .current
            .as_ref()
            .ok_or_else(|| Rejection::new(Reason::NotEnrolled, format!("node {}", node.id)))?;
        Ok(Self { quote, enrollment, ground })
    }

    /// What the release key signs: nonceTPM of the session and the node.
    pub fn signed_session(&self) -> (&[u8], &[u8; 16]) {
        let Committed { nonce_tpm, node, .. } = self.quote.committed();
        (nonce_tpm, &node.0)
    }

    /// The secret that belongs to this r, and what PCR 15 becomes by it: derived, so that an answer which was lost is given again by
    /// any replica. Where there are two cluster keys, by the one that the last release is by, if that was to this boot for this r.
    fn opening(&self, r_sha256: &[u8; 32], cluster: &ClusterKey) -> (OpeningSecret, [u8; 32]) {
        let fields = [label::OPENING.as_bytes(), &self.quote.committed().node.0, r_sha256];
        let by = |tag: [u8; 32]| {
            let opening = OpeningSecret::new(&*Zeroizing::new(tag)).expect("a tag has 32 bytes");
            let event = opening.event_by(r_sha256, &self.enrollment.proof_sha256);
            let fence = fence::opened(PcrBank::Sha256, &*event);
            (opening, fence.try_into().expect("a value of the SHA-256 bank has 32 bytes"))
        };
        let boot = (self.quote.reset_count(), self.quote.restart_count());
        let last = self.enrollment.released.as_ref().filter(|last| (last.reset, last.restart) == boot);
        let last = last.map(|last| last.fence);
        let mut before = cluster.tags(&fields).skip(1).map(by);
        before.find(|(_, fence)| Some(*fence) == last).unwrap_or_else(|| by(cluster.tag(&fields)))
    }

    /// Seals C_V to the quoted key and signs.
    ///
    /// # Errors
    /// `Malformed`: the quoted key is no X25519 point, or there is no SHA-256(r). `Unavailable`: no randomness.
    pub fn release(self, key: &ReleaseKey, cluster: &ClusterKey) -> Result<BootRelease, Rejection> {
        let r_sha256: [u8; 32] = self.quote.committed().purpose_data.as_slice().try_into().map_err(|_| {
            Rejection::new(Reason::Malformed, "expected 32 bytes in purpose_data, found another length")
        })?;
        let (opening, fence) = self.opening(&r_sha256, cluster);
        let sealed = seal(
            self.quote,
            Released { opening: Some(opening), c_v: self.enrollment.c_v.clone(), c_u: None },
        )?;
        let signature =
            key.sign_release(&self).map_err(|e| Rejection::new(Reason::Unavailable, e.to_string()))?.into();
        let (message, boot, approval) = match self.ground {
            Ground::Policy { policy, allowed: Evaluation { boot, .. } } => {
                let message = match boot {
                    Some(boot) => format!("released: boot {:?} of {policy}", boot.name),
                    None => format!("released: {policy}"),
                };
                (message, boot.clone(), None)
            }
            Ground::Approval(ApprovedBoot(ticket)) => {
                ("released: an operator approved this boot".to_owned(), None, Some(ticket.to_string()))
            }
        };
        Ok(BootRelease { sealed, signature, fence, message, boot, approval })
    }
}

/// C_U and C_V may go to this node: its enrollment is open.
pub struct EnrollGrant<'a> {
    quote: &'a VerifiedQuote,
    enrollment: &'a Enrollment,
    ticket: &'a BootTicket,
}

impl<'a> EnrollGrant<'a> {
    /// From a quote of purpose `enroll`, the open enrollment, if it is the one that the quote asks for, and the boot that fetches
    /// it: the first one, or the same again.
    ///
    /// # Errors
    /// `Malformed` (a quote for another purpose, or another node's), `Revoked`, `RolledBack` (its enrollments are not what was
    /// signed and proved), `NotEnrolled`, `EnrollmentSignature` (another tenant's is open, or one for another challenge),
    /// `EnrollmentUsed`.
    pub fn new(node: &'a Node, quote: &'a VerifiedQuote, ticket: &'a BootTicket) -> Result<Self, Rejection> {
        require_purpose(quote, node.id, Purpose::Enroll)?;
        require_not_revoked(node)?;
        let Some(enrollment) = &node.open else {
            require_enrollments(node)?;
            return Err(Rejection::new(Reason::NotEnrolled, format!("node {}", node.id)));
        };
        require_wanted(quote, enrollment)?;
        let id = &enrollment.id;
        let used = |how: &str| Rejection::new(Reason::EnrollmentUsed, format!("enrollment {id} was {how}"));
        match enrollment.stage {
            Some(Stage::Open) => {}
            Some(Stage::UsedUp) => return Err(used("open in a database that was restored since")),
            Some(Stage::Proved | Stage::Replaced) | None => {
                let what = format!("enrollment {id} is not the open one of the sequence");
                return Err(Rejection::new(Reason::RolledBack, what));
            }
        }
        if enrollment.fetched_by.as_deref().is_some_and(|first| first != ticket.as_str()) {
            return Err(used("fetched in another boot"));
        }
        Ok(Self { quote, enrollment, ticket })
    }

    /// Seals C_V and C_U to the quoted key.
    ///
    /// # Errors
    /// `Malformed`: the quoted key is no X25519 point.
    pub fn release(self) -> Result<EnrollRelease, Rejection> {
        let Enrollment { c_v, c_u, signed, .. } = self.enrollment;
        Ok(EnrollRelease {
            sealed: seal(self.quote, Released { opening: None, c_v: c_v.clone(), c_u: c_u.clone() })?,
            enrollment: signed.clone(),
            fetched_by: self.ticket.to_string(),
        })
    }
}

/// What went out to a boot. Made by a [`ReleaseGrant`] only.
#[derive(Clone, Debug)]
pub struct BootRelease {
    pub(super) sealed: Sealed,
    pub(super) signature: Bytes,
    pub(super) message: String,
    fence: [u8; 32],
    boot: Option<Matched>,
    approval: Option<String>,
}

impl BootRelease {
    /// What PCR 15 of the SHA-256 bank must become.
    pub fn fence(&self) -> &[u8; 32] {
        &self.fence
    }

    /// The policy's boot that this one is; none if an operator approved it.
    pub fn boot(&self) -> Option<&Matched> {
        self.boot.as_ref()
    }

    /// Ticket of the approval that this used.
    pub fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }
}

/// What went out to a node that is being enrolled. Made by an [`EnrollGrant`] only.
#[derive(Clone, Debug)]
pub struct EnrollRelease {
    pub(super) sealed: Sealed,
    pub(super) enrollment: SignedDocument,
    fetched_by: String,
}

impl EnrollRelease {
    /// Ticket of the boot that fetched C_U.
    pub fn fetched_by(&self) -> &str {
        &self.fetched_by
    }
}

/// The node is not revoked.
///
/// # Errors
/// `Revoked`.
pub fn require_not_revoked(node: &Node) -> Result<(), Rejection> {
    match &node.revoked {
        Some(because) => Err(Rejection::new(Reason::Revoked, because.clone())),
        None => Ok(()),
    }
}

/// No operator holds the node's boots.
///
/// # Errors
/// `Held`.
pub fn require_not_held(node: &Node) -> Result<(), Rejection> {
    match &node.held {
        Some(Held { by, because }) => Err(Rejection::new(Reason::Held, format!("{by}: {because}"))),
        None => Ok(()),
    }
}

/// What the database says of the node is what was signed: else its enrollment may be another's, and an approval goes by it.
fn require_undamaged(node: &Node) -> Result<(), Rejection> {
    match &node.damage {
        Some(damage) => Err(Rejection::new(Reason::RolledBack, damage.to_string())),
        None => Ok(()),
    }
}

/// The enrollments of the node are what the sequence says. What governs its boots is another question.
///
/// # Errors
/// `RolledBack`.
pub fn require_enrollments(node: &Node) -> Result<(), Rejection> {
    match &node.damage {
        Some(damage @ Damage::Enrollment(_)) => Err(Rejection::new(Reason::RolledBack, damage.to_string())),
        Some(Damage::Governing(_)) | None => Ok(()),
    }
}

/// The enrollment is by the tenant key that the machine was told, and for the challenge that it made. Any operator can leave another
/// one at the server, and knows its K: what goes out to the node is the node's word for it, see [`crate::domain::Store::prove`].
fn require_wanted(quote: &VerifiedQuote, enrollment: &Enrollment) -> Result<(), Rejection> {
    let Some(wanted) = Wanted::read(&quote.committed().purpose_data) else {
        let what = "expected a tenant key's SHA-256 and a challenge in purpose_data, found another length";
        return Err(Rejection::new(Reason::Malformed, what));
    };
    let (id, found) = (&enrollment.id, enrollment.answers);
    let what = if found.tenant_key != wanted.tenant_key {
        let (expected, found) = (fingerprint_of(&wanted.tenant_key), fingerprint_of(&found.tenant_key));
        format!(
            "enrollment {id} is open and signed by another tenant key: expected {expected}, found {found}"
        )
    } else if found.challenge != wanted.challenge {
        format!("enrollment {id} is open and answers another challenge than this machine's")
    } else {
        return Ok(());
    };
    Err(Rejection::new(Reason::EnrollmentSignature, what))
}

fn require_purpose(quote: &VerifiedQuote, node: NodeId, expected: Purpose) -> Result<(), Rejection> {
    let committed = quote.committed();
    if committed.purpose == expected && committed.node == node {
        return Ok(());
    }
    let (expected, found) = (expected.as_str(), committed.purpose.as_str());
    let what = format!(
        "expected a quote of node {node} for {expected}, found one of {} for {found}",
        committed.node
    );
    Err(Rejection::new(Reason::Malformed, what))
}

fn seal(quote: &VerifiedQuote, released: Released) -> Result<Sealed, Rejection> {
    sealed::seal(&quote.committed().hpke_public, &released, quote.qualifying_data())
        .ok_or_else(|| Rejection::new(Reason::Malformed, "hpke_public is no X25519 point"))
}
