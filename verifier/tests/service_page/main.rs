//! "From one server to three" of docs/service.md, each of its commands as it stands there, with PostgreSQL, HAProxy and three servers:
//! what an operator gets who follows it. `on` and `stand-in` beside this file are what one host has instead of six.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod page;

use common::node::{Node, said};
use common::{client, until};
use page::{Hosts, SERVERS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_behind_a_balancer_as_the_page_says() {
    let hosts = Hosts::new("From one server to three");
    let parts = [
        "Where it begins",
        "The database",
        "The records",
        "The other servers",
        "The load balancer",
        "An upgrade",
    ];
    assert_eq!(hosts.titles(), parts);

    hosts.follow(parts[0]);
    until("the first server listens", async || hosts.log(SERVERS[0]).contains("ready")).await;
    let state = hosts.state();
    let bundle = state.join("operator-alice.bundle");
    let (anybody, operator) =
        (client(&hosts.first_url(), &state, None), client(&hosts.first_url(), &state, Some(&bundle)));
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "web1").await;
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");

    parts[1..5].iter().for_each(|part| hosts.follow(part));
    until("the balancer takes all for ready", async || hosts.up() == 3).await;
    // Each of them knows what the first had in SQLite.
    let (anybody, operator) =
        (client(&hosts.url(), &state, None), client(&hosts.url(), &state, Some(&bundle)));
    for server in SERVERS {
        hosts.only(server);
        node.reboot();
        assert_eq!(said(&node.boot(&anybody).await), "released", "{server}");
    }

    // One is drained, one is killed.
    hosts.all();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| hosts.follow(parts[5]));
            tokio::runtime::Handle::current().block_on(async {
                until("it drains", async || hosts.log(SERVERS[1]).contains("not ready any more")).await;
                assert_eq!(said(&node.boot(&anybody).await), "released", "one drains");
                hosts.kill(2);
                for _ in 0..3 {
                    node.reboot();
                    assert_eq!(said(&node.boot(&anybody).await), "released", "one drains, one is gone");
                }
                until("it notices", async || hosts.up() == 1).await;
                assert_eq!(said(&node.boot(&anybody).await), "released", "one is left");
            });
            upgrade.join().unwrap();
        });
    });
    assert!(hosts.log(SERVERS[1]).contains("stopped"));
    hosts.on(SERVERS[2], "systemctl start halfkey-verifier");
    until("all are back", async || hosts.up() == 3).await;

    // What one is told counts at the others at once.
    for (told, others) in [(0, [1, 2]), (1, [2, 0]), (2, [0, 1])] {
        for (what, comes_to) in [("/revoke", "denied revoked"), ("/restore", "released")] {
            hosts.only(SERVERS[told]);
            node.decide(&operator, what, "so").await.unwrap();
            for other in others {
                hosts.only(SERVERS[other]);
                assert_eq!(said(&node.boot(&anybody).await), comes_to, "{what}: {}", SERVERS[other]);
            }
        }
    }
}
