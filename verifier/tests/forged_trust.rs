//! Trust in the next boot, and rows that lie about it: what who writes the database has the policy trust is what the machine in order
//! proposed, from a boot that was released, in time.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, answered, enrolled, said};
use common::{Server, get};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::ProposalList;
use halfkey_testkit::software::{Software, policy_head, trust};
use halfkey_verifier::client::Client;

const LATER: &str = "2999-01-01T00:00:00Z";
const OVER: &str = "2000-01-01T00:00:00Z";

fn next() -> Software {
    Software::version("6.1.0-56")
}

fn evil() -> Software {
    Software::version("6.6.6-evil")
}

/// Its policy allows the ordinary boot and trusts one next boot.
async fn trusting(operator: &Client, node: &Node, until: &str) {
    let policy = policy_head("web") + &trust(until, 1) + &Software::default().boot();
    node.apply(operator, &format!("node:{}", node.id), &policy).await.unwrap();
}

/// Enrolled, and opened by attestation.
async fn opened(server: &Server) -> Node {
    let node = enrolled(server).await;
    trusting(&server.operator(), &node, LATER).await;
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    node.open_fence();
    node
}

/// The row of the proposal that waits is gone, and that of the trusted one is found by its digest.
fn find_the_trusted_one_as_what_waits(server: &Server) {
    let database = server.database();
    let waits = "SELECT sha256 FROM proposals WHERE state = 'waiting'";
    let sum: Vec<u8> = database.query_row(waits, [], |row| row.get(0)).unwrap();
    database.execute("DELETE FROM proposals WHERE state = 'waiting'", []).unwrap();
    assert_eq!(database.execute("UPDATE proposals SET sha256 = ?1 WHERE by_trust = 1", [sum]).unwrap(), 1);
}

/// Whoever has the machine and writes the database, and is not root on it: nothing of the disk is open.
#[tokio::test]
async fn a_boot_that_only_a_row_says_was_released_proposes_nothing() {
    let server = Server::start();
    let (anybody, node) = (server.anybody(), opened(&server).await);
    node.reboot_into(&Software::version("usb-stick"));
    node.tpm.measure(15, b"whatever");
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "refused proposal_unattested");

    let fence = Hash::Sha256.digest(&[&[0; 32], &Hash::Sha256.digest(&[b"whatever"])]).to_vec();
    let lie = "UPDATE enrollments SET released_reset = reset_count, released_restart = restart_count,
               released_fence = ?1 WHERE state = 'current'";
    assert_eq!(server.database().execute(lie, [fence]).unwrap(), 1);
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "refused proposal_unattested");
    node.reboot_into(&evil());
    assert_ne!(said(&node.boot(&anybody).await), "released");

    // The next release mends the row.
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
}

/// What a release is recorded with is of one boot: neither the boot of the policy nor the number of its evidence is exchanged.
#[tokio::test]
async fn no_column_of_a_release_is_exchanged() {
    let server = Server::start();
    let (anybody, node) = (server.anybody(), opened(&server).await);
    for change in [
        "released_evidence = released_evidence + 1",
        "released_restart = released_restart + 1",
        "released_boot = 'another'",
        "released_proposal = 1",
        "released_base = 'another'",
        "released_tag = NULL",
    ] {
        let database = server.database();
        let columns = "released_evidence, released_restart, released_boot, released_proposal, released_base, released_tag";
        database.execute_batch(&format!("CREATE TABLE kept AS SELECT {columns} FROM enrollments")).unwrap();
        database.execute(&format!("UPDATE enrollments SET {change}"), []).unwrap();
        let said = node.propose(&anybody, &next()).await;
        assert_eq!(answered(&said), "refused proposal_unattested", "{change}");
        let back = format!("UPDATE enrollments SET ({columns}) = (SELECT * FROM kept); DROP TABLE kept");
        database.execute_batch(&back).unwrap();
    }
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
}

/// Root on the node, who writes the database as well: the tenant's time is over.
#[tokio::test]
async fn what_was_trusted_is_not_found_as_something_else() {
    let mut server = Server::start();
    let node = opened(&server).await;
    let (mut anybody, operator) = (server.anybody(), server.operator());
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
    trusting(&operator, &node, OVER).await;
    node.reboot_into(&next());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "waiting proposal_waits");

    find_the_trusted_one_as_what_waits(&server);
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "waiting proposal_waits");
    for restarted in [false, true] {
        if restarted {
            server.stop();
            server.serve();
            anybody = server.anybody();
        }
        node.reboot_into(&evil());
        assert_ne!(said(&node.boot(&anybody).await), "released", "restarted: {restarted}");
    }
}

