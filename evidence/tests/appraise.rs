//! The appraisal of boots whose quotes are genuine: quote, logs and policy belong together.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use common::boots::{Appraised, Boot, boot};
use halfkey_evidence::appraise::{BoundedEvidence, Enrolled, appraise};
use halfkey_evidence::policy::Policy;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{Evidence, Purpose};
use halfkey_protocol::{Bytes, NodeId, Reason};

/// A machine whose AK this test holds.
struct Machine {
    ak: EcdsaKeyPair,
    srk: EcdsaKeyPair,
}

fn point(pair: &EcdsaKeyPair) -> ([u8; 32], [u8; 32]) {
    let (_, xy) = pair.public_key().as_ref().split_first().unwrap();
    (xy[..32].try_into().unwrap(), xy[32..].try_into().unwrap())
}

impl Machine {
    fn new() -> Self {
        let pair = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { ak: pair(), srk: pair() }
    }

    fn enrolled(&self) -> Enrolled {
        let ((ax, ay), (sx, sy)) = (point(&self.ak), point(&self.srk));
        Enrolled::parse(&template::AK.public(&ax, &ay), &template::SRK.public(&sx, &sy), PcrBank::Sha256)
            .unwrap()
    }

    /// A quote over these values, with what the boot has to show.
    fn evidence(&self, purpose: Purpose, pcrs: &[Vec<u8>], boot: &Boot) -> Evidence {
        let (sx, sy) = point(&self.srk);
        let srk_name = [&[0, 0x0b][..], &Hash::Sha256.digest(&[&template::SRK.public(&sx, &sy)])].concat();
        let key = [3; 32];
        let node = NodeId([0x11; 16]);
        let qualifying_data = QualifyingData {
            version: 1,
            node: &node.0,
            purpose,
            nonce: &[2; 48],
            hpke_public: &key,
            nonce_tpm: &key,
            srk_name: &srk_name,
            purpose_data: &key,
        };
        // magic, type QUOTE, signer, extraData, clock info, firmware, PCR 0 to 15 of the SHA-256 bank, digest
        let mut attest = vec![0xff, b'T', b'C', b'G', 0x80, 0x18, 0, 2, 1, 2, 0, 32];
        attest.extend(qualifying_data.digest());
        attest.extend(9u64.to_be_bytes());
        attest.extend([0, 0, 0, 4, 0, 0, 0, 5, 1]);
        attest.extend(11u64.to_be_bytes());
        attest.extend([0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0, 0, 32]);
        attest.extend(Hash::Sha256.digest(&[&pcrs.concat()]));
        let rs = self.ak.sign(&SystemRandom::new(), &attest).unwrap();
        let (r, s) = rs.as_ref().split_at(32);
        Evidence {
            version: 1,
            node_id: node.to_string(),
            purpose: purpose.as_str().to_owned(),
            nonce: [2; 48].into(),
            hpke_public: key.into(),
            nonce_tpm: key.into(),
            purpose_data: key.into(),
            quote: attest.into(),
            signature: [&[0, 0x18, 0, 0x0b, 0, 32], r, &[0, 32], s].concat().into(),
            bank: "sha256".to_owned(),
            pcrs: pcrs.iter().map(|value| Bytes::from(&value[..])).collect(),
            event_log: Some(boot.log.into()),
            systemd_log: None,
            ima_log: None,
            command_line: Some(boot.proc_cmdline().into()),
            agent: "test".to_owned(),
        }
    }
}

fn values(boot: &Boot) -> Vec<Vec<u8>> {
    (0..16).map(|pcr| boot.log().pcr(pcr).to_vec()).collect()
}

#[test]
fn what_is_allowed_is_attested_and_of_one_quote() {
    let (machine, boot) = (Machine::new(), boot("uki-no-secure-boot"));
    let policy = Policy::parse(&boot.learned()).unwrap();
    let pcrs = values(boot);
    let enrolled = machine.enrolled();
    let sent = machine.evidence(Purpose::Boot, &pcrs, boot);
    let evidence = BoundedEvidence::read(&sent).unwrap();

    let appraisal = appraise(&evidence, &enrolled, Some(&policy)).unwrap();
    let attested = appraisal.attested().unwrap();
    assert_eq!(attested.allowed().unwrap().boot.as_ref().unwrap().name, policy.boots()[0].name);
    assert!(attested.log().unwrap().is_of(attested.quote()));
    // Without a policy nothing is allowed, and nothing is found.
    let without = appraise(&evidence, &enrolled, None).unwrap();
    assert!(without.attested().unwrap().allowed().is_none() && without.result().is_none());

    // A log that leaves events out, or says more than was measured: the policy is not even asked.
    let mut other = sent.clone();
    other.event_log = Some(common::boots::boot("uki-secure-boot-own-keys").log.into());
    let appraisal = appraise(&BoundedEvidence::read(&other).unwrap(), &enrolled, Some(&policy)).unwrap();
    assert_eq!(appraisal.attested().unwrap_err().reason, Reason::LogReplay);
    assert!(appraisal.result().is_none());

    // No log: an operator may still approve it, a policy never allows it.
    let mut silent = sent.clone();
    silent.event_log = None;
    let appraisal = appraise(&BoundedEvidence::read(&silent).unwrap(), &enrolled, Some(&policy)).unwrap();
    let attested = appraisal.attested().unwrap();
    assert!(attested.allowed().is_none() && attested.log().is_none());
    assert_eq!(appraisal.result().unwrap().findings[0].what, "event log");
}

#[test]
fn nothing_is_attested_behind_the_fence_or_by_another_key() {
    let (machine, boot) = (Machine::new(), boot("uki-no-secure-boot"));
    let policy = Policy::parse(&boot.learned()).unwrap();
    let mut pcrs = values(boot);
    pcrs[15] = vec![7; 32];
    let sent = machine.evidence(Purpose::Boot, &pcrs, boot);
    let appraisal =
        appraise(&BoundedEvidence::read(&sent).unwrap(), &machine.enrolled(), Some(&policy)).unwrap();
    // What was booted is what the policy allows, and it comes too late.
    assert!(appraisal.result().unwrap().accepted());
    assert_eq!(appraisal.attested().unwrap_err().reason, Reason::FenceExtended);

    let sent = machine.evidence(Purpose::Boot, &values(boot), boot);
    let evidence = BoundedEvidence::read(&sent).unwrap();
    let refused = appraise(&evidence, &Machine::new().enrolled(), Some(&policy)).unwrap_err();
    assert_eq!(refused.reason, Reason::Signature);
}

#[test]
fn evidence_for_another_purpose_is_no_boot() {
    let (machine, boot) = (Machine::new(), boot("uki-no-secure-boot"));
    for purpose in [Purpose::Enroll, Purpose::Runtime, Purpose::Propose] {
        let sent = machine.evidence(purpose, &values(boot), boot);
        // As if the first look had let it pass.
        let evidence = BoundedEvidence { sent: &sent, node: NodeId([0x11; 16]), purpose };
        let refused = appraise(&evidence, &machine.enrolled(), None).unwrap_err();
        assert_eq!(refused.reason, Reason::Malformed, "{purpose:?}");
        // Called a boot, it is not what was quoted.
        let evidence = BoundedEvidence { purpose: Purpose::Boot, ..evidence };
        let refused = appraise(&evidence, &machine.enrolled(), None).unwrap_err();
        assert_eq!(refused.reason, Reason::QualifyingData, "{purpose:?}");
    }
}
