//! Quotes, certification and credentials: what one stack makes, the other accepts.

#![allow(clippy::unwrap_used)] // helpers of tests may fail like tests

mod common;

use common::interposer::{CC_ACTIVATE_CREDENTIAL, CC_START_AUTH_SESSION, Interposer, code};
use common::release::ReleaseKey;
use common::swtpm::Swtpm;
use halfkey_agent::tpm::{Ek, Error, Hierarchy, Object, Release, quoted_digest};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::Credential;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy as OracleHierarchy;
use tss_esapi::structures::{Data, Digest, Name, PcrSelectionListBuilder, PcrSlot, Public, SignatureScheme};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;

#[test]
fn quotes_are_accepted_by_the_oracle_and_cover_the_pcrs() {
    let swtpm = Swtpm::start();
    for bank in PcrBank::ALL {
        let mut tpm = swtpm.open();
        for pcr in [0, 4, 7, 14] {
            tpm.pcr_event(pcr, &[pcr; 20]).unwrap();
        }
        let ak = tpm.attestation_key().unwrap();
        let quote = tpm.quote(&ak, &[0x5a; 32], bank).unwrap();
        drop(tpm);
        assert_eq!(quote.pcrs.len(), 16);
        assert!(quote.pcrs.iter().all(|value| value.len() == bank.digest_len()));
        assert!(swtpm.oracle_accepts(&ak.public, &quote.attest, &quote.signature));
        let mut forged = quote.attest.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(!swtpm.oracle_accepts(&ak.public, &forged, &quote.signature));
        assert!(quote.attest.windows(32).any(|part| part == [0x5a; 32]));
        // The values are those that tpm2-tools reads.
        let told = swtpm.told(&format!("tpm2_pcrread {}:0,4,7,13,14", bank.name())).to_lowercase();
        for pcr in [0, 4, 7, 13, 14] {
            let hex: String = quote.pcrs[pcr].iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(told.contains(&hex), "PCR {pcr}: {told}");
        }
    }
}

#[test]
fn the_oracles_quote_is_understood() {
    let swtpm = Swtpm::start();
    let mut oracle = swtpm.oracle();
    let attest = oracle
        .execute_with_nullauth_session(|oracle| {
            let template = Public::unmarshall(&template::AK.template())?;
            let ak = oracle.create_primary(OracleHierarchy::Endorsement, template, None, None, None, None)?;
            let pcrs = PcrSelectionListBuilder::new()
                .with_selection(HashingAlgorithm::Sha256, &[PcrSlot::Slot0, PcrSlot::Slot15])
                .build()?;
            let (attest, _) = oracle.quote(ak.key_handle, Data::default(), SignatureScheme::Null, pcrs)?;
            oracle.flush_context(ak.key_handle.into())?;
            attest.marshall()
        })
        .unwrap();
    assert_eq!(quoted_digest(&attest).unwrap(), Hash::Sha256.digest(&[&[0; 64]]));
}

#[test]
fn the_certification_is_accepted_by_the_oracle_and_names_the_srk() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
    let certification = tpm.certify_storage_key(&srk, &ak).unwrap();
    drop(tpm);
    assert!(swtpm.oracle_accepts(&ak.public, &certification.info, &certification.signature));
    assert!(certification.info.windows(srk.name.len()).any(|part| part == srk.name));
}

/// MakeCredential by the oracle.
fn make_credential(swtpm: &Swtpm, key: &Object, name: &[u8], secret: &[u8]) -> Credential {
    let mut oracle = swtpm.oracle();
    let key = Public::unmarshall(&key.public).unwrap();
    let key = oracle.load_external_public(key, OracleHierarchy::Null).unwrap();
    let name = Name::try_from(name.to_vec()).unwrap();
    let made = oracle.make_credential(key, Digest::try_from(secret.to_vec()).unwrap(), name);
    oracle.flush_context(key.into()).unwrap();
    let (id_object, secret) = made.unwrap();
    Credential { id_object: id_object.value().to_vec().into(), secret: secret.value().to_vec().into() }
}

