//! Authorization sessions (TPM 2.0 Part 1, sections 19 and 21): HMAC and policy
//! sessions, salted to the SRK, with AES-128-CFB on the first parameter of command
//! and answer.
//!
//! The salt is the ECDH secret of an ephemeral P-256 key and the SRK, through KDFe
//! ("SECRET"); the session key is KDFa ("ATH") of the salt and the first two nonces.
//! Somebody who listens on the bus sees neither. Every use rolls both nonces.
//!
//! Limits, on purpose: no bound sessions, no audit; the session that encrypts is
//! the first of a command that is no password, so no HMAC has to cover another session's nonce.

use super::codec::{Reader, Writer};
use super::codes::{self, Command};
use super::{Error, Object, Tpm};
use cfb_mode::cipher::KeyIvInit;
use halfkey_protocol::keys::half::equal;
use halfkey_protocol::tpm::kdf::{Hash, kdfa, kdfe};
use halfkey_protocol::tpm::template;
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// TPM_RS_PW: the "session" that is a plain password.
const PASSWORD: u32 = 0x4000_0009;
const NULL_HANDLE: u32 = 0x4000_0007;
const NULL_ALG: u16 = 0x0010;

/// `TPMA_SESSION`: the session is used again. A password always says so.
pub(super) const CONTINUE: u8 = 0x01;
/// The first parameter of the command is encrypted.
pub(super) const DECRYPT: u8 = 0x20;
/// The first parameter of the answer is encrypted.
pub(super) const ENCRYPT: u8 = 0x40;

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hmac = 0,
    Policy = 1,
}

/// A session of the TPM.
pub(super) struct Session {
    pub handle: u32,
    kind: Kind,
    hash: Hash,
    nonce_caller: [u8; 32],
    pub nonce_tpm: Vec<u8>,
    /// Empty if the session is not salted.
    key: Zeroizing<Vec<u8>>,
}

/// How one handle of a command is authorized.
pub(super) enum Auth<'a> {
    /// With an empty password: the keys of Halfkey have none.
    Password,
    /// With a session, these attributes for this use, and the entity's authorization value.
    Session(&'a mut Session, u8, &'a [u8]),
}

impl Tpm {
    /// Starts a session. With an SRK it is salted and can encrypt parameters.
    pub(super) fn start_session(
        &mut self,
        kind: Kind,
        hash: Hash,
        srk: Option<&Object>,
    ) -> Result<Session, Error> {
        let random = SystemRandom::new();
        let mut nonce_caller = [0; 32];
        random.fill(&mut nonce_caller).map_err(|_| Error::Random)?;
        let (salt_key, secret, salt) = match srk {
            Some(srk) => {
                let (secret, salt) = salt_to(srk, &random)?;
                (srk.handle, secret, salt)
            }
            None => (NULL_HANDLE, Vec::new(), Zeroizing::default()),
        };
        let parameters = Writer::default().sized(&nonce_caller).sized(&secret).bytes(&[kind as u8]);
        let parameters = if srk.is_some() {
            parameters.u16(0x0006).u16(128).u16(0x0043) // AES-128-CFB
        } else {
            parameters.u16(NULL_ALG)
        };
        let handles = [salt_key.into(), NULL_HANDLE.into()];
        let answer = self.plain(codes::START_AUTH_SESSION, &handles, parameters.u16(hash.alg()))?;
        let mut reader = answer.reader();
        let nonce_tpm = reader.sized()?.to_vec();
        reader.end()?;
        // As long as ours (TPM 2.0 Part 3, section 11.1). A release signature over an
        // empty nonce would be good for every session: don't even ask for one.
        if nonce_tpm.len() != nonce_caller.len() {
            return Err(Error::Malformed(codes::START_AUTH_SESSION.name));
        }
        let key = if srk.is_some() {
            Zeroizing::new(kdfa(hash, &salt, "ATH", &nonce_tpm, &nonce_caller, hash.digest_len() as u32 * 8))
        } else {
            Zeroizing::default()
        };
        Ok(Session { handle: answer.handle, kind, hash, nonce_caller, nonce_tpm, key })
    }
}

/// The encrypted salt (a `TPMS_ECC_POINT`) and the salt.
fn salt_to(srk: &Object, random: &SystemRandom) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), Error> {
    let bad = Error::Unsuitable("the storage key is not an ECC P-256 key of Halfkey's template");
    let Some((srk_x, srk_y)) = template::SRK.point(&srk.public) else { return Err(bad) };
    let ephemeral = EphemeralPrivateKey::generate(&ECDH_P256, random).map_err(|_| Error::Random)?;
    let public = ephemeral.compute_public_key().map_err(|_| Error::Random)?;
    // Uncompressed: 4, x, y.
    let (x, y) = public.as_ref()[1..].split_at(32);
    let srk_point = [&[4], &srk_x[..], &srk_y[..]].concat();
    let salt = agree_ephemeral(ephemeral, &UnparsedPublicKey::new(&ECDH_P256, srk_point), |z| {
        Zeroizing::new(kdfe(Hash::Sha256, z, "SECRET", x, &srk_x, 256))
    });
    let secret = Writer::default().sized(x).sized(y).0;
    // ring refuses points that are not on the curve.
    salt.map(|salt| (secret, salt)).map_err(|_| bad)
}

