//! A row of one node with a column that can't be read, for each column of each table: the other nodes go on, and the node itself is
//! revoked, held, registered and enrolled as ever.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, get, path};
use halfkey_protocol::wire::operator::{EvidenceList, NodeList};
use halfkey_protocol::wire::policies::{GroupList, PolicyList, ProposalList};
use halfkey_testkit::software::lax;
use halfkey_verifier::client::Client;

/// What is a node's own, but what says whose a row is: without it, it is another row.
const TABLES: [&str; 6] = ["nodes", "enrollments", "boots", "proposals", "registrations", "evidence"];

/// Every column of a table, but those.
fn columns(database: &rusqlite::Connection, table: &str) -> Vec<String> {
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE name NOT IN ('id', 'node_id', 'enrollment_id')";
    let mut query = database.prepare(sql).unwrap();
    query.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

async fn says(operator: &Client, node: &Node, what: &str) {
    node.decide(operator, what, "test").await.unwrap();
}

#[tokio::test]
async fn one_that_can_t_be_read_stops_nobody() {
    let server = Server::with_settings("evidence_per_minute = 100000\nregistrations_per_source = 100000\n");
    let (anybody, operator) = (server.anybody(), server.operator());
    let (other, mut node) = (enrolled(&server).await, Node::new());
    node.tenant = other.tenant.clone();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    other.group(&operator, Some("web")).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    other.apply(&operator, "group:web", &lax()).await.unwrap();
    let database = server.database();
    // Else some could not be NULL. The server sees another schema from then on.
    database
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table';
             PRAGMA schema_version = 1000;",
        )
        .unwrap();
    drop(database);
    let columns = TABLES.map(|table| (table, columns(&server.database(), table)));
    let mut done = 0;
    for (table, columns) in columns {
        for (column, value) in
            columns.iter().flat_map(|column| [(column, "x'ff'"), (column, "'x'"), (column, "NULL")])
        {
            let what = format!("{table}.{column} = {value}");
            // That can be read, and says that there is another AK: refused, and loud.
            if what == "registrations.ak_name = x'ff'" {
                continue;
            }
            // One of each: a boot that waits, and a proposal.
            server
                .database()
                .execute_batch(&format!(
                    "INSERT OR REPLACE INTO boots (node_id, ticket, evidence_id, code, message, approvable, findings, since, expires)
                         VALUES ('{0}', 'a ticket', 1, 'no_policy', 'x', 1, '[]', 1, 9999999999);
                     INSERT OR REPLACE INTO proposals (node_id, sha256, at, state, message, from_evidence, by_trust, proposal)
                         VALUES ('{0}', zeroblob(32), 1, 'waiting', 'x', 1, 0, '{{}}');",
                    node.id
                ))
                .unwrap();
            let damage =
                format!("UPDATE OR IGNORE {table} SET {column} = {value} WHERE node_id = '{}'", node.id);
            server.database().execute(&damage, []).unwrap();

            get::<NodeList>(&operator, "/v1/operator/nodes").await.expect(&what);
            get::<GroupList>(&operator, "/v1/operator/groups").await.expect(&what);
            get::<PolicyList>(&operator, "/v1/operator/policies").await.expect(&what);
            get::<ProposalList>(&operator, "/v1/operator/proposals?all=true").await.expect(&what);
            assert_eq!(said(&other.boot(&anybody).await), "released", "{what}");
            other.reboot();
            other.apply(&operator, "group:web", &lax()).await.expect(&what);
            for decision in ["/hold", "/release", "/revoke", "/restore"] {
                says(&operator, &node, decision).await;
            }
            get::<EvidenceList>(&operator, &path(other.id, "/evidence")).await.expect(&what);
            // A new enrollment mends it.
            node.register(&anybody).await.expect(&what);
            node.enroll(&anybody, &operator, &format!("after {done}")).await;
            node.reboot();
            assert_eq!(said(&node.boot(&anybody).await), "released", "{what}");
            node.reboot();
            done += 1;
        }
    }
    assert!(done > 150, "{done}");
}
