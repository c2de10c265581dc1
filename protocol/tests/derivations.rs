//! `vectors/derivations.json`, which was computed by another implementation
//! (Python: hashlib, hmac, cryptography; pyhpke for the HPKE part).

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use halfkey_protocol::identity::sha256;
use halfkey_protocol::keys::half::{activation_proof, proof_digest};
use halfkey_protocol::keys::header_seal::{SealedHeader, SealedKeyslot};
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::{Hash, kdfa, kdfe};
use halfkey_protocol::tpm::qualifying_data::{QualifyingData, Wanted};
use halfkey_protocol::tpm::{fence, seal_policy};
use halfkey_protocol::{Half, Key, NodeId, Role, document};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/derivations.json")).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hex32(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

#[test]
fn disk_key() {
    let v = &vectors()["key"];
    let (mut u, mut half_v) = (hex(&v["u"]), hex(&v["v"]));
    let key = Key::combine(&Half::take(&mut u).unwrap(), &Half::take(&mut half_v).unwrap());
    assert_eq!(u, [0; 32], "the buffer that a half was taken from is wiped");
    let volume_key = key.volume_key(v["luks_uuid"].as_str().unwrap());
    assert_eq!(volume_key.expose(), v["volume_key"].as_str().unwrap().as_bytes());
    assert_eq!(key.proof().to_vec(), hex(&v["proof"]));
    assert_eq!(proof_digest(&key.proof()).to_vec(), hex(&v["proof_sha256"]));
}

#[test]
fn identity() {
    let v = &vectors()["identity"];
    let node = NodeId::from_ek_name(&hex(&v["ek_name"]));
    assert_eq!(node.to_string(), v["node_id"].as_str().unwrap());
    let challenge = hex(&v["activation_challenge"]).try_into().unwrap();
    let proof = activation_proof(&hex(&v["activation_secret"]), &node.0, &challenge);
    assert_eq!(proof.to_vec(), hex(&v["activation_proof"]));
}

#[test]
fn qualifying_data() {
    let v = &vectors()["quote"];
    let qualifying_data = QualifyingData {
        version: 1,
        node: &NodeId::parse(v["node_id"].as_str().unwrap()).unwrap().0,
        purpose: halfkey_protocol::wire::Purpose::parse(v["purpose"].as_str().unwrap()).unwrap(),
        nonce: &hex(&v["nonce"]),
        hpke_public: &hex(&v["hpke_public"]),
        nonce_tpm: &hex(&v["nonce_tpm"]),
        srk_name: &hex(&v["srk_name"]),
        purpose_data: &hex(&v["purpose_data"]),
    };
    assert_eq!(qualifying_data.digest().to_vec(), hex(&v["qualifying_data"]));

    let enroll = &v["enroll"];
    let wanted =
        Wanted { tenant_key: sha256(&hex(&enroll["tenant_key"])), challenge: hex32(&enroll["challenge"]) };
    let bytes = wanted.bytes();
    assert_eq!(bytes.to_vec(), hex(&enroll["wanted"]));
    assert_eq!(Wanted::read(&bytes), Some(wanted));
    assert_eq!(Wanted::read(&bytes[1..]), None);
    let purpose = halfkey_protocol::wire::Purpose::Enroll;
    let qualifying_data = QualifyingData { purpose, nonce_tpm: &[], purpose_data: &bytes, ..qualifying_data };
    assert_eq!(qualifying_data.digest().to_vec(), hex(&enroll["qualifying_data"]));
}