/// Within the time, but the one that the policy trusts is used: the row of it counts, whatever digest it is found by.
#[tokio::test]
async fn what_was_trusted_counts_under_another_digest() {
    let server = Server::start();
    let (anybody, node) = (server.anybody(), opened(&server).await);
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "waiting proposal_waits");
    find_the_trusted_one_as_what_waits(&server);
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "waiting proposal_waits");
}

/// A number that is given again, to another content: what is remembered of the first is not what is judged by.
#[tokio::test]
async fn a_number_that_is_used_again_brings_nothing_back() {
    let server = Server::start();
    let (anybody, node) = (server.anybody(), opened(&server).await);
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "accepted");
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    server
        .database()
        .execute_batch("DELETE FROM proposals; DELETE FROM trust_given; DELETE FROM sqlite_sequence")
        .unwrap();
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
    node.reboot_into(&evil());
    assert_ne!(said(&node.boot(&anybody).await), "released");
    node.reboot_into(&next());
    assert_eq!(said(&node.boot(&anybody).await), "released");
}

#[tokio::test]
async fn a_proposal_whose_row_can_t_be_read_is_made_again() {
    let server = Server::start();
    let (anybody, operator, node) = (server.anybody(), server.operator(), opened(&server).await);
    let policy = policy_head("web") + &Software::default().boot();
    node.apply(&operator, &format!("node:{}", node.id), &policy).await.unwrap();
    for column in ["message", "state", "proposal", "trusted_scope", "tag", "at", "base_boot"] {
        assert_eq!(answered(&node.propose(&anybody, &next()).await), "waiting proposal_waits", "{column}");
        let lie = format!("PRAGMA ignore_check_constraints = 1; UPDATE proposals SET {column} = x'ff'");
        server.database().execute_batch(&lie).unwrap();
    }
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "waiting proposal_waits");
}

/// Who writes the database and has no machine: what waits for an operator is what a node proposed.
#[tokio::test]
async fn no_row_is_shown_as_what_a_node_proposed() {
    let server = Server::start();
    let (anybody, operator, node) = (server.anybody(), server.operator(), opened(&server).await);
    let policy = policy_head("web") + &Software::default().boot();
    node.apply(&operator, &format!("node:{}", node.id), &policy).await.unwrap();
    let shown = async || -> Vec<Proposal> {
        let list: ProposalList = get(&operator, "/v1/operator/proposals").await.unwrap();
        list.proposals.into_iter().map(|record| record.proposal).collect()
    };
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "waiting proposal_waits");
    assert_eq!(shown().await, [next().proposal()]);

    let mut forged = evil().proposal();
    forged.name = next().proposal().name;
    let forged = serde_json::to_string(&forged).unwrap();
    server.database().execute("UPDATE proposals SET proposal = ?1", [&forged]).unwrap();
    assert_eq!(shown().await, []);
    let columns = "node_id, at, state, message, from_evidence, base_boot, by_trust, tag, made";
    let out_of_nothing = format!(
        "INSERT INTO proposals (sha256, proposal, {columns}) SELECT x'00', ?1, {columns} FROM proposals"
    );
    assert_eq!(server.database().execute(&out_of_nothing, [&forged]).unwrap(), 1);
    assert_eq!(shown().await, []);

    // Another node's is not this one's, and one from another boot is none.
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "waiting proposal_waits");
    assert_eq!(shown().await, [next().proposal()]);
    server.database().execute("UPDATE proposals SET from_evidence = from_evidence + 1", []).unwrap();
    assert_eq!(shown().await, []);
}

/// The next boot takes shim and loader from what the one before it did, whatever that one's row says by now.
#[tokio::test]
async fn the_base_of_what_runs_is_what_it_was_released_with() {
    let server = Server::start();
    let (anybody, operator, node) = (server.anybody(), server.operator(), enrolled(&server).await);
    let policy = policy_head("web")
        + &trust(LATER, 9)
        + &Software::default().boot()
        + "\n"
        + &Software::version("6.1.0-11").boot();
    node.apply(&operator, &format!("node:{}", node.id), &policy).await.unwrap();
    node.reboot_into(&Software::default());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    assert_eq!(answered(&node.propose(&anybody, &next()).await), "accepted");
    node.reboot_into(&next());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.open_fence();
    let bases = || -> Vec<Option<String>> {
        let database = server.database();
        let mut query = database.prepare("SELECT base_boot FROM proposals ORDER BY id").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let [base] = &bases()[..] else { panic!("{:?}", bases()) };
    server.database().execute("UPDATE proposals SET base_boot = 'another'", []).unwrap();
    assert_eq!(answered(&node.propose(&anybody, &evil()).await), "accepted");
    assert_eq!(bases().last(), Some(base));
}