const SECRET: [u8; 32] = [0x3c; 32];

/// Credentials for both EKs of swtpm, P-384 (empty password) and RSA (policy).
#[test]
fn credentials_of_the_oracle_are_activated_with_each_ek() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let p384 = tpm.endorsement_key().unwrap();
    let rsa = tpm.read_public(0x8101_0001).unwrap().unwrap();
    let rsa = Ek { object: rsa, certificate: None, chain: Vec::new() };
    let ak = tpm.attestation_key().unwrap();
    drop(tpm);
    for ek in [p384, rsa] {
        let good = make_credential(&swtpm, &ek.object, &ak.name, &SECRET);
        let other = make_credential(&swtpm, &ek.object, &[&[0, 11][..], &[1; 32]].concat(), &SECRET);
        let mut tpm = swtpm.open();
        let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
        assert_eq!(*tpm.activate_with_ek(&srk, &ek, &ak, &good).unwrap(), SECRET);
        // For another AK.
        let error = tpm.activate_with_ek(&srk, &ek, &ak, &other).map(drop).unwrap_err();
        assert!(matches!(error, Error::Refused("ActivateCredential", _)), "{error}");
        // The policy session of the RSA EK was flushed, and the next one works as well.
        assert_eq!(*tpm.activate_with_ek(&srk, &ek, &ak, &good).unwrap(), SECRET);
    }
    for kind in ["handles-transient", "handles-loaded-session"] {
        assert_eq!(swtpm.told(&format!("tpm2_getcap {kind}")).trim(), "");
    }
}

#[test]
fn credentials_of_the_oracle_are_activated_with_the_srk() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
    drop(tpm);
    let good = make_credential(&swtpm, &srk, &ak.name, &SECRET);
    let elsewhere = Swtpm::start();
    for (swtpm, opens) in [(&swtpm, true), (&elsewhere, false)] {
        let mut tpm = swtpm.open();
        let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
        match tpm.activate_with_srk(&srk, &ak, &good) {
            Ok(secret) => assert!(opens && *secret == SECRET),
            Err(error) => assert!(!opens && matches!(error, Error::Refused(..)), "{error}"),
        }
    }
    let mut tpm = swtpm.open();
    let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
    for length in [0, 1, 33, 400] {
        let bad = Credential { id_object: vec![1; length].into(), secret: good.secret.clone() };
        assert!(matches!(tpm.activate_with_srk(&srk, &ak, &bad), Err(Error::Refused(..))));
        let bad = Credential { id_object: good.id_object.clone(), secret: vec![1; length].into() };
        assert!(matches!(tpm.activate_with_srk(&srk, &ak, &bad), Err(Error::Refused(..))));
    }
    assert_eq!(*tpm.activate_with_srk(&srk, &ak, &good).unwrap(), SECRET);
}

