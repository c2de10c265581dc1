//! The appraisal of evidence (RFC 9334): what a node sent, read and within bounds; what its TPM vouches for; what a policy says of that.

use crate::Rejection;
use halfkey_measure::predict::MAX_COMMAND_LINE;
use halfkey_protocol::wire::{Finish, Purpose};
use halfkey_protocol::{MAX_LOG, NodeId, Reason, VERSIONS};

/// Evidence that is within bounds.
pub struct Evidence<'a> {
    /// The message.
    pub finish: &'a Finish,
    /// Whose.
    pub node: NodeId,
    /// What for.
    pub purpose: Purpose,
}

impl<'a> Evidence<'a> {
    /// Reads evidence for a verdict: purpose `boot` or `enroll`.
    ///
    /// # Errors
    /// `Version`, `Malformed`, `TooLarge`.
    pub fn read(finish: &'a Finish) -> Result<Self, Rejection> {
        match Purpose::parse(&finish.purpose) {
            Some(purpose @ (Purpose::Boot | Purpose::Enroll)) => Self::within_bounds(finish, purpose),
            Some(Purpose::Runtime) => {
                Err(Rejection::new(Reason::Malformed, "purpose runtime is not served by this version"))
            }
            Some(Purpose::Propose) | None => {
                Err(Rejection::new(Reason::Malformed, "expected purpose boot or enroll"))
            }
        }
    }

    /// Reads evidence that comes with a proposal.
    ///
    /// # Errors
    /// As [`Evidence::read`].
    pub fn read_proposal(finish: &'a Finish) -> Result<Self, Rejection> {
        match Purpose::parse(&finish.purpose) {
            Some(Purpose::Propose) => Self::within_bounds(finish, Purpose::Propose),
            Some(Purpose::Boot | Purpose::Enroll | Purpose::Runtime) | None => {
                Err(Rejection::new(Reason::Malformed, "expected purpose propose"))
            }
        }
    }

    fn within_bounds(finish: &'a Finish, purpose: Purpose) -> Result<Self, Rejection> {
        let refuse = |reason, what: String| Err(Rejection::new(reason, what));
        if !VERSIONS.contains(&finish.version) {
            return refuse(
                Reason::Version,
                format!("expected one of {VERSIONS:?}, found {}", finish.version),
            );
        }
        let Some(node) = NodeId::parse(&finish.node_id) else {
            return refuse(Reason::Malformed, "expected a node id: a UUID in lower case".into());
        };
        let (hpke_public, nonce_tpm, r_sha256) = match purpose {
            Purpose::Boot => (32, 16..=64, 32),
            Purpose::Propose => (0, 0..=0, 32),
            Purpose::Enroll => (32, 0..=0, 64),
            Purpose::Runtime => (32, 0..=0, 0),
        };
        for (name, len, allowed) in [
            ("hpke_public", finish.hpke_public.len(), hpke_public..=hpke_public),
            ("nonce_tpm", finish.nonce_tpm.len(), nonce_tpm),
            ("r_sha256", finish.r_sha256.len(), r_sha256..=r_sha256),
            ("pcrs", finish.pcrs.len(), 16..=16),
            ("agent", finish.agent.len(), 0..=64),
        ] {
            if !allowed.contains(&len) {
                let what = format!(
                    "expected {} to {} bytes or items in {name}, found {len}",
                    allowed.start(),
                    allowed.end()
                );
                return refuse(Reason::Malformed, what);
            }
        }
        let length = |log: &Option<halfkey_protocol::Bytes>| log.as_ref().map_or(0, |log| log.len());
        for (name, len, limit) in [
            ("quote", finish.quote.len(), 2048),
            ("signature", finish.signature.len(), 2048),
            ("nonce", finish.nonce.len(), 128),
            ("bank", finish.bank.len(), 16),
            ("pcrs", finish.pcrs.iter().map(|pcr| pcr.len()).max().unwrap_or(0), 64),
            ("event_log", length(&finish.event_log), MAX_LOG),
            ("userspace_log", length(&finish.userspace_log), MAX_LOG),
            ("ima_log", length(&finish.ima_log), MAX_LOG),
            ("command_line", length(&finish.command_line), MAX_COMMAND_LINE),
        ] {
            if len > limit {
                return refuse(
                    Reason::TooLarge,
                    format!("expected at most {limit} bytes in {name}, found {len}"),
                );
            }
        }
        Ok(Self { finish, node, purpose })
    }

    /// What the kernel says its command line is.
    pub fn command_line(&self) -> Option<&'a [u8]> {
        self.finish.command_line.as_ref().map(|text| text.as_ref())
    }
}
