//! The sealed half: who gets it, and who does not.

#![allow(clippy::unwrap_used)] // helpers of tests may fail like tests

mod common;

use common::release::ReleaseKey;
use common::swtpm::Swtpm;
use halfkey_agent::tpm::{Error, Release, SealedBlob, Tpm};
use halfkey_protocol::tpm::bank::PcrBank;
use tss_esapi::attributes::{ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::SessionType;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Digest, KeyedHashScheme, Nonce, PcrSelectionListBuilder, PcrSlot, Private, Public, PublicBuilder,
    PublicKeyedHashParameters, SensitiveData, Signature, SymmetricDefinition,
};
use tss_esapi::traits::{Marshall, UnMarshall};

const NODE: [u8; 16] = [7; 16];
const SECRET: [u8; 32] = [0xa5; 32];
const BANK: PcrBank = PcrBank::Sha256;

fn seal(tpm: &mut Tpm, release: &ReleaseKey, bank: PcrBank) -> SealedBlob {
    let srk = tpm.storage_key(None).unwrap();
    let blob = tpm.seal(&srk, &SECRET, &release.policy(bank, &NODE)).unwrap();
    tpm.flush(srk).unwrap();
    blob
}

/// The whole way, with the signature that `sign` makes of nonceTPM.
fn unseal_with(
    tpm: &mut Tpm,
    blob: &SealedBlob,
    release: &ReleaseKey,
    bank: PcrBank,
    node: &[u8; 16],
    sign: impl Fn(&[u8]) -> [u8; 64],
) -> Result<Vec<u8>, Error> {
    let srk = tpm.storage_key(None)?;
    let mut session = tpm.start_unseal(&srk)?;
    let signature = sign(&session.nonce_tpm);
    let key = release.public();
    let release = Release { bank, public: &key, signature: &signature, node };
    let secret = tpm.unseal(&mut session, &srk, blob, &release);
    tpm.abandon(session)?;
    tpm.flush(srk)?;
    secret.map(|secret| secret.to_vec())
}

fn unseal(tpm: &mut Tpm, blob: &SealedBlob, release: &ReleaseKey) -> Result<Vec<u8>, Error> {
    unseal_with(tpm, blob, release, BANK, &NODE, |nonce| release.sign(nonce, &NODE))
}

#[test]
fn the_half_comes_back_in_every_bank_until_the_fence_is_extended() {
    let mut swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    for bank in PcrBank::ALL {
        let mut tpm = swtpm.open();
        let blob = seal(&mut tpm, &release, bank);
        let open = |tpm: &mut Tpm| {
            unseal_with(tpm, &blob, &release, bank, &NODE, |nonce| release.sign(nonce, &NODE))
        };
        assert!(tpm.fence_state().unwrap().is_open());
        assert_eq!(open(&mut tpm).unwrap(), SECRET);
        assert_eq!(open(&mut tpm).unwrap(), SECRET);
        tpm.pcr_event(15, b"closed").unwrap();
        let fence = tpm.fence_state().unwrap();
        assert!(fence.is_closed() && !fence.is_open());
        assert_eq!(fence.values.len(), 3);
        let expected = halfkey_protocol::tpm::fence::opened(PcrBank::Sha256, b"closed");
        assert!(fence.known().any(|found| found == (PcrBank::Sha256, &expected[..])));
        let error = open(&mut tpm).unwrap_err();
        assert!(matches!(error, Error::FenceExtended), "{error}");
        drop(tpm);
        swtpm.reboot();
        assert_eq!(open(&mut swtpm.open()).unwrap(), SECRET);
    }
}

#[test]
fn other_signatures_do_not_open_it() {
    let swtpm = Swtpm::start();
    let (release, other) = (ReleaseKey::new(), ReleaseKey::new());
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    let recorded = std::cell::Cell::new([0; 64]);
    unseal_with(&mut tpm, &blob, &release, BANK, &NODE, |nonce| {
        recorded.set(release.sign(nonce, &NODE));
        recorded.get()
    })
    .unwrap();
    let refused = |result: Result<Vec<u8>, Error>, words: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().is_some());
    };
    // Recorded from another session.
    refused(unseal_with(&mut tpm, &blob, &release, BANK, &NODE, |_| recorded.get()), "TPM_RC_SIGNATURE");
    // For another node, and claimed to be for this one.
    let elsewhere = |nonce: &[u8]| release.sign(nonce, &[8; 16]);
    refused(unseal_with(&mut tpm, &blob, &release, BANK, &NODE, elsewhere), "TPM_RC_SIGNATURE");
    // For another node, and honestly so.
    refused(unseal_with(&mut tpm, &blob, &release, BANK, &[8; 16], elsewhere), "TPM_RC_POLICY_FAIL");
    // Another release key.
    let others = |nonce: &[u8]| other.sign(nonce, &NODE);
    refused(unseal_with(&mut tpm, &blob, &release, BANK, &NODE, others), "TPM_RC_SIGNATURE");
    refused(unseal_with(&mut tpm, &blob, &other, BANK, &NODE, others), "TPM_RC_POLICY_FAIL");
    // Another bank.
    let good = |nonce: &[u8]| release.sign(nonce, &NODE);
    refused(unseal_with(&mut tpm, &blob, &release, PcrBank::Sha384, &NODE, good), "TPM_RC_POLICY_FAIL");
    // None of this counted as a failed authorization, and the right one still opens.
    assert!(!tpm.permanent().unwrap().in_lockout);
    assert_eq!(unseal(&mut tpm, &blob, &release).unwrap(), SECRET);
}

