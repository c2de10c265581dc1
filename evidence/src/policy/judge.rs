//! A policy against a boot.

use super::{Finding, Policy};
use crate::eventlog::ExplainedLog;
use serde::Serialize;

/// What the node says besides, none of it proven by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// `/proc/cmdline`
    pub command_line: Option<&'a [u8]>,
}

/// The result of [`evaluate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Name of the `[[boot]]` that matched.
    pub boot: Option<String>,
    /// What is against the boot: none, and it is accepted.
    pub findings: Vec<Finding>,
}

impl Evaluation {
    /// Whether the boot is what the policy allows.
    pub fn accepted(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Every event of a boot, and the rule that accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Name of the `[[boot]]` that matched, or that fits best.
    pub boot: Option<String>,
    /// Whether it matched.
    pub accepted: bool,
    /// The events of the firmware's log, then those of systemd's, in order.
    pub events: Vec<ExplainedEvent>,
    /// What is against the boot; those about events are also with the events.
    pub findings: Vec<Finding>,
}

/// One event of an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedEvent {
    /// Which PCR.
    pub pcr: u32,
    /// Number in the firmware's log; none for what systemd measured later.
    pub event: Option<u32>,
    /// What it is, for people.
    pub what: String,
    /// `verified`, `opaque` or `informational`.
    pub standing: &'static str,
    /// `sha256:<hex>`; empty if it extends nothing.
    pub digest: String,
    /// The rule that accepted it, `ignored` or `informational`; none if there is a finding.
    pub rule: Option<String>,
    /// Why it is not accepted.
    pub finding: Option<Finding>,
}

/// Judges a boot.
pub fn evaluate(_policy: &Policy, _log: &ExplainedLog, _claims: &Claims<'_>) -> Evaluation {
    Evaluation { boot: None, findings: vec![unfinished()] }
}

/// Judges a boot, and says of every event why.
pub fn explain(_policy: &Policy, _log: &ExplainedLog, _claims: &Claims<'_>) -> Explanation {
    Explanation { boot: None, accepted: false, events: Vec::new(), findings: vec![unfinished()] }
}

pub(super) fn unfinished() -> Finding {
    Finding {
        pcr: None,
        event: None,
        what: "policy".to_owned(),
        rule: "no rule".to_owned(),
        expected: "a build that can judge".to_owned(),
        found: "one that can't yet".to_owned(),
    }
}
