//! The LUKS2 token of type `halfkey`: what the initramfs needs to know.
//!
//! What is needed before K is there is unauthenticated by nature, and nothing security-relevant depends on
//! it: a wrong value makes the unlocking fail, or all of it is of a disk that is not the owner's, and then the fence does not become
//! what the owner's verifier expects ([`halfkey_protocol::keys::opening`]). What is used afterwards (name and role of the mapping,
//! flags, the set of volumes) is sealed by K, with the header: see [`halfkey_protocol::keys::header_seal`].

use super::names::{MAX_SLOTS, is_flag, is_mapping_name, is_uuid};
use crate::error::{Error, Kind, Result};
use crate::net::Server;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::{Bytes, MAX_SERVERS, MAX_VOLUMES, NodeId, Role};

/// The token's type.
pub const TYPE: &str = "halfkey";
/// Of this layout.
pub const VERSION: u32 = 1;

/// A token, with its fields read.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The keyslot; named before it exists.
    pub slot: u32,
    /// Whether the keyslot exists and is this token's (`keyslots` names it), and the header is sealed.
    pub complete: bool,
    /// Node id.
    pub node: NodeId,
    /// Which enrollment: a UUID.
    pub enrollment: String,
    /// Where the verifier is, best first.
    pub servers: Vec<Server>,
    /// Its CA, PEM.
    pub ca: String,
    /// `TPMT_PUBLIC` of the sealed half.
    pub sealed_public: Vec<u8>,
    /// Its private part.
    pub sealed_private: Vec<u8>,
    /// Name of the SRK that it is sealed under.
    pub srk_name: Vec<u8>,
    /// PCR bank.
    pub bank: PcrBank,
    /// `TPMT_PUBLIC` of the release key. U's policy binds its name.
    pub release_public: Vec<u8>,
    /// Seconds since 1970: no certificate can have expired before this.
    pub enrolled_at: u64,
    /// Name of the mapping that the volume is opened as.
    pub mapping: String,
    /// What the volume is to the system.
    pub role: Role,
    /// Activation flags that it is opened with, in ascending order.
    pub flags: Vec<String>,
    /// UUIDs of all volumes of the enrollment, in ascending order.
    pub volumes: Vec<String>,
    /// Written last. None: the enrollment was interrupted.
    pub seal: Option<Seal>,
}

/// What the last write of a token adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Seal {
    /// [`halfkey_protocol::keys::header_seal::SealedHeader::seal`].
    pub mac: [u8; 32],
    /// Its fingerprint, for `status`, which has no K.
    pub fingerprint: [u8; 32],
}

/// The token as JSON, field by field (LUKS2 On-Disk Format, section 3.5).
#[derive(miniserde::Serialize, miniserde::Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    halfkey_slot: u32,
    version: u32,
    node: String,
    enrollment: String,
    servers: Vec<String>,
    ca: String,
    sealed_public: Bytes,
    sealed_private: Bytes,
    srk_name: Bytes,
    bank: String,
    release_public: Bytes,
    enrolled_at: u64,
    mapping: String,
    role: String,
    flags: Vec<String>,
    volumes: Vec<String>,
    seal: Option<Bytes>,
    header_sha256: Option<Bytes>,
}

