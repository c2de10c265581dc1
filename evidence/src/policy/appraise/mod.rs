//! A policy against a boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`survey`] | firmware, Secure Boot and what is built in: the same for each `[[boot]]` |
//! | [`secure_boot`] | PCR 7 |
//! | [`boot`] | images, initrd, sections, command line of one `[[boot]]` |
//! | [`context`] | what every part looks at |
//! | [`sequence`] | events that must come in an order |
//! | [`recorder`] | who takes down what is accepted and what is refused |

mod boot;
mod context;
pub(super) mod recorder;
pub(super) mod secure_boot;
mod sequence;
pub(super) mod survey;

pub use context::Claims;
pub(super) use context::Context;

use super::parsed::Policy;
use super::rules::Origin;
use crate::eventlog::{ExplainedLog, Standing};
use crate::quote::hex;
use boot::Appraiser;
use halfkey_protocol::wire::policies::Finding;
use recorder::{Count, EventIndex, Record};
use serde::Serialize;
use std::collections::HashMap;
use survey::{Survey, survey};

/// The result of [`evaluate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// The `[[boot]]` that matched.
    pub boot: Option<Matched>,
    /// What is against the boot: none, and it is accepted.
    pub findings: Vec<Finding>,
}

/// Which `[[boot]]` of a policy a boot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Its name, for people.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Evaluation {
    /// Whether the boot is what the policy allows: it is one of its boots, and nothing is against it.
    pub fn accepted(&self) -> bool {
        self.boot.is_some() && self.findings.is_empty()
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

/// Appraises a boot.
///
/// An accepted boot costs no text and, once its Secure Boot variables have been seen, no hashing of more than a command line.
pub fn evaluate(policy: &Policy, log: &ExplainedLog<'_>, claims: &Claims<'_>) -> Evaluation {
    let context = Context::new(&policy.compiled, log);
    let mut refused = Count::default();
    let surveyed = survey(&context, claims, &mut refused);
    if refused.0 == 0
        && let Some(index) =
            (0..context.rules.boots.len()).find(|index| context.refused(&surveyed, *index) == 0)
    {
        let boot = &context.policy.document.boots[index];
        let matched = Matched { name: boot.name.clone(), origin: boot.origin };
        return Evaluation { boot: Some(matched), findings: Vec::new() };
    }
    let (_, record) = record(&context, claims);
    Evaluation { boot: None, findings: record.findings.into_iter().map(|(_, finding)| finding).collect() }
}

/// Appraises a boot, and says of every event why.
pub fn explain(policy: &Policy, log: &ExplainedLog<'_>, claims: &Claims<'_>) -> Explanation {
    let context = Context::new(&policy.compiled, log);
    let (boot, record) = record(&context, claims);
    let bank = log.bank().name();
    let findings: HashMap<EventIndex, &Finding> =
        record.findings.iter().filter_map(|(index, finding)| Some(((*index)?, finding))).collect();
    let rules: HashMap<EventIndex, &String> =
        record.accepted.iter().map(|(index, rule)| (*index, rule)).collect();
    let outcome = |index: EventIndex| match findings.get(&index) {
        Some(finding) => (None, Some(Finding::clone(finding))),
        None => (rules.get(&index).map(|rule| String::clone(rule)), None),
    };
    let firmware = log.events().iter().enumerate().map(|(index, event)| {
        let (rule, finding) = outcome(EventIndex::Firmware(index));
        let standing = event.standing();
        ExplainedEvent {
            pcr: event.pcr,
            event: Some(event.number),
            what: event.what(),
            standing: name(standing),
            digest: if event.digest.is_empty() {
                String::new()
            } else {
                format!("{bank}:{}", hex(event.digest))
            },
            rule: if standing == Standing::Informational { Some("informational".to_owned()) } else { rule },
            finding,
        }
    });
    let systemd = log.systemd().iter().enumerate().map(|(index, event)| {
        let (rule, finding) = outcome(EventIndex::Systemd(index));
        ExplainedEvent {
            pcr: event.pcr.into(),
            event: None,
            what: event.what(),
            standing: name(event.standing()),
            digest: format!("{bank}:{}", event.digest),
            rule,
            finding,
        }
    });
    let events = firmware.chain(systemd).collect();
    let findings: Vec<Finding> = record.findings.iter().map(|(_, finding)| finding.clone()).collect();
    Explanation { boot, accepted: findings.is_empty(), events, findings }
}

fn name(standing: Standing) -> &'static str {
    match standing {
        Standing::Verified => "verified",
        Standing::Opaque => "opaque",
        Standing::Informational => "informational",
    }
}

/// The whole appraisal in words, for the boot that fits best: of several the last, which is the newest.
fn record<'l>(context: &Context<'_, 'l>, claims: &Claims<'l>) -> (Option<String>, Record<'l>) {
    let mut record = Record::new(context.log);
    let surveyed = survey(context, claims, &mut record);
    let boots = &context.policy.document.boots;
    let best = (0..boots.len()).rev().min_by_key(|index| context.refused(&surveyed, *index));
    if let Some(index) = best {
        context.appraiser(&surveyed, index).run(&mut record);
    }
    // In the order of the boot, so that the first of them is where it left the path; what is missing comes last.
    record.findings.sort_by_key(|(index, _)| match index {
        Some(EventIndex::Firmware(index)) => (0, *index),
        Some(EventIndex::Systemd(index)) => (1, *index),
        None => (2, 0),
    });
    (best.map(|index| boots[index].name.clone()), record)
}

impl<'l> Context<'_, 'l> {
    fn appraiser<'a>(&'a self, survey: &'a Survey<'l>, index: usize) -> Appraiser<'a, 'l> {
        Appraiser {
            context: self,
            survey,
            boot: &self.policy.document.boots[index],
            steps: &self.rules.boots[index],
        }
    }

    fn refused(&self, survey: &Survey<'l>, index: usize) -> usize {
        let mut refused = Count::default();
        self.appraiser(survey, index).run(&mut refused);
        refused.0
    }
}
