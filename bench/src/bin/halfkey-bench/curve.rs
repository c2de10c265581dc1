//! What a boot costs a server that knows more machines, and one whose audit trail is longer: it should cost the same.

use crate::run::Result;
use crate::service::{self, Storm};
use halfkey_bench::fleet::Fleet;
use halfkey_bench::https::Client;
use halfkey_bench::server::Server;
use halfkey_protocol::wire::operator::AuditEntry;
use halfkey_verifier::domain::audit::chained;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Machines that a server knows.
const SIZES: [usize; 3] = [1_000, 10_000, service::LARGEST];
/// Machines that boot at once.
const STORM: usize = 10_000;
/// Machines that boot at each size, spread over all.
const BOOTING: usize = 1_000;
/// Boots at each size.
const BOOTS: usize = 5_000;
/// Entries of a long audit trail.
const ENTRIES: u64 = 1_000_000;

/// Each size, and then the largest with [`ENTRIES`].
pub struct Curve(Vec<Point>);

struct Point {
    nodes: usize,
    /// Entries of the audit trail that no enrollment made.
    entries: u64,
    per_cpu_s: f64,
    /// The first page of `halfkey nodes`.
    list_ms: f64,
}

/// Enrolls up to so many machines, measures on the way, and has those of [`STORM`], or all if there are fewer, boot at once.
pub async fn measure(largest: usize) -> Result<(Curve, Storm)> {
    let mut sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size < largest).collect();
    sizes.push(largest);
    let at_once = STORM.min(largest);
    let all = service::fleet(largest)?;
    let mut server = Server::start_in_memory()?;
    let (mut points, mut storm, mut enrolled) = (Vec::new(), None, 0);
    for size in sizes {
        eprintln!("enrolling {size} machines ...");
        let fleet = all.first(size);
        fleet
            .enroll_from(enrolled, &server.target(Client::Node)?, &*server.target(Client::Operator)?)
            .await?;
        enrolled = size;
        if size >= at_once && storm.is_none() {
            eprintln!("booting them at once ...");
            storm = Some(service::storm(&server.on_disk(|_| Ok(()))?, &fleet).await?);
        }
        points.push(point(&server.on_disk(|_| Ok(()))?, &fleet, 0).await?);
        server.restart()?;
    }
    points.push(point(&server.on_disk(lengthen)?, &all, ENTRIES).await?);
    Ok((Curve(points), storm.ok_or("our bug: nothing has booted")?))
}

async fn point(server: &Server, fleet: &Fleet, entries: u64) -> Result<Point> {
    let nodes = fleet.machines().len();
    let booting: Vec<_> = fleet.machines().iter().step_by(nodes.div_ceil(BOOTING)).cloned().collect();
    let load = service::booted(server, &booting, BOOTS, false).await?;
    let mut desk = server.target(Client::Operator)?.connect(std::net::Ipv4Addr::LOCALHOST).await?;
    let start = Instant::now();
    let _: Value = desk.get("/v1/operator/nodes").await?;
    let list_ms = start.elapsed().as_secs_f64() * 1000.0;
    Ok(Point { nodes, entries, per_cpu_s: load.per_cpu_s, list_ms })
}

/// Entries that time would bring. None but the last is chained to the one before, which nobody looks at; the next is chained to that.
fn lengthen(database: &Path) -> Result<()> {
    let connection = rusqlite::Connection::open(database)?;
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE those AS SELECT node_id FROM nodes;
         WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ENTRIES})
         INSERT INTO audit (at, actor, action, node_id, detail)
         SELECT 1700000000 + i, 'admin', 'label', those.node_id, 'a machine'
         FROM numbers JOIN those ON those.rowid = i % (SELECT count(*) FROM those) + 1 ORDER BY i;"
    ))?;
    let last = "SELECT seq, at, actor, action, node_id, detail FROM audit ORDER BY seq DESC LIMIT 1";
    let last = connection.query_row(last, [], |row| {
        Ok(AuditEntry {
            seq: row.get::<_, i64>(0)? as u64,
            at: row.get::<_, i64>(1)? as u64,
            actor: row.get(2)?,
            action: row.get(3)?,
            node_id: row.get(4)?,
            detail: row.get(5)?,
        })
    })?;
    connection
        .execute("UPDATE audit SET hash = ?1 WHERE seq = ?2", (chained(&[0; 32], &last), last.seq as i64))?;
    Ok(())
}

impl Curve {
    /// How much more a boot costs where it costs most than where it costs least, in percent.
    pub fn spread(&self) -> f64 {
        let costs = self.0.iter().map(|point| point.per_cpu_s);
        let (least, most) =
            costs.fold((f64::MAX, 0_f64), |(least, most), one| (least.min(one), most.max(one)));
        (most / least - 1.0) * 100.0
    }

    pub fn print(&self) {
        println!(
            "machines it knows   more audit entries   boots per second of its CPU   first page of `halfkey nodes`, ms"
        );
        for Point { nodes, entries, per_cpu_s, list_ms } in &self.0 {
            println!("  {nodes:>15} {entries:>20} {per_cpu_s:>29.0} {list_ms:>38.1}");
        }
        println!("  the most over the least: {:.0} %", self.spread());
    }

    /// A row of `dist/bench.json`.
    pub fn json(&self) -> Value {
        let row = |point: &Point| {
            json!({
                "nodes": point.nodes,
                "audit_entries": point.entries,
                "attest_https_sqlite_per_cpu_s": point.per_cpu_s.round(),
                "list_ms": (point.list_ms * 10.0).round() / 10.0,
            })
        };
        self.0.iter().map(row).collect()
    }
}
