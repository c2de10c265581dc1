//! The attestation exchange: node -> verifier.

use super::declare::wire;
use super::document::SignedDocument;
use super::sealed::Sealed;
use crate::Bytes;

/// Why a node attests. On the wire: [`Purpose::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To fetch C_U and C_V once, in the running system, before the keyslot exists.
    Enroll,
    /// To unlock at boot.
    Boot,
    /// To keep attesting in the running system.
    Runtime,
    /// To propose the next boot, in the running system.
    Propose,
}

impl Purpose {
    /// Each of them: what [`Self::parse`] knows.
    pub const ALL: [Self; 4] = [Self::Boot, Self::Enroll, Self::Propose, Self::Runtime];

    /// The name on the wire and in the qualifying data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Boot => "boot",
            Self::Runtime => "runtime",
            Self::Propose => "propose",
        }
    }

    /// From the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }
}

wire! {
    /// A node wants to attest.
    pub struct Begin {
        /// Protocol versions that the agent speaks, best first.
        pub versions: Vec<u32>,
        /// Node id.
        pub node_id: String,
        /// [`Purpose`].
        pub purpose: String,
        /// Ids of the enrollments of this node that are on its disks, at most [`crate::MAX_VOLUMES`]: while one takes the
        /// place of another there are two.
        pub enrollments: Vec<String>,
    }

    /// What the quote must contain.
    pub struct Begun {
        /// Protocol version that the server chose.
        pub version: u32,
        /// Opaque to the agent; at most 128 bytes.
        pub nonce: Bytes,
        /// The bank to quote: `sha256` or `sha384`.
        pub bank: String,
        /// Which of the enrollments that `begin` named serves this purpose; none if none of them does.
        pub enrollment: Option<String>,
    }

    /// The evidence.
    pub struct Evidence {
        /// Protocol version of the exchange.
        pub version: u32,
        /// Node id.
        pub node_id: String,
        /// [`Purpose`].
        pub purpose: String,
        /// The nonce of `begin`.
        pub nonce: Bytes,
        /// Ephemeral X25519 public key, 32 bytes.
        pub hpke_public: Bytes,
        /// nonceTPM of the policy session that will unseal U; empty unless the purpose is `boot`.
        pub nonce_tpm: Bytes,
        /// What this purpose is about: see [`crate::tpm::qualifying_data::QualifyingData::purpose_data`].
        pub purpose_data: Bytes,
        /// `TPMS_ATTEST`, as signed.
        pub quote: Bytes,
        /// `TPMT_SIGNATURE`.
        pub signature: Bytes,
        /// The bank of the values below.
        pub bank: String,
        /// PCR 0 to 15, in order.
        pub pcrs: Vec<Bytes>,
        /// The firmware's event log (`binary_bios_measurements`).
        pub event_log: Option<Bytes>,
        /// systemd's log (`/run/log/systemd/tpm2-measure.log`).
        pub systemd_log: Option<Bytes>,
        /// The IMA list (`binary_runtime_measurements`).
        pub ima_log: Option<Bytes>,
        /// What the kernel says its command line is. A claim: it counts where an event has the digest of just this text.
        pub command_line: Option<Bytes>,
        /// Version of the agent, for the record.
        pub agent: String,
    }

    /// The answer to evidence.
    pub struct Verdict {
        /// `released`, `pending` or `denied`: [`Outcome`].
        pub outcome: String,
        /// A [`crate::Reason`] code, unless released.
        pub code: Option<String>,
        /// What was expected and what was found, for the console.
        pub message: String,
        /// What to do next.
        pub hint: Option<String>,
        /// Number of the record of this evidence at the verifier.
        pub evidence_id: Option<u64>,
        /// If pending: names this pending boot, for [`Wait`] and for the operator.
        pub ticket: Option<String>,
        /// If released: [`crate::keys::hpke::Released`], sealed to the quoted key; the AAD is the qualifying data.
        pub sealed: Option<Sealed>,
        /// If released with purpose `boot`: ECDSA P-256 (r || s, 64 bytes) by the release
        /// key over [`crate::tpm::seal_policy::release_digest`].
        pub release_signature: Option<Bytes>,
        /// If released with purpose `enroll`: what the tenant signed.
        pub enrollment: Option<SignedDocument>,
    }

    /// Asks to be told when something about the node changed. Held open by the
    /// server for at most 25 seconds.
    pub struct Wait {
        /// Node id.
        pub node_id: String,
        /// The ticket of a pending verdict; none while waiting for a tenant.
        pub ticket: Option<String>,
    }

    /// The end of a wait.
    pub struct Waited {
        /// Whether it is worth asking again.
        pub changed: bool,
    }
}

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// V and the release signature are in the answer.
    Released,
    /// An operator may approve: ask again.
    Pending,
    /// No.
    Denied,
}

impl Outcome {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Pending => "pending",
            Self::Denied => "denied",
        }
    }

    /// From the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Released, Self::Pending, Self::Denied].into_iter().find(|o| o.as_str() == text)
    }
}
