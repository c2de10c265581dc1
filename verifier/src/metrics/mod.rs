//! What a server counts and measures, for Prometheus. No label is made of what a peer can choose.
//!
//! Counts are made where something happens; [`gauges`] looks at the rest when somebody asks.

mod gauges;
pub mod listener;

use crate::domain::Records;
use crate::http::app::App;
use crate::limit::ConnectionTable;
use axum::http::StatusCode;
use gauges::Gauges;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::{Outcome, Proposed, Purpose, Verdict};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds for answers: those that don't wait, and long polls.
const ANSWER_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds in seconds from `begin` to a verdict: a nonce has whole seconds, and lives for two minutes.
const EXCHANGE_SECONDS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];

/// A label's value where there is no reason.
const NONE: &str = "none";

/// What is counted and measured.
pub struct Metrics {
    registry: Registry,
    verdicts: IntCounterVec,
    exchanges: Histogram,
    proposals: IntCounterVec,
    answers: HistogramVec,
    statuses: IntCounterVec,
    refusals: IntCounterVec,
    reloaded: IntGauge,
    webhooks: IntCounterVec,
    webhooks_waiting: IntGaugeVec,
    // One scrape at a time.
    gauges: Mutex<Gauges>,
}

impl Metrics {
    /// For a server over these records that was started at `now`, in seconds since 1970.
    pub fn new(records: &Records, now: u64) -> Self {
        let names = Names(Registry::new());
        let transactions = records.transactions();
        names.add(transactions.seconds.clone());
        names.add(transactions.again.clone());
        names.add(transactions.failed.clone());
        names
            .gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.")
            .set(signed(now));
        let made = Self {
            verdicts: names.counters(
                "halfkey_verdicts_total",
                "Verdicts on evidence, by purpose, outcome and reason.",
                &["purpose", "outcome", "reason"],
            ),
            exchanges: names.add(
                Histogram::with_opts(
                    HistogramOpts::new(
                        "halfkey_begin_to_verdict_seconds",
                        "Seconds from begin to the verdict on evidence that the node signed, in whole seconds.",
                    )
                    .buckets(EXCHANGE_SECONDS.to_vec()),
                )
                .expect(VALID),
            ),
            proposals: names.counters(
                "halfkey_proposals_total",
                "Answers to proposals of next boots, by outcome and reason.",
                &["outcome", "reason"],
            ),
            answers: names.add(
                HistogramVec::new(
                    HistogramOpts::new(
                        "halfkey_http_request_seconds",
                        "Seconds from a request's header to its answer, by route.",
                    )
                    .buckets(ANSWER_SECONDS.to_vec()),
                    &["route"],
                )
                .expect(VALID),
            ),
            statuses: names.counters(
                "halfkey_http_responses_total",
                "Answers, by route and HTTP status.",
                &["route", "status"],
            ),
            refusals: names.counters(
                "halfkey_refusals_total",
                "Requests that were refused, by route and reason; rate_limited are those beyond a limit.",
                &["route", "reason"],
            ),
            reloaded: names.gauge(
                "halfkey_last_reload_successful",
                "1 if settings and certificates could be used when they were read last.",
            ),
            webhooks: names.counters(
                "halfkey_webhooks_total",
                "Attempts to deliver messages of webhooks, by endpoint and by what came of them; dropped were messages beyond the queue.",
                &["endpoint", "outcome"],
            ),
            webhooks_waiting: names.gauges(
                "halfkey_webhooks_waiting",
                "Messages of webhooks that are not delivered yet, of all servers.",
                &["endpoint"],
            ),
            gauges: Mutex::new(Gauges::new(&names)),
            registry: names.0,
        };
        made.reloaded(true);
        made
    }

    /// Settings and certificates were read again, and could be used or not.
    pub fn reloaded(&self, usable: bool) {
        self.reloaded.set(i64::from(usable));
    }

    /// So many messages for an endpoint were `delivered`, not taken (`failed`), or `dropped`.
    pub fn webhooks(&self, endpoint: &str, outcome: &str, count: u64) {
        self.webhooks.with_label_values(&[endpoint, outcome]).inc_by(count);
    }

    /// So many messages for an endpoint are not delivered yet.
    pub fn webhooks_waiting(&self, endpoint: &str, count: u64) {
        self.webhooks_waiting.with_label_values(&[endpoint]).set(signed(count));
    }

    /// Evidence was ruled on, so many seconds after `begin` if the node signed it.
    pub fn verdict(&self, purpose: Purpose, verdict: &Verdict, since_begin: Option<u64>) {
        let outcome = Outcome::parse(&verdict.outcome).map_or("other", Outcome::as_str);
        let reason = known(verdict.code.as_deref());
        self.verdicts.with_label_values(&[purpose.as_str(), outcome, reason]).inc();
        if let Some(seconds) = since_begin {
            self.exchanges.observe(seconds as f64);
        }
    }

    /// A proposal was answered.
    pub fn proposal(&self, answer: &Proposed) {
        let outcome = ["accepted", "waiting", "refused"].into_iter().find(|known| *known == answer.outcome);
        let reason = known(answer.code.as_deref());
        self.proposals.with_label_values(&[outcome.unwrap_or("other"), reason]).inc();
    }

    /// A request was answered. `route` is as the router has it, never the path of the request.
    pub fn answered(&self, route: Option<&str>, status: StatusCode, refused: Option<Reason>, took: Duration) {
        let route = route.unwrap_or("other");
        self.answers.with_label_values(&[route]).observe(took.as_secs_f64());
        self.statuses.with_label_values(&[route, status.as_str()]).inc();
        if let Some(reason) = refused {
            self.refusals.with_label_values(&[route, reason.code()]).inc();
        }
    }

    /// The connections of a listener are of interest.
    pub fn watch(&self, listener: &'static str, table: Arc<ConnectionTable>) {
        self.gauges().watch(listener, table);
    }

    /// When a certificate ends, in seconds since 1970.
    pub fn certificate(&self, file: &'static str, not_after: i64) {
        self.gauges().certificate(file, not_after);
    }

    /// All of it, in Prometheus' text format 0.0.4. It waits for no database.
    pub fn render(&self, app: &App) -> String {
        let gauges = self.gauges();
        gauges.look(app);
        let families = self.registry.gather();
        drop(gauges);
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn gauges(&self) -> std::sync::MutexGuard<'_, Gauges> {
        // Numbers alone: each is right by itself.
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reason's code, as this program has it.
fn known(code: Option<&str>) -> &'static str {
    match code {
        None => NONE,
        Some(code) => Reason::from_code(code).map_or("other", Reason::code),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names and labels are of this program.
const VALID: &str = "valid names, each once";

/// Where names are registered.
struct Names(Registry);

impl Names {
    fn add<C: Collector + Clone + 'static>(&self, made: C) -> C {
        self.0.register(Box::new(made.clone())).expect(VALID);
        made
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels).expect(VALID))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help).expect(VALID))
    }
}
