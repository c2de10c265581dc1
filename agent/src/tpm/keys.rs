//! EK, AK and SRK: which, where, how they are made.
//!
//! | key | hierarchy | persistent handle | else |
//! | --- | --- | --- | --- |
//! | EK | endorsement | by [`KINDS`] | recreated by the TCG template |
//! | AK | endorsement | 0x81018001, from enrollment on | recreated |
//! | SRK | owner | 0x81000001, from enrollment on, if no other key is there | recreated |
//!
//! Whoever has the owner's password, which is empty mostly, can put another key there. The SRK's name is
//! in the token, and another key is not used. With another AK the verifier knows the quote for another TPM's.

use super::entity::{Hierarchy, Object};
use super::object::is_named;
use super::{Error, Tpm};
use halfkey_protocol::tpm::template;

const AK_HANDLE: u32 = 0x8101_8001;
const SRK_HANDLE: u32 = 0x8100_0001;

/// The endorsement key.
pub struct Ek {
    /// The key.
    pub object: Object,
    /// Its certificate, DER, if the TPM has one.
    pub certificate: Option<Vec<u8>>,
    /// Intermediate certificates in the TPM, DER each.
    pub chain: Vec<Vec<u8>>,
}

/// A key that [`Tpm::persist`] can keep, at its fixed handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistent {
    /// The AK, at 0x81018001.
    Ak,
    /// The SRK, at 0x81000001.
    Srk,
}

impl Persistent {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ak => "attestation key",
            Self::Srk => "storage key",
        }
    }
}

/// A kind of EK (TCG EK Credential Profile 2.5, section 2.2.1 and annex B).
struct Kind {
    handle: u32,
    certificate: u32,
    template: fn() -> Vec<u8>,
}

/// **The order of preference.** A kind whose certificate is in the TPM wins over all
/// that have none; among them the first here: elliptic curves before RSA (smaller,
/// faster, and recreating an RSA key takes a discrete TPM many seconds), the stronger
/// curve first, of two keys of one kind the newer ("high range") template.
/// The order must never change: a node's id comes from its EK. (What an enrolled node
/// chose is also remembered: [`Tpm::endorsement_key_named`].)
const KINDS: &[Kind] = &[
    Kind { handle: 0x8101_0016, certificate: 0x01c0_0016, template: high_p384 },
    Kind { handle: 0x8101_0014, certificate: 0x01c0_0014, template: high_p256 },
    Kind { handle: 0x8101_0002, certificate: 0x01c0_000a, template: low_p256 },
    Kind { handle: 0x8101_0012, certificate: 0x01c0_0012, template: high_rsa },
    Kind { handle: 0x8101_0001, certificate: 0x01c0_0002, template: low_rsa },
];

/// Without any certificate, keys that somebody persisted come first, then these
/// are made, the first that the TPM can: P-256 and RSA-2048 of the low range.
const UNCERTIFIED: &[fn() -> Vec<u8>] = &[low_p256, low_rsa];

impl Tpm {
    /// The EK by the fixed order of preference.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if the TPM can make none; else [`Error`] from the TPM.
    pub fn endorsement_key(&mut self) -> Result<Ek, Error> {
        for kind in KINDS {
            if let Some(certificate) = self.nv_certificate(kind.certificate)?
                && let Some(object) = self.endorsement_object(kind, |key| certifies(&certificate, key))?
            {
                return self.with_chain(object, Some(certificate));
            }
        }
        for kind in KINDS {
            if let Some(object) = self.read_public(kind.handle)?
                && template_head(&object.public) == template_head(&(kind.template)())
            {
                return self.with_chain(object, None);
            }
        }
        for template in UNCERTIFIED {
            if let Some(object) = self.try_primary(&template())? {
                return self.with_chain(object, None);
            }
        }
        Err(Error::Unsuitable("the TPM can make no endorsement key that Halfkey knows"))
    }

