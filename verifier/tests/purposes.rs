//! A quote for one purpose is worth nothing for another, even if the checks before the decision let it pass.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::Server;
use common::node::{Session, enrolled};
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_protocol::keys::hpke::Ephemeral;
use halfkey_protocol::wire::{Begun, Purpose};
use halfkey_verifier::appraisal::{CheckedEvidence, Lifetimes};
use halfkey_verifier::config::StateDir;
use halfkey_verifier::domain::{NodeSnapshot, PolicySource, Records};
use halfkey_verifier::keys::{ClusterKey, ReleaseKey};
use halfkey_verifier::nonce::{self, Scope};
use halfkey_verifier::policies::Library;
use halfkey_verifier::unix_now;

#[tokio::test]
async fn a_quote_for_another_purpose_releases_nothing() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    server.stop();

    let state = StateDir::new(server.state());
    let cluster = ClusterKey::load(&state).unwrap();
    let release = ReleaseKey::load(&state).unwrap();
    let records = Records::open_in(&state).unwrap();
    let known = records.node(node.id).unwrap().unwrap();
    let enrollment = known.current.as_ref().unwrap();
    let governed = Library::default().governed(&known, &records as &dyn PolicySource).unwrap();
    let lifetimes = Lifetimes { nonce: 300, pending: 300 };

    // As if `begin` had given a nonce for it, and the first look at `finish` had let it pass.
    for purpose in [Purpose::Runtime, Purpose::Propose] {
        let bank = halfkey_verifier::appraisal::bank(purpose, enrollment);
        let scope = Scope { version: 1, node: node.id, purpose, bank };
        let nonce = nonce::issue(&cluster, &scope, unix_now()).unwrap();
        let session = Session {
            ephemeral: Ephemeral::generate(),
            nonce_tpm: vec![],
            purpose_data: vec![],
            begun: Begun { version: 1, nonce: nonce.into(), bank: bank.name().to_owned(), enrollment: None },
        };
        let sent = node.evidence(purpose.as_str(), &session);
        let evidence = BoundedEvidence { sent: &sent, node: node.id, purpose };
        let checked = CheckedEvidence::of(&evidence, enrollment, &governed, &cluster, lifetimes, unix_now());
        let snapshot = NodeSnapshot { node: known.clone(), boot: None, proposals: vec![] };
        let verdict = checked.rule(&snapshot, &release, &cluster).verdict(1);
        assert_eq!(verdict.outcome, "denied", "{purpose:?}: {verdict:?}");
        assert!(verdict.sealed.is_none() && verdict.release_signature.is_none(), "{verdict:?}");
    }
}
