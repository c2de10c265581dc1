//! A server under load: what a boot costs it, over SQLite and over PostgreSQL, and how it stands ten thousand at once.

use crate::curve::{self, Curve};
use crate::run::Result;
use halfkey_bench::cpu;
use halfkey_bench::fleet::{Fleet, Machine};
use halfkey_bench::https::Client;
use halfkey_bench::load::{self, Pace, Plan, Report};
use halfkey_bench::server::{Database, Server};
use halfkey_verifier::keys::fill_random;
use halfkey_verifier::serve::raise_open_files;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Machines that boot over and over.
const MACHINES: usize = 64;
/// Boots at the same time.
const CONNECTIONS: usize = 32;
/// Boots that are not counted: statements are prepared, policies parsed.
const FIRST: usize = 500;
/// Boots on warm connections.
const WARM: usize = 10_000;
/// Boots with a connection each.
const COLD: usize = 5_000;
/// Machines that a server knows, at most.
pub const LARGEST: usize = 100_000;
/// Starts of the server.
const STARTS: usize = 9;

/// Boots, and what they cost.
pub struct Load {
    report: Report,
    /// Of the server, per second of its CPU time.
    pub per_cpu_s: f64,
    /// Seconds of the database server's CPU time per second of the server's.
    database: f64,
}

/// What was measured.
pub struct Figures {
    sqlite: Load,
    cold: Load,
    postgres: Load,
    start_ms: f64,
    idle_kib: u64,
    curve: Curve,
    storm: Storm,
}

impl Figures {
    /// Boots on warm connections over SQLite, per second of the server's CPU time.
    pub fn sqlite_per_cpu_s(&self) -> f64 {
        self.sqlite.per_cpu_s
    }
}

/// Machines after a power cut.
pub struct Storm {
    machines: usize,
    report: Report,
    peak_kib: u64,
    cpu: Duration,
}

/// Measures all of it, with so many machines at most.
pub fn measure(largest: usize) -> Result<Figures> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        eprintln!("loading a server over SQLite ...");
        let mut server = Server::start(Database::Sqlite)?;
        let fleet = enrolled(&server, MACHINES).await?;
        let sqlite = loaded(&server, &fleet, WARM, false).await?;
        let cold = loaded(&server, &fleet, COLD, true).await?;
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            starts.push(server.restart()?.as_secs_f64() * 1000.0);
        }
        let idle_kib = cpu::memory(server.pid()?, "VmRSS")?;
        drop(server);

        eprintln!("loading a server over PostgreSQL ...");
        let server = Server::start(Database::Postgres)?;
        let fleet = enrolled(&server, MACHINES).await?;
        let postgres = loaded(&server, &fleet, WARM, false).await?;
        drop(server);

        let (curve, storm) = curve::measure(largest).await?;
        Ok(Figures { sqlite, cold, postgres, start_ms: cpu::median(&mut starts), idle_kib, curve, storm })
    })
}

async fn enrolled(server: &Server, machines: usize) -> Result<Fleet> {
    let fleet = fleet(machines)?;
    fleet.enroll(&server.target(Client::Node)?, &*server.target(Client::Operator)?).await?;
    Ok(fleet)
}

/// New machines.
pub fn fleet(machines: usize) -> Result<Fleet> {
    let mut seed = [0; 32];
    fill_random(&mut seed).map_err(|e| e.to_string())?;
    Fleet::new(&seed, machines)
}

async fn loaded(server: &Server, fleet: &Fleet, boots: usize, cold: bool) -> Result<Load> {
    booted(server, fleet.machines(), boots, cold).await
}

/// Boots of these machines, the first ones not counted.
pub async fn booted(server: &Server, machines: &[Arc<Machine>], boots: usize, cold: bool) -> Result<Load> {
    let target = server.target(Client::Node)?;
    let plan = Plan { boots, connections: CONNECTIONS, cold, pace: Pace::Closed, sources: 8 };
    load::run(&target, machines, Plan { boots: FIRST, ..plan }).await?.require_released()?;
    let before = server.cpu()?;
    let report = load::run(&target, machines, plan).await?;
    let after = server.cpu()?;
    report.require_released()?;
    let spent = (after.0 - before.0).as_secs_f64();
    let database = (after.1 - before.1).as_secs_f64() / spent;
    Ok(Load { per_cpu_s: report.released as f64 / spent, database, report })
}

