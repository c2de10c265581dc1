//! Quotes of a real TPM, and the same with one thing wrong.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Exchange, Swtpm};
use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote;
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::Evidence;
use halfkey_protocol::{Bytes, Reason};

#[test]
fn quotes_of_a_tpm_are_verified_and_tampered_ones_refused() {
    let tpm = Swtpm::start();
    tpm.make_keys();
    let ak = AkPublic::parse(&tpm.public("ak.ctx")).unwrap();
    let exchange = Exchange::new();

    unextended_bank(&tpm, &ak, &exchange);
    for bank in PcrBank::ALL {
        accepted(&tpm, &ak, &exchange, bank);
    }
    let evidence = tpm.evidence(&exchange, PcrBank::Sha256);
    tampered(&evidence, &ak, &exchange);
    other_qualifiers(&evidence, &ak, &exchange);
    other_selections(&tpm, &ak, &exchange);
    other_signed_structures(&tpm, &ak, &exchange, &evidence);
    fence(&tpm, &ak, &exchange);
}

fn verify(ak: &AkPublic, exchange: &Exchange, evidence: &Evidence) -> Result<quote::VerifiedQuote, Reason> {
    quote::verify(&exchange.context(ak, PcrBank::Sha256), evidence).map_err(|rejection| {
        assert!(!rejection.detail.is_empty());
        rejection.reason
    })
}

/// Ends with PCR 0 to 7 extended.
fn unextended_bank(tpm: &Swtpm, ak: &AkPublic, exchange: &Exchange) {
    assert_eq!(verify(ak, exchange, &tpm.evidence(exchange, PcrBank::Sha256)).unwrap_err(), Reason::Bank);
    (0..7).for_each(|pcr| tpm.measure(pcr, &[0; 4]));
    assert_eq!(verify(ak, exchange, &tpm.evidence(exchange, PcrBank::Sha256)).unwrap_err(), Reason::Bank);
    tpm.measure(7, &[0; 4]);
}

fn accepted(tpm: &Swtpm, ak: &AkPublic, exchange: &Exchange, bank: PcrBank) {
    let evidence = tpm.evidence(exchange, bank);
    let verified = quote::verify(&exchange.context(ak, bank), &evidence).unwrap();
    assert_eq!(verified.bank(), bank);
    for (index, value) in evidence.pcrs.iter().enumerate() {
        assert_eq!(verified.pcr(index as u8), &value[..]);
    }
    assert_eq!(
        verified.pcr_digest(),
        Hash::Sha256.digest(&[&evidence.pcrs.iter().flat_map(|v| v.0.clone()).collect::<Vec<_>>()])
    );
    assert_eq!(verified.qualifying_data(), &exchange.qualifying_data().digest());
    quote::require_open_fence(&verified).unwrap();

    // In the endorsement hierarchy counters and firmware version are in the clear.
    let later = quote::verify(&exchange.context(ak, bank), &tpm.evidence(exchange, bank)).unwrap();
    assert!(later.clock() >= verified.clock());
    assert_eq!(
        (later.reset_count(), later.restart_count()),
        (verified.reset_count(), verified.restart_count())
    );
    assert!(verified.reset_count() < 100, "{}", verified.reset_count());
    assert_ne!(verified.firmware_version(), 0);
}