    /// The EK with this name, whatever the order of preference says today.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if no kind of EK gives it: another TPM, or its endorsement seed was changed.
    pub fn endorsement_key_named(&mut self, name: &[u8]) -> Result<Ek, Error> {
        for kind in KINDS {
            // Making every kind is slow; the name's hash rules half of them out.
            let template = (kind.template)();
            if template.get(2..4) != name.get(..2) {
                continue;
            }
            if let Some(object) = self.endorsement_object(kind, |key| is_named(key, name))? {
                let certificate = self.nv_certificate(kind.certificate)?;
                let certificate = certificate.filter(|der| certifies(der, &object.public));
                return self.with_chain(object, certificate);
            }
        }
        Err(Error::Unsuitable("the endorsement key of the enrollment is not in this TPM"))
    }

    /// The AK: persistent if enrollment made it so, else recreated.
    ///
    /// # Errors
    /// [`Error::HierarchyAuth`] or another [`Error`] from the TPM.
    pub fn attestation_key(&mut self) -> Result<Object, Error> {
        if let Some(object) = self.read_public(AK_HANDLE)?
            && template::AK.point(&object.public).is_some()
        {
            return Ok(object);
        }
        self.create_primary(Hierarchy::Endorsement, &template::AK.template())
    }

    /// The SRK: the one at 0x81000001 if it is of the template, else recreated.
    ///
    /// # Errors
    /// [`Error::WrongSrk`] if `expected_name` is given and no such key is to be had;
    /// [`Error::HierarchyAuth`] or another [`Error`] from the TPM.
    pub fn storage_key(&mut self, expected_name: Option<&[u8]>) -> Result<Object, Error> {
        let wanted = |object: &Object| expected_name.is_none_or(|name| name == object.name);
        if let Some(object) = self.read_public(SRK_HANDLE)?
            && template::SRK.point(&object.public).is_some()
            && wanted(&object)
        {
            return Ok(object);
        }
        let object = self.create_primary(Hierarchy::Owner, &template::SRK.template())?;
        if wanted(&object) {
            return Ok(object);
        }
        self.flush(object)?;
        Err(Error::WrongSrk)
    }

    /// Keeps the AK or the SRK at its fixed handle. Needs the owner's password, if there is one
    /// ([`Tpm::set_hierarchy_auth`]). A no-op if it is there.
    ///
    /// # Errors
    /// [`Error::Occupied`] if another key is there; [`Error::HierarchyAuth`]; another [`Error`] from the TPM.
    pub fn persist(&mut self, key: Persistent, object: &Object) -> Result<Object, Error> {
        let handle = match key {
            Persistent::Ak => AK_HANDLE,
            Persistent::Srk => SRK_HANDLE,
        };
        self.evict_to(object, handle)
    }

    /// The persistent key of this kind if it is the right one, else the recreated one if that is.
    fn endorsement_object(
        &mut self,
        kind: &Kind,
        right: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Object>, Error> {
        if let Some(object) = self.read_public(kind.handle)?
            && right(&object.public)
        {
            return Ok(Some(object));
        }
        let Some(object) = self.try_primary(&(kind.template)())? else { return Ok(None) };
        if right(&object.public) {
            return Ok(Some(object));
        }
        self.flush(object)?;
        Ok(None)
    }

    /// `None` if the TPM lacks the algorithm.
    fn try_primary(&mut self, template: &[u8]) -> Result<Option<Object>, Error> {
        match self.create_primary(Hierarchy::Endorsement, template) {
            Ok(object) => Ok(Some(object)),
            // A parameter of the template that the TPM can't do.
            Err(Error::Refused(_, code)) if code & 0xc0 == 0xc0 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn with_chain(&mut self, object: Object, certificate: Option<Vec<u8>>) -> Result<Ek, Error> {
        let chain = if certificate.is_some() { self.certificate_chain()? } else { Vec::new() };
        Ok(Ek { object, certificate, chain })
    }
}

/// Whether the key's modulus or x coordinate stands in the certificate. Only a
/// choice among the TPM's own keys: the servers verify the certificate.
fn certifies(certificate: &[u8], public: &[u8]) -> bool {
    unique(public).is_some_and(|unique| certificate.windows(unique.len()).any(|part| part == unique))
}

/// The modulus, or the x coordinate: the first field of `unique`.
fn unique(public: &[u8]) -> Option<&[u8]> {
    let head = template_head(public)?;
    let (length, rest) = public[head.len()..].split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length))).filter(|unique| unique.len() >= 32)
}