impl Token {
    /// Reads the JSON of a token.
    ///
    /// # Errors
    /// When a field is missing or not what it must be.
    pub fn parse(json: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(Kind::NotEnrolled, format!("damaged halfkey token: {what}"))
                .hint("enroll the volume again from the running system: halfkey-agent enroll")
        };
        if json.len() > 64 << 10 {
            return Err(wrong("larger than 64 KiB"));
        }
        let raw: Raw =
            miniserde::json::from_str(json).map_err(|_| wrong("a field is missing or of another type"))?;
        if raw.kind != TYPE {
            return Err(wrong("of another type"));
        }
        if raw.version != VERSION {
            return Err(wrong(&format!("expected version {VERSION}, found {}", raw.version)));
        }
        if raw.halfkey_slot >= MAX_SLOTS {
            return Err(wrong("it names a keyslot that no LUKS2 volume has"));
        }
        let named = match raw.keyslots.as_slice() {
            [] => false,
            [slot] if *slot == raw.halfkey_slot.to_string() => true,
            _ => return Err(wrong("keyslots and halfkey_slot differ")),
        };
        if !is_uuid(&raw.enrollment) {
            return Err(wrong("the enrollment is no UUID"));
        }
        if raw.servers.is_empty() || raw.servers.len() > MAX_SERVERS {
            return Err(wrong(&format!("expected 1 to {MAX_SERVERS} servers")));
        }
        if !is_mapping_name(&raw.mapping) {
            return Err(wrong("the mapping has no name that device-mapper takes"));
        }
        let ascending = |list: &[String]| list.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending(&raw.flags) || !raw.flags.iter().all(|flag| is_flag(flag)) {
            return Err(wrong("expected activation flags that are known, in ascending order"));
        }
        let volumes = 1..=MAX_VOLUMES;
        if !volumes.contains(&raw.volumes.len())
            || !ascending(&raw.volumes)
            || !raw.volumes.iter().all(|uuid| is_uuid(uuid))
        {
            return Err(wrong(&format!("expected UUIDs of 1 to {MAX_VOLUMES} volumes, in ascending order")));
        }
        let seal = match (&raw.seal, &raw.header_sha256) {
            (None, None) => None,
            (Some(mac), Some(fingerprint)) => Some(Seal {
                mac: mac.array().ok_or_else(|| wrong("the seal does not have 32 bytes"))?,
                fingerprint: fingerprint
                    .array()
                    .ok_or_else(|| wrong("header_sha256 does not have 32 bytes"))?,
            }),
            _ => return Err(wrong("expected seal and header_sha256, or none of them")),
        };
        let size = |bytes: &Bytes, what: &str| match bytes.len() {
            1..=1024 => Ok(bytes.0.clone()),
            len => Err(wrong(&format!("{what}: expected 1 to 1024 bytes, found {len}"))),
        };
        Ok(Self {
            slot: raw.halfkey_slot,
            complete: named && seal.is_some(),
            node: NodeId::parse(&raw.node).ok_or_else(|| wrong("the node id is no UUID"))?,
            enrollment: raw.enrollment,
            servers: raw
                .servers
                .iter()
                .map(|url| Server::parse(url))
                .collect::<Result<_>>()
                .map_err(|e| wrong(&e.message))?,
            ca: raw.ca,
            sealed_public: size(&raw.sealed_public, "sealed_public")?,
            sealed_private: size(&raw.sealed_private, "sealed_private")?,
            srk_name: size(&raw.srk_name, "srk_name")?,
            bank: PcrBank::from_name(&raw.bank)
                .ok_or_else(|| wrong("the bank is neither sha256 nor sha384"))?,
            release_public: size(&raw.release_public, "release_public")?,
            enrolled_at: raw.enrolled_at,
            mapping: raw.mapping,
            role: Role::parse(&raw.role).ok_or_else(|| wrong("the role is neither root nor data"))?,
            flags: raw.flags,
            volumes: raw.volumes,
            seal,
        })
    }

    /// The JSON for `cryptsetup token import`.
    pub fn to_json(&self) -> String {
        miniserde::json::to_string(&Raw {
            kind: TYPE.into(),
            keyslots: if self.complete { vec![self.slot.to_string()] } else { Vec::new() },
            halfkey_slot: self.slot,
            version: VERSION,
            node: self.node.to_string(),
            enrollment: self.enrollment.clone(),
            servers: self.servers.iter().map(|server| server.as_str().to_owned()).collect(),
            ca: self.ca.clone(),
            sealed_public: self.sealed_public.clone().into(),
            sealed_private: self.sealed_private.clone().into(),
            srk_name: self.srk_name.clone().into(),
            bank: self.bank.name().into(),
            release_public: self.release_public.clone().into(),
            enrolled_at: self.enrolled_at,
            mapping: self.mapping.clone(),
            role: self.role.as_str().into(),
            flags: self.flags.clone(),
            volumes: self.volumes.clone(),
            seal: self.seal.as_ref().map(|seal| seal.mac.into()),
            header_sha256: self.seal.as_ref().map(|seal| seal.fingerprint.into()),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn token(slot: u32, complete: bool) -> Token {
        Token {
            slot,
            complete,
            node: NodeId([0x80; 16]),
            enrollment: "0afd6329-fe84-4fc3-be1c-f947e595762f".into(),
            servers: vec![Server::parse("https://10.0.2.2:8443").unwrap()],
            ca: "-----BEGIN CERTIFICATE-----\n".into(),
            sealed_public: vec![1; 78],
            sealed_private: vec![2; 160],
            srk_name: vec![3; 34],
            bank: PcrBank::Sha256,
            release_public: vec![4; 88],
            enrolled_at: 1_800_000_000,
            mapping: "root".into(),
            role: Role::Root,
            flags: vec!["allow-discards".into()],
            volumes: vec!["0afd6329-fe84-4fc3-be1c-f947e595762f".into()],
            seal: complete.then_some(Seal { mac: [5; 32], fingerprint: [6; 32] }),
        }
    }

    #[test]
    fn a_token_without_a_seal_is_not_complete() {
        let token = Token { seal: None, ..token(1, true) };
        let read = Token::parse(&token.to_json()).unwrap();
        assert!(!read.complete && read.seal.is_none());
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let refused = |change: &dyn Fn(&mut Token)| {
            let mut token = token(1, true);
            change(&mut token);
            Token::parse(&token.to_json()).is_err()
        };
        assert!(!refused(&|_| ()));
        assert!(refused(&|t| t.mapping = "../x".into()));
        assert!(refused(&|t| t.flags = vec!["unheard-of".into()]));
        assert!(refused(&|t| t.flags = vec!["same-cpu-crypt".into(), "allow-discards".into()]));
        assert!(refused(&|t| t.volumes.clear()));
        assert!(refused(&|t| t.volumes = vec![t.volumes[0].clone(); 2]));
        assert!(refused(&|t| t.volumes[0].make_ascii_uppercase()));
    }

    proptest! {
        #[test]
        fn tokens_survive_their_json(slot in 0u32..32, complete: bool) {
            let token = token(slot, complete);
            prop_assert_eq!(Token::parse(&token.to_json()).unwrap(), token);
        }

        #[test]
        fn any_json_is_read_or_refused(text in ".{0,200}", at in 0usize..900, with in ".") {
            let _ = Token::parse(&text);
            let mut json = token(1, true).to_json();
            if json.is_char_boundary(at) && at < json.len() {
                json.insert_str(at, &with);
            }
            let _ = Token::parse(&json);
        }
    }
}