#[test]
fn seal_policy_release_and_fence() {
    let v = &vectors()["policy"];
    let node = NodeId::parse(v["node_id"].as_str().unwrap()).unwrap().0;
    let release = hex(&v["release_name"]);
    assert_eq!(seal_policy::seal_policy(PcrBank::Sha256, &release, &node), hex32(&v["seal_sha256"]));
    assert_eq!(seal_policy::seal_policy(PcrBank::Sha384, &release, &node), hex32(&v["seal_sha384"]));
    assert_eq!(seal_policy::release_digest(&hex(&v["nonce_tpm"]), &node), hex32(&v["release_digest"]));
    let (opening, r_sha256) = (OpeningSecret::new(&hex(&v["opening"])).unwrap(), hex32(&v["r_sha256"]));
    let event = opening.event_by(&r_sha256, &hex32(&vectors()["key"]["proof_sha256"]));
    assert_eq!(*event, hex32(&v["fence_event"]));
    assert_eq!(fence::opened(PcrBank::Sha256, &*event), hex(&v["fence_sha256"]));
    assert_eq!(fence::opened(PcrBank::Sha384, &*event), hex(&v["fence_sha384"]));
    let k = &vectors()["key"];
    let half = |name: &str| Half::take(&mut hex(&k[name])).unwrap();
    assert_eq!(opening.event(&r_sha256, &Key::combine(&half("u"), &half("v"))), event);
    // The V of this enrollment, and another K.
    assert_ne!(opening.event(&r_sha256, &Key::combine(&half("v"), &half("v"))), event);
}

#[test]
fn key_derivation_functions_of_the_tpm() {
    let v = &vectors()["kdf"];
    let (key, u, c) = (hex(&v["key"]), hex(&v["context_u"]), hex(&v["context_v"]));
    let expect = |name: &str, found: Vec<u8>| assert_eq!(found, hex(&v[name]), "{name}");
    expect("kdfa_sha256_ath_256", kdfa(Hash::Sha256, &key, "ATH", &u, &c, 256));
    expect("kdfa_sha256_cfb_384", kdfa(Hash::Sha256, &key, "CFB", &u, &c, 384));
    expect("kdfa_sha384_storage_256", kdfa(Hash::Sha384, &key, "STORAGE", &u, &c, 256));
    expect("kdfe_sha256_secret_256", kdfe(Hash::Sha256, &key, "SECRET", &u, &c, 256));
    expect("kdfe_sha384_identity_384", kdfe(Hash::Sha384, &key, "IDENTITY", &u, &c, 384));
}

#[test]
fn place_in_the_sequence() {
    let v = &vectors()["place"];
    let (document, keys) = (hex(&v["document"]), [hex32(&v["keys"][0]), hex32(&v["keys"][1])]);
    assert_eq!(document::sha256(&document, &[]), hex32(&v["sha256_unsigned"]));
    assert_eq!(document::sha256(&document, &keys), hex32(&v["sha256_by_both"]));
}

#[test]
fn header_seal() {
    let all = vectors();
    let (v, key) = (&all["header_seal"], &all["key"]);
    let key =
        Key::combine(&Half::take(&mut hex(&key["u"])).unwrap(), &Half::take(&mut hex(&key["v"])).unwrap());
    let text = |name: &str| v[name].as_str().unwrap();
    let number = |name: &str| v[name].as_u64().unwrap();
    let list = |name: &str| -> Vec<String> {
        v[name].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let (volumes, flags, area_sha256) = (list("volumes"), list("flags"), hex32(&v["area_sha256"]));
    let header = SealedHeader {
        version: 1,
        enrollment: text("enrollment"),
        volumes: &volumes,
        uuid: text("uuid"),
        mapping: text("mapping"),
        role: Role::parse(text("role")).unwrap(),
        flags: &flags,
        offset: number("offset"),
        cipher: text("cipher"),
        sector_size: number("sector_size"),
        key_size: number("key_size"),
        keyslot: SealedKeyslot {
            kdf: text("kdf"),
            kdf_hash: text("kdf_hash"),
            kdf_iterations: number("kdf_iterations"),
            kdf_salt: text("kdf_salt"),
            af: text("af"),
            af_stripes: number("af_stripes"),
            af_hash: text("af_hash"),
            area_cipher: text("area_cipher"),
            area_key_size: number("area_key_size"),
            area_offset: number("area_offset"),
            area_size: number("area_size"),
            area_sha256: &area_sha256,
        },
        digest: text("digest"),
    };
    assert_eq!(header.encode(), hex(&v["encoded"]));
    assert_eq!(header.fingerprint(), hex32(&v["fingerprint"]));
    assert_eq!(header.seal(&key), hex32(&v["seal"]));
    // A list and what is behind it can't be shifted into one another.
    let moved = SealedHeader { volumes: &volumes[..1], ..header };
    assert_ne!(moved.seal(&key), header.seal(&key));
}
