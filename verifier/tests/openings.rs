//! Only a boot that attestation opened may propose.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, answered, said};
use common::proposing::{member, new, old, opened, send, waiting};
use common::{Server, path, post};
use halfkey_protocol::keys::label;
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::Propose;
use halfkey_protocol::wire::operator::{Because, NodeRecord};
use halfkey_protocol::{Bytes, Half, Key};
use halfkey_testkit::hex;
use halfkey_testkit::software::Software;
use halfkey_verifier::client::Client;

/// A disk of an attacker's own, with a token that leads to their relay: the genuine verifier releases, and the agent is answered with
/// other halves, another signature, another secret. Or it gets the genuine box, and the disk fits that V and a U of theirs.
#[tokio::test]
async fn what_another_verifier_gave_does_not_open_the_fence_as_this_one_expects() {
    let server = Server::start();
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&server.operator(), "group:web", &policy).await.unwrap();
    let theirs = OpeningSecret::new(&[1; 32]).unwrap();
    let key =
        |u: u8, v: u8| Key::combine(&Half::take(&mut [u; 32]).unwrap(), &Half::take(&mut [v; 32]).unwrap());
    let r_sha256 = Hash::Sha256.digest(&[halfkey_testkit::node::R]).try_into().unwrap();
    // Also r itself, and what a relay sees of it.
    let own = theirs.event(&r_sha256, &key(1, 2));
    for event in [Some(&own[..]), Some(halfkey_testkit::node::R), Some(&r_sha256), None] {
        node.reboot_into(&old());
        let (session, verdict) = node.attest(&server.anybody(), "boot").await.unwrap();
        assert_eq!(said(&verdict), "released");
        let genuine = node.open("boot", &session, &verdict).opening.unwrap();
        node.tpm.measure(15, event.unwrap_or(&*genuine.event(&r_sha256, &key(3, 4))));
        let proposed = node.propose(&server.anybody(), &new()).await;
        assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
    }
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&server.anybody(), &new()).await), "accepted");
}

/// What extended the fence was overheard. The power is cut while the machine is suspended, and another system begun: resetCount is the
/// same, PCR 15 was zero again.
#[tokio::test]
async fn a_tpm_that_restarted_is_not_in_the_boot_that_was_released() {
    let server = Server::start();
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&server.operator(), "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;
    node.tpm.restart();
    old().measure(&node.tpm);
    node.open_fence();
    let proposed = node.propose(&server.anybody(), &new()).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
    assert!(proposed.message.contains("it was suspended since"), "{proposed:?}");
}

#[tokio::test]
async fn only_a_boot_that_attestation_opened_may_propose() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    let unattested = async |software: &Software| {
        let proposed = node.propose(&anybody, software).await;
        assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
        assert!(proposed.hint.is_some() && proposed.proposal_id.is_none(), "{proposed:?}");
        proposed.message
    };
    assert!(unattested(&new()).await.contains("no boot of this enrollment was released"));

    // Released, but the agent closed the fence: a passphrase opened it.
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert!(unattested(&new()).await.contains("pcr 15"), "the fence is still open");
    node.tpm.measure(15, label::FENCE_CLOSED);
    assert!(unattested(&new()).await.contains("found it closed"));

    // Opened, then a passphrase was asked for as well; a log that admits it does not help.
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "accepted");
    node.tpm.measure(15, label::FENCE_PASSPHRASE);
    unattested(&new()).await;
    let message = with_systemd_log(&anybody, &node, &[label::FENCE_PASSPHRASE]).await;
    let proposed = send(&server, &message).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested");
    assert!(proposed.message.contains("a passphrase was asked for"), "{proposed:?}");

    // Opened, then a shell was given: whoever sat there is root and has a log that calls it systemd's.
    opened(&server, &node, &old()).await;
    node.tpm.measure(15, label::FENCE_SHELL);
    assert!(unattested(&new()).await.contains("a shell was given"));
    let message = with_systemd_log(&anybody, &node, &[label::FENCE_SHELL]).await;
    let proposed = send(&server, &message).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested");
    assert!(proposed.message.contains("a shell was given"), "{proposed:?}");

    // Later systemd measures into the same PCR: its log explains that, and nothing else does.
    opened(&server, &node, &old()).await;
    node.tpm.measure(15, b"machine-id:1");
    unattested(&new()).await;
    let message = with_systemd_log(&anybody, &node, &[b"machine-id:2"]).await;
    assert_eq!(answered(&send(&server, &message).await), "refused proposal_unattested");
    let message = with_systemd_log(&anybody, &node, &[b"machine-id:1", b"not yet in the quote"]).await;
    assert_eq!(answered(&send(&server, &message).await), "accepted");
    let mut broken = with_systemd_log(&anybody, &node, &[b"machine-id:1"]).await;
    broken.evidence.systemd_log = Some(Bytes::from(&b"\x1e{"[..]));
    assert_eq!(answered(&send(&server, &broken).await), "refused log_malformed");

    // A boot that was not released, although the one before was.
    node.reboot_into(&Software::version("rogue"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.open_fence();
    assert!(unattested(&new()).await.contains("resetCount"));

    // Nor after a new enrollment, until that has booted.
    opened(&server, &node, &old()).await;
    node.enroll(&anybody, &operator, "again").await;
    unattested(&new()).await;
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "accepted");

    // Revoked.
    let because = Because { because: "stolen".into() };
    let _: NodeRecord = post(&operator, &path(node.id, "/revoke"), &because).await.unwrap();
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "refused revoked");
    assert_eq!(waiting(&operator).await.len(), 0);
}

/// A proposal with systemd's log of PCR 15.
async fn with_systemd_log(server: &Client, node: &Node, events: &[&[u8]]) -> Propose {
    let record = |event: &&[u8]| {
        let digest = hex(&Hash::Sha256.digest(&[event]));
        format!(
            "\x1e{{\"pcr\":15,\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content\":{{}}}}\n"
        )
    };
    let log: String = events.iter().map(record).collect();
    let mut message = node.proposal(server, &new().proposal()).await.unwrap();
    message.evidence.systemd_log = Some(log.into_bytes().into());
    message
}
