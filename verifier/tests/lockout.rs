//! One host that takes what the server has: its places, its memory, its tables. The others still boot.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::node::said;
use common::siege::{ALL, CROWD, Hostile, QUARTER, all_boot, besiege, fleet};
use common::{Server, get, post, refused, until};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{NodeList, ServerInfo};
use halfkey_protocol::wire::{Wait, Waited};
use tokio::task::JoinSet;

/// One host with some addresses holds more connections than there are places, in every way there is.
#[tokio::test]
async fn a_fleet_boots_beside_a_besieged_server() {
    halfkey_verifier::serve::raise_open_files();
    let server = Server::with_settings(QUARTER);
    let fleet = fleet(&server, &server.url, 40).await;
    let hostile = besiege(&server, &ALL, CROWD, 6);
    hostile.stands().await;
    all_boot(&server, &fleet).await;
    let operator = server.operator();
    assert!(get::<ServerInfo>(&operator, "/v1/operator/info").await.is_ok());
    drop(hostile);
    assert!(!server.log().contains("panicked"));
}

/// 32 connections that announce large bodies, send a part and stop: once they held all memory for bodies.
#[tokio::test]
async fn a_fleet_boots_beside_bodies_that_never_end() {
    halfkey_verifier::serve::raise_open_files();
    let server = Server::start();
    let fleet = fleet(&server, &server.url, 20).await;
    let hostile = besiege(&server, &[Hostile::Announce], 32, 32);
    hostile.stands().await;
    all_boot(&server, &fleet).await;
    drop(hostile);
}

/// A site that comes back after a power cut, behind one address.
#[tokio::test]
async fn a_fleet_behind_one_address_boots_in_a_storm() {
    halfkey_verifier::serve::raise_open_files();
    let server = Server::with_settings("registrations_per_source = 600\n");
    let fleet = fleet(&server, &server.url, 300).await;
    all_boot(&server, &fleet).await;
}

/// A rack of new machines, all at once, behind one address.
#[tokio::test]
async fn a_rack_registers_behind_one_address() {
    let server = Server::start();
    let tenant = tenant();
    let mut rack = JoinSet::new();
    for _ in 0..200 {
        let (node, client) = (SoftNode::new(&tenant), server.anybody());
        rack.spawn(async move { node.register(&client).await });
    }
    while let Some(registered) = rack.join_next().await {
        registered.unwrap().expect("within the limits");
    }
}

/// After a power cut of a site that nobody has a policy for: each machine holds a request open.
#[tokio::test]
async fn a_site_waits_for_its_operator_behind_one_address() {
    let mut server = Server::start();
    let (anybody, operator, tenant) = (server.anybody(), server.operator(), tenant());
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let node = SoftNode::new(&tenant);
        node.enroll_only(&anybody, &operator).await;
        let verdict = node.boot(&anybody).await.unwrap();
        assert_eq!(said(&verdict), "pending no_policy");
        waiting.push(Wait { node_id: node.node.id.to_string(), ticket: verdict.ticket });
    }
    let mut waits = JoinSet::new();
    for wait in waiting.clone() {
        let client = server.anybody();
        waits.spawn(async move { post::<Waited>(&client, "/v1/wait", &wait).await });
    }
    // Whoever knows a node's id can wait in its name, but not take the place of one who knows the boot.
    let wait = Wait { ticket: Some("00".repeat(16)), ..waiting[0].clone() };
    for _ in 0..8 {
        assert!(post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap().changed, "there is no such boot");
    }
    until("all wait", async || server.log().matches("over=false").count() >= 100).await;
    server.stop();
    while let Some(waited) = waits.join_next().await {
        // Until the server was stopped, or, on a slow machine, as long as a request may wait.
        assert!(!waited.unwrap().unwrap().changed, "nothing has happened");
    }
}

/// However many register, a page is a page, and a name is looked up at the server.
#[tokio::test]
async fn lists_have_pages_and_names_are_looked_up() {
    let server = Server::start();
    let (anybody, operator, tenant) = (server.anybody(), server.operator(), tenant());
    let mine = SoftNode::new(&tenant);
    mine.enroll(&anybody, &operator).await;
    for _ in 0..24 {
        SoftNode::new(&tenant).register(&anybody).await.unwrap();
    }
    let list = async |query: &str| -> NodeList {
        get(&operator, &format!("/v1/operator/nodes{query}")).await.unwrap()
    };
    let all = list("").await;
    assert_eq!((all.nodes.len(), all.next), (25, None));
    let (mut ids, mut query) = (Vec::new(), "?limit=7".to_owned());
    loop {
        let page = list(&query).await;
        assert!(page.nodes.len() <= 7);
        ids.extend(page.nodes.into_iter().map(|node| node.id));
        match page.next {
            Some(next) => query = format!("?limit=7&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, all.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>());
    assert!(ids.is_sorted());

    assert_eq!(list("?name=soft").await.nodes.len(), 24, "the tenant called one of them web1");
    let some = list("?name=soft&limit=5").await;
    // The one that the tenant calls web1 called itself soft as well: it is left out of the five that are looked at.
    assert!((4..=5).contains(&some.nodes.len()) && some.next.is_some());
    let whole = list(&format!("?name={}", mine.node.id)).await;
    assert_eq!(whole.nodes.iter().map(|node| &node.id[..]).collect::<Vec<_>>(), [mine.node.id.to_string()]);
    let mut stranger = SoftNode::new(&tenant);
    stranger.node.register.label = "web1".to_owned();
    stranger.register(&anybody).await.unwrap();
    let both = list("?name=web1").await.nodes;
    assert_eq!(both.len(), 2, "it can call itself so");
    assert_eq!(both[0].id, mine.node.id.to_string(), "the tenant's own comes first");
    let malformed = get::<NodeList>(&operator, "/v1/operator/nodes?after=x").await;
    assert_eq!(refused(malformed), Reason::Malformed);
}