impl Session {
    fn hmac(&self, auth_value: &[u8], hash: &[u8], newer: &[u8], older: &[u8], attributes: u8) -> Vec<u8> {
        // An unsalted policy session has no key at all, and then no HMAC.
        if self.key.is_empty() && self.kind == Kind::Policy {
            return Vec::new();
        }
        // A policy asserts without the authorization value (no PolicyAuthValue here).
        let auth_value = if self.kind == Kind::Policy { &[] } else { auth_value };
        let key = Zeroizing::new([&self.key, auth_value].concat());
        self.hash.hmac(&key, &[hash, newer, older, &[attributes]])
    }

    /// AES-128-CFB over the contents of the first parameter, a `TPM2B`.
    fn cipher(
        &self,
        what: &'static str,
        auth_value: &[u8],
        parameters: &mut [u8],
        direction: Direction,
    ) -> Result<(), Error> {
        let length = Reader::new(what, parameters).sized()?.len();
        let data = &mut parameters[2..2 + length];
        let (newer, older): (&[u8], &[u8]) = match direction {
            Direction::Command => (&self.nonce_caller, &self.nonce_tpm),
            Direction::Answer => (&self.nonce_tpm, &self.nonce_caller),
        };
        let secret = Zeroizing::new([&self.key, auth_value].concat());
        let key = Zeroizing::new(kdfa(self.hash, &secret, "CFB", newer, older, 256));
        let (key, iv) = key.split_at(16);
        let fits = "half of 256 bits is 16 bytes";
        match direction {
            Direction::Command => {
                cfb_mode::Encryptor::<aes::Aes128>::new_from_slices(key, iv).expect(fits).encrypt(data);
            }
            Direction::Answer => {
                cfb_mode::Decryptor::<aes::Aes128>::new_from_slices(key, iv).expect(fits).decrypt(data);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Command,
    Answer,
}

/// The one that may encrypt.
fn first_session<'a>(auths: &'a [Auth]) -> Option<(&'a Session, u8, &'a [u8])> {
    auths.iter().find_map(|auth| match auth {
        Auth::Password => None,
        Auth::Session(session, attributes, value) => Some((&**session, *attributes, *value)),
    })
}

/// The authorization area of a command. Encrypts the first parameter if the
/// first session says so.
pub(super) fn authorize(
    command: Command,
    names: &[u8],
    parameters: &mut [u8],
    auths: &mut [Auth],
) -> Result<Vec<u8>, Error> {
    for auth in &mut *auths {
        if let Auth::Session(session, ..) = auth {
            SystemRandom::new().fill(&mut session.nonce_caller).map_err(|_| Error::Random)?;
        }
    }
    if let Some((session, attributes, value)) = first_session(auths)
        && attributes & DECRYPT != 0
    {
        session.cipher(command.name, value, parameters, Direction::Command)?;
    }
    let mut area = Writer::default();
    for auth in auths {
        area = match auth {
            Auth::Password => area.u32(PASSWORD).u16(0).bytes(&[CONTINUE]).u16(0),
            Auth::Session(session, attributes, value) => {
                let cp_hash = session.hash.digest(&[&command.code.to_be_bytes(), names, parameters]);
                let hmac =
                    session.hmac(value, &cp_hash, &session.nonce_caller, &session.nonce_tpm, *attributes);
                area.u32(session.handle).sized(&session.nonce_caller).bytes(&[*attributes]).sized(&hmac)
            }
        };
    }
    Ok(area.0)
}

/// Checks the authorization area of an answer, rolls the nonces, and decrypts the
/// first parameter if the first session says so.
pub(super) fn check(
    command: Command,
    parameters: &mut [u8],
    mut area: Reader,
    auths: &mut [Auth],
) -> Result<(), Error> {
    for auth in &mut *auths {
        let nonce = area.sized()?;
        let attributes = area.u8()?;
        let hmac = area.sized()?;
        let Auth::Session(session, sent, value) = auth else { continue };
        session.nonce_tpm = nonce.to_vec();
        // The response code of an answer with sessions is always zero.
        let rp_hash = session.hash.digest(&[&[0; 4], &command.code.to_be_bytes(), parameters]);
        let expected = session.hmac(value, &rp_hash, &session.nonce_tpm, &session.nonce_caller, attributes);
        if !equal(&expected, hmac) || attributes & (DECRYPT | ENCRYPT) != *sent & (DECRYPT | ENCRYPT) {
            return Err(Error::Hmac(command.name));
        }
    }
    area.end()?;
    if let Some((session, attributes, value)) = first_session(auths)
        && attributes & ENCRYPT != 0
    {
        session.cipher(command.name, value, parameters, Direction::Answer)?;
    }
    Ok(())
}
