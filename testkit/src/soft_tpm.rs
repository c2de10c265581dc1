//! A TPM that is a few keys in memory: hundreds of machines boot within a test, and any number of them at once. A server can't tell,
//! as it can't tell any software TPM: it has no EK roots.

use crate::log::{self, Record};
use crate::node::Attester;
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::{Hash, kdfa, kdfe};
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{Credential, Register};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// PCR 0 to 15 of each bank: what machines have in common that booted the same.
pub type BootedPcrs = Arc<[(PcrBank, Vec<Bytes>)]>;

/// PCR 0 to 15 of each bank after these events.
pub fn booted(records: &[Record]) -> BootedPcrs {
    PcrBank::ALL.iter().map(|bank| (*bank, log::pcrs(records, *bank))).collect()
}

/// A few keys, and what they quote.
pub struct SoftTpm {
    ek: PrivateKey,
    ak: EcdsaKeyPair,
    ak_name: Vec<u8>,
    clock: AtomicU64,
    pcrs: BootedPcrs,
}

impl SoftTpm {
    /// With keys of its own, and what it registers with.
    pub fn new(pcrs: BootedPcrs) -> (Self, Register) {
        let mut seed = [0; 32];
        rand::fill(&mut seed).unwrap();
        Self::of(&seed, 0, 1000, pcrs)
    }

    /// The one of this number that this seed stands for: the same keys each time. `clock` is in milliseconds, and has to be later each
    /// time as well.
    pub fn of(seed: &[u8; 32], number: u64, clock: u64, pcrs: BootedPcrs) -> (Self, Register) {
        // Nearly every 32 bytes are a private key of P-256.
        let key = |role: &str| Hash::Sha256.digest(&[seed, &number.to_be_bytes(), role.as_bytes()]);
        let exchanging = |role| PrivateKey::from_private_key(&ECDH_P256, &key(role)).unwrap();
        let (ek, srk) = (exchanging("ek"), exchanging("srk"));
        let ak_point = exchanging("ak").compute_public_key().unwrap();
        let ak = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &key("ak"),
            ak_point.as_ref(),
        )
        .unwrap();
        let ak_public = {
            let (x, y) = point(ak.public_key().as_ref());
            template::AK.public(&x, &y)
        };
        let srk_public = {
            let (x, y) = point(srk.compute_public_key().unwrap().as_ref());
            template::SRK.public(&x, &y)
        };
        let (ak_name, srk_name) = (object_name(&ak_public).unwrap(), object_name(&srk_public).unwrap());
        let certified = [sized(&srk_name), sized(&qualified(0x4000_0001, &srk_name))].concat();
        let info = attest(0x8017, &qualified(0x4000_000b, &ak_name), &[], 1, &certified);
        let signature = sign(&ak, &info);
        let register = Register {
            versions: vec![1],
            ek_public: ek_public(ek.compute_public_key().unwrap().as_ref()).into(),
            ek_certificate: None,
            ek_chain: Vec::new(),
            ak_public: ak_public.into(),
            srk_public: srk_public.into(),
            certify_info: info.into(),
            certify_signature: signature.into(),
            label: "soft".to_owned(),
        };
        (Self { ek, ak, ak_name, clock: AtomicU64::new(clock), pcrs }, register)
    }
}

impl Attester for SoftTpm {
    fn quote(&self, bank: PcrBank, qualifying: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let pcrs = self.pcrs(bank);
        let values: Vec<&[u8]> = pcrs.iter().map(|pcr| &pcr[..]).collect();
        let selection = [&[0, 0, 0, 1][..], &bank.alg().to_be_bytes(), &[3, 0xff, 0xff, 0]].concat();
        let quoted = [selection, sized(&Hash::Sha256.digest(&values))].concat();
        let clock = self.clock.fetch_add(1, Ordering::Relaxed);
        let quote = attest(0x8018, &qualified(0x4000_000b, &self.ak_name), qualifying, clock, &quoted);
        let signature = sign(&self.ak, &quote);
        (quote, signature)
    }

    fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        self.pcrs.iter().find(|(of, _)| *of == bank).map(|(_, pcrs)| pcrs.clone()).expect("a bank")
    }

    fn activate_with_ek(&self, credential: &Credential) -> Vec<u8> {
        let (ours, _) = point(self.ek.compute_public_key().unwrap().as_ref());
        let (x, y) = (&credential.secret[2..34], &credential.secret[36..68]);
        let theirs = UnparsedPublicKey::new(&ECDH_P256, [&[4], x, y].concat());
        let seed = agreement::agree(&self.ek, &theirs, Unspecified, |z| {
            Ok(kdfe(Hash::Sha256, z, "IDENTITY", x, &ours, 256))
        });
        let key = kdfa(Hash::Sha256, &seed.unwrap(), "STORAGE", &self.ak_name, &[], 128);
        let key = UnboundCipherKey::new(&AES_128, &key).unwrap();
        // TPM2B_DIGEST of the MAC, then the encrypted identity.
        let mut identity = credential.id_object[34..].to_vec();
        let zero_iv = DecryptionContext::Iv128(FixedLength::from([0; 16]));
        let opened = DecryptingKey::cfb128(key).unwrap().decrypt(&mut identity, zero_iv).unwrap();
        opened[2..].to_vec()
    }
}

/// `TPMS_ATTEST`
fn attest(kind: u16, signer: &[u8], extra: &[u8], clock: u64, attested: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff, 0x54, 0x43, 0x47];
    out.extend(kind.to_be_bytes());
    out.extend(sized(signer));
    out.extend(sized(extra));
    out.extend(clock.to_be_bytes());
    out.extend([0, 0, 0, 1, 0, 0, 0, 0, 1]);
    out.extend([0; 8]);
    out.extend(attested);
    out
}

/// `TPMT_SIGNATURE`
fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), message).unwrap();
    let (r, s) = signature.as_ref().split_at(32);
    [&[0x00, 0x18, 0x00, 0x0b][..], &sized(r), &sized(s)].concat()
}

fn qualified(hierarchy: u32, name: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA256, &[&hierarchy.to_be_bytes(), name].concat());
    [&[0x00, 0x0b][..], hash.as_ref()].concat()
}

/// Template L-2 of the TCG.
fn ek_public(sec1: &[u8]) -> Vec<u8> {
    const POLICY: [u8; 32] = [
        0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
        0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
    ];
    let (x, y) = point(sec1);
    let head = [0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2];
    let parameters = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10];
    [&head[..], &sized(&POLICY), &parameters, &sized(&x), &sized(&y)].concat()
}

/// x and y of an uncompressed point.
fn point(sec1: &[u8]) -> ([u8; 32], [u8; 32]) {
    (sec1[1..33].try_into().unwrap(), sec1[33..65].try_into().unwrap())
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}
