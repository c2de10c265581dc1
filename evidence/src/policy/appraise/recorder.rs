//! Who takes down what is accepted and what is refused: counted, or in words. The appraisal is the same for both, so that what is explained is what was
//! decided.

use crate::eventlog::{Event, ExplainedLog};
use crate::policy::sidecar;
use halfkey_protocol::wire::policies::Finding;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::policy) enum EventIndex {
    /// Index into the firmware's events.
    Firmware(usize),
    /// Index into systemd's.
    Systemd(usize),
}

impl EventIndex {
    /// Whether both are firmware's and this one came first. That is proven within one PCR only.
    pub fn is_before(self, other: Self) -> bool {
        matches!((self, other), (Self::Firmware(one), Self::Firmware(other)) if one < other)
    }
}

/// An event that a rule must accept.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct MeasuredEvent<'l> {
    /// Which one.
    pub index: EventIndex,
    pub pcr: u8,
    /// Type of a firmware event.
    pub kind: Option<u32>,
    pub digest: &'l [u8],
}

impl<'l> MeasuredEvent<'l> {
    /// The firmware's event that it is.
    pub fn event(&self, log: &'l ExplainedLog<'l>) -> Option<&'l Event<'l>> {
        match self.index {
            EventIndex::Firmware(index) => log.events().get(index),
            EventIndex::Systemd(_) => None,
        }
    }
}

/// Why an event is not accepted.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Mismatch {
    pub rule: String,
    pub expected: String,
    pub found: String,
}

/// Takes down what becomes of each event. Texts are made only if they are wanted.
pub(in crate::policy) trait Recorder {
    fn accept(&mut self, seen: &MeasuredEvent<'_>, rule: impl FnOnce() -> String);
    fn refuse(&mut self, seen: &MeasuredEvent<'_>, why: impl FnOnce() -> Mismatch);
    /// Something that should be there is not, or is not about one event.
    fn missing(&mut self, pcr: Option<u8>, what: &str, why: impl FnOnce() -> Mismatch);
}

/// How much is refused.
#[derive(Debug, Default)]
pub(in crate::policy) struct Count(pub usize);

impl Recorder for Count {
    fn accept(&mut self, _: &MeasuredEvent<'_>, _: impl FnOnce() -> String) {}

    fn refuse(&mut self, _: &MeasuredEvent<'_>, _: impl FnOnce() -> Mismatch) {
        self.0 += 1;
    }

    fn missing(&mut self, _: Option<u8>, _: &str, _: impl FnOnce() -> Mismatch) {
        self.0 += 1;
    }
}

/// So many findings say what is wrong: a hostile log can have tens of thousands.
pub(in crate::policy) const MAX_FINDINGS: usize = 64;

/// All of it, in words.
pub(super) struct Record<'a> {
    log: &'a ExplainedLog<'a>,
    pub accepted: Vec<(EventIndex, String)>,
    pub findings: Vec<(Option<EventIndex>, Finding)>,
}

impl<'a> Record<'a> {
    pub fn new(log: &'a ExplainedLog<'a>) -> Self {
        Self { log, accepted: Vec::new(), findings: Vec::new() }
    }

    fn add(&mut self, index: Option<EventIndex>, finding: impl FnOnce() -> Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push((index, finding()));
        }
    }
}

impl Recorder for Record<'_> {
    fn accept(&mut self, seen: &MeasuredEvent<'_>, rule: impl FnOnce() -> String) {
        self.accepted.push((seen.index, rule()));
    }

    fn refuse(&mut self, seen: &MeasuredEvent<'_>, why: impl FnOnce() -> Mismatch) {
        let log = self.log;
        self.add(Some(seen.index), || {
            let Mismatch { rule, expected, found } = why();
            let (event, what, hint) = match seen.index {
                EventIndex::Firmware(index) => {
                    let event = &log.events()[index];
                    let hint = sidecar::is_credentials(event).then(|| sidecar::HINT.to_owned());
                    (Some(event.number), event.what(), hint)
                }
                EventIndex::Systemd(index) => (None, log.systemd()[index].what(), None),
            };
            Finding { pcr: Some(seen.pcr), event, what, rule, expected, found, hint }
        });
    }

    fn missing(&mut self, pcr: Option<u8>, what: &str, why: impl FnOnce() -> Mismatch) {
        self.add(None, || {
            let Mismatch { rule, expected, found } = why();
            Finding { pcr, event: None, what: what.to_owned(), rule, expected, found, hint: None }
        });
    }
}