fn tampered(good: &Evidence, ak: &AkPublic, exchange: &Exchange) {
    let refused = |what: &str, reason: Reason, change: &dyn Fn(&mut Evidence)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        assert_eq!(verify(ak, exchange, &evidence).expect_err(what), reason, "{what}");
    };
    for at in 0..good.quote.len() {
        refused("quote", Reason::Signature, &|f| f.quote.0[at] ^= 1);
    }
    for at in 0..good.signature.len() {
        refused("signature", Reason::Signature, &|f| f.signature.0[at] ^= 1);
    }
    refused("trailing quote", Reason::Signature, &|f| f.quote.0.push(0));
    refused("trailing signature", Reason::Signature, &|f| f.signature.0.push(0));
    refused("no signature", Reason::Signature, &|f| f.signature.0.clear());

    for pcr in 0..16 {
        refused("value", Reason::PcrDigest, &|f| f.pcrs[pcr].0[31] ^= 1);
    }
    // PCR 0 and 8 differ: their values under each other's number.
    refused("relabelled", Reason::PcrDigest, &|f| f.pcrs.swap(0, 8));
    // The concatenation is the same, the boundary is not.
    refused("shifted", Reason::Malformed, &|f| {
        let byte = f.pcrs[0].0.pop().expect("32 bytes");
        f.pcrs[1].0.insert(0, byte);
    });
    refused("one too few", Reason::Malformed, &|f| drop(f.pcrs.pop()));
    refused("one too many", Reason::Malformed, &|f| f.pcrs.push(Bytes::from([0; 32])));
    refused("an empty one more", Reason::Malformed, &|f| f.pcrs.push(Bytes::default()));
    for bank in ["sha384", "sha1", "", "SHA256"] {
        refused("bank", Reason::Bank, &|f| f.bank = bank.to_owned());
    }
}

/// The quote is for exactly this exchange.
fn other_qualifiers(evidence: &Evidence, ak: &AkPublic, exchange: &Exchange) {
    let changes: [&dyn Fn(&mut Exchange); 6] = [
        &|e| e.node[0] ^= 1,
        &|e| e.nonce[0] ^= 1,
        &|e| e.hpke_public[0] ^= 1,
        &|e| e.nonce_tpm[0] ^= 1,
        &|e| e.srk_name[33] ^= 1,
        &|e| e.purpose_data[0] ^= 1,
    ];
    for change in changes {
        let mut other = exchange.clone();
        change(&mut other);
        assert_eq!(verify(ak, &other, evidence).unwrap_err(), Reason::QualifyingData);
    }
    let mut context = exchange.context(ak, PcrBank::Sha256);
    context.qualifying_data.purpose = halfkey_protocol::wire::Purpose::Enroll;
    assert_eq!(quote::verify(&context, evidence).unwrap_err().reason, Reason::QualifyingData);
    context = exchange.context(ak, PcrBank::Sha256);
    context.qualifying_data.version = 2;
    assert_eq!(quote::verify(&context, evidence).unwrap_err().reason, Reason::QualifyingData);
}

/// Signed by the AK for this exchange, with the right values beside it, but over others.
fn other_selections(tpm: &Swtpm, ak: &AkPublic, exchange: &Exchange) {
    let good = tpm.evidence(exchange, PcrBank::Sha256);
    for selection in [
        "sha384:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "sha1:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
        "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14",
        "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,16",
        "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16",
        "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15+sha384:0",
        "sha256:0",
    ] {
        let (quote, signature) = tpm.quote(selection, &exchange.qualifying_data().digest());
        let evidence = Evidence { quote: quote.into(), signature: signature.into(), ..good.clone() };
        assert_eq!(verify(ak, exchange, &evidence).unwrap_err(), Reason::PcrSelection, "{selection}");
    }
}

fn other_signed_structures(tpm: &Swtpm, ak: &AkPublic, exchange: &Exchange, good: &Evidence) {
    // By the AK, but not a quote.
    let (info, signature) = tpm.certify("srk.ctx", "ak.ctx");
    let evidence = Evidence { quote: info.into(), signature: signature.into(), ..good.clone() };
    assert_eq!(verify(ak, exchange, &evidence).unwrap_err(), Reason::NotAQuote);

    // A quote, but by another key: same template, other hierarchy.
    tpm.primary("o", common::AK_ALG, common::AK_ATTRIBUTES, "other.ctx");
    let other = AkPublic::parse(&tpm.public("other.ctx")).unwrap();
    assert_eq!(verify(&other, exchange, good).unwrap_err(), Reason::Signature);
}

fn fence(tpm: &Swtpm, ak: &AkPublic, exchange: &Exchange) {
    tpm.measure(15, label::FENCE_CLOSED);
    let closed = verify(ak, exchange, &tpm.evidence(exchange, PcrBank::Sha256)).unwrap();
    assert_eq!(quote::require_open_fence(&closed).unwrap_err().reason, Reason::FenceExtended);
    assert_eq!(closed.pcr(15), fence::opened(PcrBank::Sha256, label::FENCE_CLOSED));
}