/// One session for both halves: what it encrypts is seen by nobody on the bus, and changed by nobody.
#[test]
fn the_session_that_unsealed_opens_a_credential_unseen() {
    const NODE: [u8; 16] = [7; 16];
    let (swtpm, release) = (Swtpm::start(), ReleaseKey::new());
    let mut tpm = swtpm.open();
    let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
    let blob = tpm.seal(&srk, &[0xa5; 32], &release.policy(PcrBank::Sha256, &NODE)).unwrap();
    drop(tpm);
    let credential = make_credential(&swtpm, &srk, &ak.name, &SECRET);
    // Bytes of the answer, from behind its header on: sizes, the secret, both passwords' answers, nonce, HMAC.
    for changed in [None, Some(17), Some(30), Some(58), Some(72), Some(110)] {
        let mut sessions = 0;
        let bus = Interposer::new(&swtpm.location(), move |bus, command| {
            let mut answer = bus.ask(command);
            sessions += u32::from(code(command) == CC_START_AUTH_SESSION);
            assert_eq!(sessions.max(1), 1, "one is salted, and no other");
            if let (CC_ACTIVATE_CREDENTIAL, Some(at)) = (code(command), changed) {
                answer[at] ^= 1;
            }
            Some(answer)
        });
        let mut tpm = bus.open();
        let (ak, srk) = (tpm.attestation_key().unwrap(), tpm.storage_key(None).unwrap());
        let mut session = tpm.start_unseal(&srk).unwrap();
        let (key, signature) = (release.public(), release.sign(&session.nonce_tpm, &NODE));
        let release = Release { bank: PcrBank::Sha256, public: &key, signature: &signature, node: &NODE };
        assert_eq!(*tpm.unseal(&mut session, &srk, &blob, &release).unwrap(), [0xa5; 32]);
        match (tpm.activate_in(session, &srk, &ak, &credential), changed) {
            (Ok(secret), None) => assert_eq!(*secret, SECRET),
            (Err(Error::Hmac(_) | Error::Malformed(_)), Some(_)) => {}
            (Err(error), _) => panic!("{changed:?}: {error}"),
            (Ok(_), Some(at)) => panic!("byte {at} was changed, and nobody noticed"),
        }
        drop(tpm);
        let traffic = bus.traffic();
        for secret in [&SECRET, &[0xa5; 32]] {
            assert!(!traffic.windows(8).any(|part| part == &secret[..8]));
        }
        for kind in ["handles-transient", "handles-loaded-session"] {
            assert_eq!(swtpm.told(&format!("tpm2_getcap {kind}")).trim(), "");
        }
    }
}

#[test]
fn what_was_read_ahead_and_is_old_is_read_again() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let ak = tpm.attestation_key().unwrap();
    tpm.read_ahead(PcrBank::Sha256).unwrap();
    // Another bank's are no use.
    for (bank, moved) in [(PcrBank::Sha256, false), (PcrBank::Sha384, false), (PcrBank::Sha384, true)] {
        if moved {
            tpm.pcr_event(11, b"sysinit").unwrap();
        }
        let before = tpm.timings().len();
        let quote = tpm.quote(&ak, &[1; 32], bank).unwrap();
        assert_eq!(quoted_digest(&quote.attest).unwrap(), Hash::Sha256.digest(&[&quote.pcrs.concat()]));
        assert_eq!(quote.pcrs[11] != vec![0; bank.digest_len()], moved);
        let names: Vec<_> = tpm.timings()[before..].iter().map(|timing| timing.name).collect();
        let read = if bank == PcrBank::Sha256 { 0 } else { 2 };
        assert_eq!(names, [&["Quote"][..], &["PCR_Read"; 2][..read]].concat(), "{bank:?}");
    }
}

#[test]
fn an_endorsement_password_is_needed_for_the_policy_of_the_ek() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let ek = tpm.read_public(0x8101_0001).unwrap().unwrap();
    let ek = Ek { object: ek, certificate: None, chain: Vec::new() };
    let ak = tpm.attestation_key().unwrap();
    drop(tpm);
    let credential = make_credential(&swtpm, &ek.object, &ak.name, &SECRET);
    swtpm.tool("tpm2_changeauth -c e endorsepass");
    let mut tpm = swtpm.open();
    let srk = tpm.storage_key(None).unwrap();
    tpm.set_hierarchy_auth(Hierarchy::Endorsement, Zeroizing::new(b"endorsepass".to_vec()));
    let ak = tpm.attestation_key().unwrap();
    assert_eq!(*tpm.activate_with_ek(&srk, &ek, &ak, &credential).unwrap(), SECRET);
    tpm.set_hierarchy_auth(Hierarchy::Endorsement, Zeroizing::default());
    let error = tpm.activate_with_ek(&srk, &ek, &ak, &credential).map(drop).unwrap_err();
    assert!(matches!(error, Error::HierarchyAuth("endorsement")), "{error}");
}