/// All of an EK's public area before `unique`.
fn template_head(public: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = public.split_first_chunk()?;
    let policy = usize::from(u16::from_be_bytes(*rest.get(6..8)?.first_chunk()?));
    // An EK is a storage key: symmetric algorithm (6 bytes), null scheme (2), then
    // RSA: bits, exponent (6); ECC: curve, null KDF (4).
    let parameters = match u16::from_be_bytes(*kind) {
        0x0001 => 14,
        0x0023 => 12,
        _ => return None,
    };
    public.get(..2 + 8 + policy + parameters)
}

/// PolicySecret(endorsement): who may use the endorsement hierarchy may use the key.
const POLICY_A_SHA256: &str = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";
/// PolicyOR(PolicyA, PolicyC), PolicyC = PolicyAuthorizeNV of an index of the owner.
const POLICY_B_SHA256: &str = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0";
const POLICY_B_SHA384: &str = concat!(
    "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca",
    "cb47ba09699646150f9fc000f3f80e12"
);

/// fixedTPM | fixedParent | sensitiveDataOrigin | adminWithPolicy | restricted | decrypt
const LOW: u32 = 0x0003_00b2;
/// The same and userWithAuth: usable with an empty password.
const HIGH: u32 = 0x0003_00f2;

/// L-1
fn low_rsa() -> Vec<u8> {
    rsa(LOW, POLICY_A_SHA256, 256)
}

/// L-2
fn low_p256() -> Vec<u8> {
    ecc(0x000b, LOW, POLICY_A_SHA256, 128, 0x0003, 32)
}

/// H-1
fn high_rsa() -> Vec<u8> {
    rsa(HIGH, POLICY_B_SHA256, 0)
}

/// H-2
fn high_p256() -> Vec<u8> {
    ecc(0x000b, HIGH, POLICY_B_SHA256, 128, 0x0003, 0)
}

/// H-3
fn high_p384() -> Vec<u8> {
    ecc(0x000c, HIGH, POLICY_B_SHA384, 256, 0x0004, 0)
}

fn rsa(attributes: u32, policy: &str, unique: usize) -> Vec<u8> {
    let out = head(0x0001, 0x000b, attributes, policy, 128);
    out.u16(0x0010).u16(2048).u32(0).sized(&vec![0; unique]).0
}

fn ecc(name_alg: u16, attributes: u32, policy: &str, aes: u16, curve: u16, unique: usize) -> Vec<u8> {
    let out = head(0x0023, name_alg, attributes, policy, aes);
    let zero = vec![0; unique];
    out.u16(0x0010).u16(curve).u16(0x0010).sized(&zero).sized(&zero).0
}

fn head(kind: u16, name_alg: u16, attributes: u32, policy: &str, aes: u16) -> super::codec::Writer {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("the policies above are hex") as u8;
    let policy: Vec<u8> = policy.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect();
    super::codec::Writer::default()
        .u16(kind)
        .u16(name_alg)
        .u32(attributes)
        .sized(&policy)
        .u16(0x0006)
        .u16(aes)
        .u16(0x0043)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::tpm::kdf::Hash;
    use proptest::prelude::*;

    /// The policies follow from the profile's definition, not from a table.
    #[test]
    fn policies_are_what_the_profile_defines() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let policy_a = |hash: Hash| {
            let secret = [0, 0, 1, 0x51, 0x40, 0, 0, 0x0b];
            hash.digest(&[&hash.digest(&[&vec![0; hash.digest_len()], &secret])])
        };
        assert_eq!(policy_a(Hash::Sha256), hex(POLICY_A_SHA256));
        let c256 = hex("3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde");
        let c384 = hex(concat!(
            "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5",
            "b4947c2d73e63005eed2dc2b3593d165"
        ));
        for (hash, c, b) in [(Hash::Sha256, c256, POLICY_B_SHA256), (Hash::Sha384, c384, POLICY_B_SHA384)] {
            let or = hash.digest(&[&vec![0; hash.digest_len()], &[0, 0, 1, 0x71], &policy_a(hash), &c]);
            assert_eq!(or, hex(b));
        }
    }

    proptest! {
        #[test]
        fn any_public_area_has_a_unique_part_or_none(public: Vec<u8>, certificate: Vec<u8>) {
            certifies(&certificate, &public);
        }
    }
}
