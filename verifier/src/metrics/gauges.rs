//! What is looked at when somebody asks: how full everything is, and where the server stands.

use super::{Names, signed};
use crate::http::app::App;
use crate::limit::ConnectionTable;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};
use std::sync::Arc;

/// All of it.
pub struct Gauges {
    tables: Vec<(&'static str, Arc<ConnectionTable>)>,
    build: IntGaugeVec,
    connections: IntGaugeVec,
    connection_places: IntGaugeVec,
    turned_away: IntCounterVec,
    pushed_out: IntCounterVec,
    waiting: IntGaugeVec,
    waiting_places: IntGaugeVec,
    body_memory: IntGaugeVec,
    body_memory_limit: IntGaugeVec,
    database_calls: IntGauge,
    database_connections: IntGaugeVec,
    database_connections_limit: IntGaugeVec,
    database_waiting: IntGaugeVec,
    certificates: IntGaugeVec,
    document: IntGauge,
    entry: IntGauge,
    rolled_back: IntGauge,
    stopping: IntGauge,
}

impl Gauges {
    pub(super) fn new(names: &Names) -> Self {
        Self {
            tables: Vec::new(),
            build: names.gauges(
                "halfkey_build_info",
                "1, with the version of the program, its role and its kind of database.",
                &["version", "role", "database"],
            ),
            connections: names.gauges(
                "halfkey_connections",
                "Open connections, by listener and by what the peer has proved.",
                &["listener", "kind"],
            ),
            connection_places: names.gauges(
                "halfkey_connection_places",
                "Most connections of a listener.",
                &["listener"],
            ),
            turned_away: names.counters(
                "halfkey_connections_turned_away_total",
                "Connections for which there was no place.",
                &["listener"],
            ),
            pushed_out: names.counters(
                "halfkey_connections_pushed_out_total",
                "Connections that were closed as others needed their place.",
                &["listener"],
            ),
            waiting: names.gauges(
                "halfkey_waiting_requests",
                "Requests that are held open until something happens, by what who waits has shown.",
                &["kind"],
            ),
            waiting_places: names.gauges(
                "halfkey_waiting_places",
                "Most requests that are held open.",
                &["kind"],
            ),
            body_memory: names.gauges(
                "halfkey_body_memory_bytes",
                "Memory of bodies that are not complete or not answered.",
                &["of"],
            ),
            body_memory_limit: names.gauges(
                "halfkey_body_memory_limit_bytes",
                "Most memory of bodies.",
                &["of"],
            ),
            database_calls: names
                .gauge("halfkey_database_calls", "Questions to the database that are not answered yet."),
            database_connections: names.gauges(
                "halfkey_database_connections",
                "Connections to PostgreSQL, by kind of transaction and state.",
                &["kind", "state"],
            ),
            database_connections_limit: names.gauges(
                "halfkey_database_connections_limit",
                "Most connections to PostgreSQL.",
                &["kind"],
            ),
            database_waiting: names.gauges(
                "halfkey_database_connection_waiters",
                "Transactions that wait for a connection to PostgreSQL.",
                &["kind"],
            ),
            certificates: names.gauges(
                "halfkey_certificate_not_after_seconds",
                "End of a certificate, in seconds since 1970.",
                &["file"],
            ),
            document: names
                .gauge("halfkey_sequence_document", "Number of the newest signed document that was read."),
            entry: names.gauge(
                "halfkey_sequence_audit_entry",
                "The entry of the audit trail that the state file names; 0 without one.",
            ),
            rolled_back: names.gauge(
                "halfkey_rolled_back",
                "1 while nothing is served, as the database is not the one that was answered with.",
            ),
            stopping: names.gauge("halfkey_stopping", "1 once the server was told to stop."),
        }
    }

    pub(super) fn watch(&mut self, listener: &'static str, table: Arc<ConnectionTable>) {
        self.tables.push((listener, table));
    }

    pub(super) fn certificate(&self, file: &'static str, not_after: i64) {
        self.certificates.with_label_values(&[file]).set(not_after);
    }

    /// Takes everything as it is now.
    pub(super) fn look(&self, app: &App) {
        let database = if app.config().database.is_some() { "postgres" } else { "sqlite" };
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION"), app.role_name(), database]).set(1);
        for (listener, table) in &self.tables {
            let occupancy = table.occupancy();
            for (kind, taken) in ["stranger", "node", "client"].into_iter().zip(occupancy.taken) {
                self.connections.with_label_values(&[*listener, kind]).set(taken as i64);
            }
            self.connection_places.with_label_values(&[listener]).set(occupancy.slots as i64);
            count(&self.turned_away, listener, occupancy.turned_away);
            count(&self.pushed_out, listener, occupancy.pushed_out);
        }
        let waiting = app.long_polls.waiting();
        for (at, kind) in ["id", "boot", "audit"].into_iter().enumerate() {
            self.waiting.with_label_values(&[kind]).set(waiting.taken[at] as i64);
            self.waiting_places.with_label_values(&[kind]).set(waiting.places[at] as i64);
        }
        for (of, pool) in [("anybody", &app.bodies), ("clients", &app.client_bodies)] {
            let (used, all) = pool.usage();
            self.body_memory.with_label_values(&[of]).set(used as i64);
            self.body_memory_limit.with_label_values(&[of]).set(all as i64);
        }
        self.database_calls.set(app.db.calls() as i64);
        let records = app.db.records();
        for pool in records.pools() {
            let busy = pool.open.saturating_sub(pool.idle);
            for (state, connections) in [("busy", busy), ("idle", pool.idle)] {
                self.database_connections.with_label_values(&[pool.kind, state]).set(connections as i64);
            }
            self.database_connections_limit.with_label_values(&[pool.kind]).set(pool.most as i64);
            self.database_waiting.with_label_values(&[pool.kind]).set(pool.waiting as i64);
        }
        // At a moment when it changes, what was before is as good.
        if let Some(standing) = records.standing() {
            self.document.set(signed(standing.document));
            self.entry.set(signed(standing.entry));
            self.rolled_back.set(i64::from(standing.in_trouble));
        }
        self.stopping.set(i64::from(app.is_stopping()));
    }
}

/// What is counted elsewhere.
fn count(counter: &IntCounterVec, listener: &str, so_far: u64) {
    let counter = counter.with_label_values(&[listener]);
    counter.inc_by(so_far.saturating_sub(counter.get()));
}
