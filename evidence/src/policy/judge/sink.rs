//! Where judgements go: counted, or written down. The judge is the same for both, so that what is explained is what was
//! decided.

use crate::eventlog::{Event, ExplainedLog};
use crate::policy::Finding;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::policy) enum Place {
    /// Index into the firmware's events.
    Firmware(usize),
    /// Index into systemd's.
    Userspace(usize),
}

/// An event that a rule must accept.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Seen<'l> {
    pub place: Place,
    pub pcr: u8,
    /// Type of a firmware event.
    pub kind: Option<u32>,
    pub digest: &'l [u8],
}

impl<'l> Seen<'l> {
    /// The firmware's event that it is.
    pub fn event(&self, log: &'l ExplainedLog<'l>) -> Option<&'l Event<'l>> {
        match self.place {
            Place::Firmware(index) => log.events().get(index),
            Place::Userspace(_) => None,
        }
    }
}

/// Why an event is not accepted.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Why {
    pub rule: String,
    pub expected: String,
    pub found: String,
}

/// Takes judgements. Texts are made only if they are wanted.
pub(in crate::policy) trait Sink {
    fn accept(&mut self, seen: &Seen<'_>, rule: impl FnOnce() -> String);
    fn refuse(&mut self, seen: &Seen<'_>, why: impl FnOnce() -> Why);
    /// Something that should be there is not, or is not about one event.
    fn missing(&mut self, pcr: Option<u8>, what: &str, why: impl FnOnce() -> Why);
}

/// How much is refused.
#[derive(Debug, Default)]
pub(in crate::policy) struct Count(pub usize);

impl Sink for Count {
    fn accept(&mut self, _: &Seen<'_>, _: impl FnOnce() -> String) {}

    fn refuse(&mut self, _: &Seen<'_>, _: impl FnOnce() -> Why) {
        self.0 += 1;
    }

    fn missing(&mut self, _: Option<u8>, _: &str, _: impl FnOnce() -> Why) {
        self.0 += 1;
    }
}

/// So many findings say what is wrong: a hostile log can have tens of thousands.
pub(super) const MAX_FINDINGS: usize = 64;

/// All of it, in words.
pub(super) struct Record<'a> {
    log: &'a ExplainedLog<'a>,
    pub accepted: Vec<(Place, String)>,
    pub findings: Vec<(Option<Place>, Finding)>,
}

impl<'a> Record<'a> {
    pub fn new(log: &'a ExplainedLog<'a>) -> Self {
        Self { log, accepted: Vec::new(), findings: Vec::new() }
    }

    fn add(&mut self, place: Option<Place>, finding: impl FnOnce() -> Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push((place, finding()));
        }
    }
}

impl Sink for Record<'_> {
    fn accept(&mut self, seen: &Seen<'_>, rule: impl FnOnce() -> String) {
        self.accepted.push((seen.place, rule()));
    }

    fn refuse(&mut self, seen: &Seen<'_>, why: impl FnOnce() -> Why) {
        let log = self.log;
        self.add(Some(seen.place), || {
            let Why { rule, expected, found } = why();
            let (event, what) = match seen.place {
                Place::Firmware(index) => {
                    let event = &log.events()[index];
                    (Some(event.number), event.what())
                }
                Place::Userspace(index) => (None, log.userspace()[index].what()),
            };
            Finding { pcr: Some(seen.pcr), event, what, rule, expected, found }
        });
    }

    fn missing(&mut self, pcr: Option<u8>, what: &str, why: impl FnOnce() -> Why) {
        self.add(None, || {
            let Why { rule, expected, found } = why();
            Finding { pcr, event: None, what: what.to_owned(), rule, expected, found }
        });
    }
}