#[test]
fn an_empty_password_does_not_open_it() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &ReleaseKey::new(), BANK);
    drop(tpm);
    let mut oracle = swtpm.oracle();
    let result = oracle.execute_with_nullauth_session(|oracle| {
        let srk = Public::unmarshall(&halfkey_protocol::tpm::template::SRK.template())?;
        let srk = oracle.create_primary(Hierarchy::Owner, srk, None, None, None, None)?.key_handle;
        let private = Private::try_from(blob.private.clone())?;
        let sealed = oracle.load(srk, private, Public::unmarshall(&blob.public)?)?;
        let secret = oracle.unseal(sealed.into());
        oracle.flush_context(sealed.into())?;
        oracle.flush_context(srk.into())?;
        Ok::<_, tss_esapi::Error>(secret.map(drop))
    });
    let error = result.unwrap().unwrap_err().to_string();
    assert!(error.contains("not available for selected entity"), "{error}");
}

#[test]
fn pcrs_that_move_in_between_cost_only_a_repetition() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    // Between the session and its use: PolicyPCR comes later.
    let srk = tpm.storage_key(None).unwrap();
    let mut session = tpm.start_unseal(&srk).unwrap();
    let (key, signature) = (release.public(), release.sign(&session.nonce_tpm, &NODE));
    tpm.pcr_event(11, b"sysinit").unwrap();
    let release = Release { bank: BANK, public: &key, signature: &signature, node: &NODE };
    let secret = tpm.unseal(&mut session, &srk, &blob, &release).unwrap();
    assert_eq!(*secret, SECRET);
}

#[test]
fn three_places_are_enough() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    // As at boot: SRK and AK leave one place of a TPM without a resource manager.
    let srk = tpm.storage_key(None).unwrap();
    let ak = tpm.attestation_key().unwrap();
    let mut session = tpm.start_unseal(&srk).unwrap();
    let (key, signature) = (release.public(), release.sign(&session.nonce_tpm, &NODE));
    tpm.quote(&ak, &[1; 32], BANK).unwrap();
    let release = Release { bank: BANK, public: &key, signature: &signature, node: &NODE };
    // The session is as it was but for its nonce: what was signed does not open it twice.
    let secret = tpm.unseal(&mut session, &srk, &blob, &release).unwrap();
    assert_eq!(*secret, SECRET);
    let error = tpm.unseal(&mut session, &srk, &blob, &release).unwrap_err();
    assert!(error.to_string().contains("TPM_RC_SIGNATURE"), "{error}");
}

#[test]
fn another_tpm_or_a_damaged_blob_is_refused_in_words() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let mut blob = seal(&mut tpm, &release, BANK);
    drop(tpm);
    let elsewhere = Swtpm::start();
    let error = unseal(&mut elsewhere.open(), &blob, &release).unwrap_err();
    assert!(error.to_string().contains("made by another TPM"), "{error}");
    assert!(error.hint().unwrap().contains("enroll again"));
    for cut in [0, 1, 40] {
        let private = blob.private[..cut].to_vec();
        let damaged = SealedBlob { public: blob.public.clone(), private };
        assert!(matches!(unseal(&mut swtpm.open(), &damaged, &release), Err(Error::Refused("Load", _))));
    }
    // An attacker who owns the disk opens the attributes: the TPM notices.
    blob.public[7] |= 0x40;
    assert!(matches!(unseal(&mut swtpm.open(), &blob, &release), Err(Error::Refused("Load", _))));
}

#[test]
fn a_cleared_tpm_is_another_one() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    let srk = tpm.storage_key(None).unwrap().name;
    drop(tpm);
    swtpm.tool("tpm2_clear -c p");
    let mut tpm = swtpm.open();
    assert!(matches!(tpm.storage_key(Some(&srk)), Err(Error::WrongSrk)));
    assert!(unseal(&mut tpm, &blob, &release).unwrap_err().to_string().contains("TPM_RC_INTEGRITY"));
}

