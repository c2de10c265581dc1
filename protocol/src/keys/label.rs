//! Domain separation. Each label is used in one place only; a new use gets a
//! new label, a changed meaning a new version.

/// First field of the qualifying data of a quote ([`crate::tpm::qualifying_data`]).
pub const QUOTE: &str = "halfkey v1 quote";
/// HPKE `info` of a release ([`crate::keys::hpke`]).
pub const RELEASE: &str = "halfkey v1 release";
/// Prefix of everything that a tenant key signs ([`crate::document`]).
pub const DOCUMENT: &str = "halfkey v1 document";
/// Prefix of the hash that a document's place in the sequence is known by ([`crate::document::sha256`]).
pub const PLACE: &str = "halfkey v1 place";
/// HKDF `info` of the passphrase of one LUKS2 keyslot.
pub const VOLUME: &str = "halfkey v1 volume";
/// HKDF `info` of the proof that the node holds K.
pub const PROOF: &str = "halfkey v1 proof";
/// HKDF `info` of the key that seals the header of a volume ([`crate::keys::header_seal`]).
pub const HEADER_SEAL: &str = "halfkey v1 header seal";
/// Prefix of the hash that a node id is cut from.
pub const NODE_ID: &str = "halfkey v1 node id";
/// Prefix of what the cluster key authenticates in a nonce.
pub const NONCE: &str = "halfkey v1 nonce";
/// Prefix of what a registrar derives the secret of a challenge from.
pub const REGISTRATION: &str = "halfkey v1 registration";
/// Prefix of the HMAC that proves a credential was activated at registration.
pub const ACTIVATE: &str = "halfkey v2 activate";

/// Prefix of what a verifier derives the secret of an opening from ([`crate::keys::opening`]).
pub const OPENING: &str = "halfkey v1 opening";
/// Prefix of the HMAC that opens the fence ([`crate::FENCE_PCR`]).
pub const FENCE_OPENED: &[u8] = b"halfkey v1 fence opened";
/// Event data that closes the fence ([`crate::FENCE_PCR`]) without an attested opening.
pub const FENCE_CLOSED: &[u8] = b"halfkey v1 fence closed";
/// Event data on top of `opened` when a passphrase was asked for afterwards: what was opened had been closed.
pub const FENCE_PASSPHRASE: &[u8] = b"halfkey v1 fence passphrase";
/// Event data when the mounted root is not on a volume that was opened.
pub const FENCE_ROGUE: &[u8] = b"halfkey v1 fence rogue";
/// Event data on top of `opened` when a shell was given, after every mapping was closed.
pub const FENCE_SHELL: &[u8] = b"halfkey v1 fence shell";