/// All of a fleet boot at once; its server has just been started, so that its memory is that of the storm.
pub async fn storm(server: &Server, fleet: &Fleet) -> Result<Storm> {
    let machines = fleet.machines().len();
    let before = server.cpu()?.0;
    let report = load::storm(&server.target(Client::Node)?, fleet).await?;
    report.require_released()?;
    let cpu = server.cpu()?.0 - before;
    let peak_kib = cpu::memory(server.pid()?, "VmHWM")?;
    let sql = "SELECT count(*), count(DISTINCT node_id) FROM evidence
               WHERE purpose = 'boot' AND outcome = 'released'";
    let count = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let found = rusqlite::Connection::open(server.file())?.query_row(sql, [], count)?;
    if found != (machines as i64, machines as i64) {
        let (releases, released) = found;
        return Err(format!(
            "expected one release for each of {machines} machines, found {releases} for {released}"
        )
        .into());
    }
    Ok(Storm { machines, report, peak_kib, cpu })
}

fn ms(report: &Report, part: f64) -> f64 {
    (report.percentile(part).as_secs_f64() * 10_000.0).round() / 10.0
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

/// MiB.
fn mb(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

/// `limit` is what the parts of an attestation come to, per second of CPU time.
pub fn print(figures: &Figures, limit: f64) {
    println!("a server under load, {CONNECTIONS} at a time        per second of its CPU   p50 ms   p99 ms");
    let Figures { sqlite, cold, postgres, curve, storm, .. } = figures;
    for (name, load) in [
        ("SQLite, warm connections", sqlite),
        ("SQLite, a new TLS connection each", cold),
        ("PostgreSQL, warm connections", postgres),
    ] {
        let (p50, p99) = (ms(&load.report, 0.5), ms(&load.report, 0.99));
        println!("  {name:<42} {:>23.0} {p50:>8.1} {p99:>8.1}", load.per_cpu_s);
    }
    println!("  PostgreSQL's own CPU, of the server's: {:.2}", postgres.database);
    println!("  the parts alone {limit:>50.0}   ratio {:.2}", sqlite.per_cpu_s / limit);
    println!(
        "{} machines at once: {:.1} s, p50 {:.1} s, p99 {:.1} s; {:.1} s of the server's CPU, {:.0} MiB",
        storm.machines,
        seconds(storm.report.wall),
        seconds(storm.report.percentile(0.5)),
        seconds(storm.report.percentile(0.99)),
        seconds(storm.cpu),
        mb(storm.peak_kib)
    );
    println!(
        "the server listens after {:.0} ms and has {:.1} MiB then",
        figures.start_ms,
        mb(figures.idle_kib)
    );
    curve.print();
}

/// The rows of `dist/bench.json`.
pub fn json(figures: &Figures, limit: f64) -> serde_json::Map<String, serde_json::Value> {
    let Figures { sqlite, cold, postgres, storm, .. } = figures;
    let storm_row = format!("storm_{}_s", storm.machines);
    let rows = [
        ("attest_https_sqlite_per_cpu_s", json!(sqlite.per_cpu_s.round())),
        ("attest_https_sqlite_p50_ms", json!(ms(&sqlite.report, 0.5))),
        ("attest_https_sqlite_p99_ms", json!(ms(&sqlite.report, 0.99))),
        ("attest_https_postgres_per_cpu_s", json!(postgres.per_cpu_s.round())),
        ("attest_https_postgres_database_cpu", json!((postgres.database * 100.0).round() / 100.0)),
        ("cold_exchange_per_cpu_s", json!(cold.per_cpu_s.round())),
        ("limit_per_cpu_s", json!(limit.round())),
        ("limit_ratio", json!((sqlite.per_cpu_s / limit * 100.0).round() / 100.0)),
        (storm_row.as_str(), json!(seconds(storm.report.wall))),
        ("storm_p50_s", json!(seconds(storm.report.percentile(0.5)))),
        ("storm_p99_s", json!(seconds(storm.report.percentile(0.99)))),
        ("storm_server_cpu_s", json!(seconds(storm.cpu))),
        ("storm_server_mb", json!(mb(storm.peak_kib))),
        ("verifier_start_ms", json!(figures.start_ms.round())),
        ("verifier_idle_rss_mb", json!(mb(figures.idle_kib))),
    ];
    let curve =
        [("curve", figures.curve.json()), ("curve_spread_percent", json!(figures.curve.spread().round()))];
    rows.into_iter().chain(curve).map(|(name, value)| (name.to_owned(), value)).collect()
}