#[test]
fn a_locked_tpm_still_unseals_and_says_when_it_is_locked() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    drop(tpm);
    // A key that counts failed tries, and three of them.
    swtpm.tool("tpm2_dictionarylockout -s -n 1 -t 600 -l 60");
    swtpm.tool("tpm2_nvdefine -C o -s 8 -a authread|authwrite -p secret 0x1500001");
    std::fs::write(swtpm.path("data"), [5; 8]).unwrap();
    swtpm.tool("tpm2_nvwrite -C 0x1500001 -P secret -i data 0x1500001");
    let mut tpm = swtpm.open();
    assert_eq!(tpm.nv_read(0x0150_0001).unwrap(), None); // this was the try
    assert!(tpm.permanent().unwrap().in_lockout);
    let error = tpm.nv_read(0x0150_0001).unwrap_err();
    assert!(matches!(error, Error::Lockout { interval: 600, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "the TPM refused NV_Read: TPM_RC_LOCKOUT (0x921): locked after failed authorizations"
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains("600 s") && hint.contains("tpm2_dictionarylockout --clear-lockout"), "{hint}");
    // noDA: nobody locks the machine out of its disk by cutting power.
    assert_eq!(unseal(&mut tpm, &blob, &release).unwrap(), SECRET);
    let ek = tpm.endorsement_key().unwrap();
    assert!(ek.certificate.is_some());
    drop(tpm);
    swtpm.tool("tpm2_dictionarylockout --clear-lockout");
    assert!(!swtpm.open().permanent().unwrap().in_lockout);
}

#[test]
fn what_the_oracle_sealed_is_unsealed() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut oracle = swtpm.oracle();
    let blob = oracle
        .execute_with_nullauth_session(|oracle| {
            let srk = Public::unmarshall(&halfkey_protocol::tpm::template::SRK.template())?;
            let srk = oracle.create_primary(Hierarchy::Owner, srk, None, None, None, None)?.key_handle;
            let attributes = ObjectAttributesBuilder::new()
                .with_fixed_tpm(true)
                .with_fixed_parent(true)
                .with_no_da(true)
                .build()?;
            let public = PublicBuilder::new()
                .with_public_algorithm(PublicAlgorithm::KeyedHash)
                .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
                .with_object_attributes(attributes)
                .with_auth_policy(Digest::try_from(release.policy(BANK, &NODE).to_vec())?)
                .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
                .with_keyed_hash_unique_identifier(Digest::default())
                .build()?;
            let secret = SensitiveData::try_from(SECRET.to_vec())?;
            let made = oracle.create(srk, public, None, Some(secret), None, None)?;
            oracle.flush_context(srk.into())?;
            let private = made.out_private.value().to_vec();
            Ok::<_, tss_esapi::Error>(SealedBlob { public: made.out_public.marshall()?, private })
        })
        .unwrap();
    drop(oracle);
    let mut tpm = swtpm.open();
    assert_eq!(unseal(&mut tpm, &blob, &release).unwrap(), SECRET);
    // Both make the same public area.
    let ours = seal(&mut tpm, &release, BANK).public;
    assert_eq!(ours[..46], blob.public[..46]);
}

#[test]
fn what_we_sealed_is_unsealed_by_the_oracle() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release, BANK);
    drop(tpm);
    let mut oracle = swtpm.oracle();
    let session = oracle
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .unwrap()
        .unwrap();
    let (attributes, mask) = SessionAttributesBuilder::new().build();
    oracle.tr_sess_set_attributes(session, attributes, mask).unwrap();
    let policy = PolicySession::try_from(session).unwrap();
    let fence = PcrSelectionListBuilder::new()
        .with_selection(HashingAlgorithm::Sha256, &[PcrSlot::Slot15])
        .build()
        .unwrap();
    oracle.policy_pcr(policy, Digest::default(), fence).unwrap();
    let key = Public::unmarshall(&release.public()).unwrap();
    let key = oracle.load_external_public(key, Hierarchy::Null).unwrap();
    // tss-esapi can't tell the session's nonceTPM. An empty one is signed here, which no
    // verifier may ever do: such a signature would be good for any session.
    let signature = release.sign(&[], &NODE);
    let encoded = [&[0, 0x18, 0, 0x0b, 0, 32][..], &signature[..32], &[0, 32], &signature[32..]].concat();
    // tss-esapi wants a session with it, if only to encrypt.
    let session = oracle
        .start_auth_session(
            None,
            None,
            None,
            SessionType::Hmac,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
        .unwrap();
    let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).build();
    oracle.tr_sess_set_attributes(session.unwrap(), attributes, mask).unwrap();
    oracle
        .execute_with_session(session, |oracle| {
            oracle.policy_signed(
                policy,
                key.into(),
                Nonce::default(),
                Digest::default(),
                Nonce::try_from(NODE.to_vec()).unwrap(),
                None,
                Signature::unmarshall(&encoded).unwrap(),
            )
        })
        .unwrap();
    oracle.flush_context(key.into()).unwrap();
    let digest = oracle.policy_get_digest(policy).unwrap();
    assert_eq!(digest.value(), release.policy(BANK, &NODE));
    let sealed = oracle
        .execute_with_nullauth_session(|oracle| {
            let srk = Public::unmarshall(&halfkey_protocol::tpm::template::SRK.template())?;
            let srk = oracle.create_primary(Hierarchy::Owner, srk, None, None, None, None)?.key_handle;
            let private = Private::try_from(blob.private.clone())?;
            oracle.load(srk, private, Public::unmarshall(&blob.public)?)
        })
        .unwrap();
    let session = Some(AuthSession::from(policy));
    let secret = oracle.execute_with_session(session, |oracle| oracle.unseal(sealed.into())).unwrap();
    assert_eq!(secret.value(), SECRET);
}
