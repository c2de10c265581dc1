//! What the agent and the servers of Halfkey agree on.
//!
//! | module | what |
//! | --- | --- |
//! | [`wire`] | JSON messages, version 1 |
//! | [`reason`] | every code a verdict or a refusal can carry, and whose fault it is |
//! | [`document`] | the envelope of what tenants sign: kinds, scopes, the sequence |
//! | [`identity`] | fingerprints that people compare, the node id |
//! | [`keys`] | the disk key and its halves, HPKE, the seal over a volume's header, labels |
//! | [`tpm`] | templates, names, qualifying data, the seal's policy, the fence, KDFs |
//! | [`bytes`] | byte strings as base64url |
//!
//! The wire types derive `miniserde` (feature of the same name; agent) or
//! `serde` (servers) from one definition. Both ignore unknown fields.

pub mod bytes;
pub mod document;
pub mod identity;
pub mod keys;
pub mod reason;
pub mod tpm;
pub mod wire;

pub use bytes::Bytes;
pub use identity::NodeId;
pub use keys::half::{Half, Key};
pub use keys::header_seal::Role;
pub use reason::{Fault, Reason};

/// The protocol versions this build speaks, in order of preference.
pub const VERSIONS: &[u32] = &[1];

/// The fence PCR. Compiled in: a token or a server that could choose it could
/// choose one that nobody extends.
pub const FENCE_PCR: u8 = 15;

/// PCRs in every quote: 0 to 15.
pub const QUOTED_PCRS: usize = 16;

/// A request body that the servers accept, in bytes: a firmware event log of
/// 1 MiB and an IMA list of 1 MiB in base64, and room for the rest.
pub const MAX_BODY: usize = 4 << 20;

/// An answer that the agent accepts, in bytes.
pub const MAX_ANSWER: usize = 64 << 10;

/// URLs of servers that an enrollment may name; tenant, verifier and agent refuse more.
pub const MAX_SERVERS: usize = 8;

/// Volumes that one enrollment may have, and enrollments that a node may name at `begin`.
pub const MAX_VOLUMES: usize = 16;

/// A log (firmware, systemd's, IMA) in evidence, in bytes before base64.
pub const MAX_LOG: usize = 1 << 20;
