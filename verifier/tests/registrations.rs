//! Registrations: what one source, or one row, takes from the others.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::node::Node;
use common::{Server, get, post, refused};
use halfkey_protocol::wire::operator::NodeList;
use halfkey_protocol::wire::{Activated, Registered};
use halfkey_protocol::{NodeId, Reason};

/// A stranger with one software TPM, used once.
#[tokio::test]
async fn one_answer_does_not_pay_for_more_challenges() {
    const EACH: usize = 5;
    let server = Server::with_settings(&format!("registrations_per_source = {EACH}\n"));
    let (anybody, node) = (server.anybody(), Node::new());
    let registered: Registered = post(&anybody, "/v1/register", &node.register).await.unwrap();
    let answer = node.activation(&registered, [1; 32]);
    let mut challenges = 0;
    loop {
        let _: Activated = post(&anybody, "/v1/activate", &answer).await.unwrap();
        match post::<Registered>(&anybody, "/v1/register", &node.register).await {
            Ok(_) => challenges += 1,
            Err(problem) => break assert_eq!(refused::<()>(Err(problem)), Reason::RateLimited),
        }
        assert!(challenges <= EACH + 1, "one answer pays for any number of challenges");
    }
    // Its own registration is still what it is.
    let list: NodeList = get(&server.operator(), "/v1/operator/nodes").await.unwrap();
    assert_eq!(list.nodes.len(), 1);
}

#[tokio::test]
async fn one_row_that_can_t_be_read_makes_room() {
    let tenant = tenant();
    for change in [
        "last_seen = 'x'",
        "last_seen = x'ff'",
        "last_seen = -1",
        "source = 'x'",
        "source = x'ff'",
        "source = CAST(x'ff' AS TEXT)",
        "source = CAST('127.0.0.1' AS BLOB)",
        "node_id = x'ff'",
    ] {
        let server = Server::with_settings("unenrolled = 3\n");
        let anybody = server.anybody();
        for _ in 0..3 {
            SoftNode::new(&tenant).register(&anybody).await.unwrap();
        }
        let rows = || -> i64 {
            let all = "SELECT count(*) FROM registrations";
            server.database().query_row(all, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(rows(), 3, "before {change}");
        let first = "WHERE rowid = (SELECT min(rowid) FROM registrations)";
        assert_eq!(
            server.database().execute(&format!("UPDATE registrations SET {change} {first}"), []).unwrap(),
            1
        );
        for _ in 0..3 {
            SoftNode::new(&tenant).register(&anybody).await.unwrap();
            assert_eq!(rows(), 3, "{change}");
        }
    }
}

#[tokio::test]
async fn a_row_of_nobody_does_not_end_the_list() {
    let server = Server::start();
    let node = Node::new();
    node.register(&server.anybody()).await.unwrap();
    let database = server.database();
    let columns =
        "ak_name, srk_name, label, source, challenge, issued, registered_at, last_seen, kept, register";
    let copy = format!(
        "INSERT OR REPLACE INTO registrations (node_id, {columns}) SELECT ?1, {columns} FROM registrations WHERE node_id = ?2"
    );
    let own = node.id.to_string();
    let others: Vec<String> = (0..1200u16)
        .map(|number| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            NodeId(id).to_string()
        })
        .collect();
    for id in &others {
        database.execute(&copy, [id, &own]).unwrap();
    }
    // It would be the last line of the first page, and what the next one is asked for by.
    database.execute(&copy, [&format!("{} ", others[998]), &own]).unwrap();
    let mut seen = 0;
    let mut after = String::new();
    let operator = server.operator();
    loop {
        let page: NodeList = get(&operator, &format!("/v1/operator/nodes{after}")).await.unwrap();
        seen += page.nodes.len();
        let Some(next) = page.next else { break };
        assert!(NodeId::parse(&next).is_some(), "{next:?}");
        after = format!("?after={next}");
    }
    assert_eq!(seen, 1201);
}
