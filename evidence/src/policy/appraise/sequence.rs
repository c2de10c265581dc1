//! Events that must come in an order, and be complete.

use super::context::Context;
use super::recorder::{MeasuredEvent, Mismatch, Recorder};
use crate::policy::compiled::Step;
use crate::policy::rules::Digest;

/// What one place of a sequence accepts.
pub(super) trait Accepts {
    /// What is missing if nothing takes the place.
    const WHAT: &'static str;

    fn accepts(&self, seen: &MeasuredEvent<'_>) -> bool;
    /// For people.
    fn expected(&self) -> String;
    /// The event in the same terms.
    fn found(&self, seen: &MeasuredEvent<'_>) -> String {
        Digest::new(seen.digest).map_or_else(String::new, |digest| digest.to_string())
    }
}

impl Accepts for Step {
    const WHAT: &'static str = "event";

    fn accepts(&self, seen: &MeasuredEvent<'_>) -> bool {
        self.allows(seen.digest)
    }

    fn expected(&self) -> String {
        // Several are the ways in which one text can be measured.
        self.digests.first().map_or_else(String::new, Digest::to_string)
    }
}

/// An entry of a list of digests.
impl Accepts for Digest {
    const WHAT: &'static str = "event";

    fn accepts(&self, seen: &MeasuredEvent<'_>) -> bool {
        self.as_bytes() == seen.digest
    }

    fn expected(&self) -> String {
        self.to_string()
    }
}

/// How far ahead to look for the rule that an event fits, on the way to a denial: so that one event too many, or too few, is one finding.
const LOOK_AHEAD: usize = 16;

/// Compares events with rules, one by one. An event that is not the next takes an `[[event]]`, or is refused; so is
/// what is left out.
pub(super) fn in_order<A: Accepts, S: Recorder>(
    rules: &[A],
    events: &[MeasuredEvent<'_>],
    pcr: u8,
    context: &Context<'_, '_>,
    used: &mut [u32],
    name: impl Fn(&A, usize) -> String,
    recorder: &mut S,
) {
    let mut next = 0;
    let missing = |index: usize, recorder: &mut S| {
        let rule = &rules[index];
        recorder.missing(Some(pcr), A::WHAT, || Mismatch {
            rule: name(rule, index),
            expected: rule.expected(),
            found: "none".to_owned(),
        });
    };
    for (index, seen) in events.iter().enumerate() {
        let rest = &rules[next..];
        if rest.first().is_some_and(|rule| rule.accepts(seen)) {
            recorder.accept(seen, || name(&rules[next], next));
            next += 1;
            continue;
        }
        if context.shared(seen, used) {
            recorder.accept(seen, || "event".to_owned());
            continue;
        }
        if let Some(skipped) = rest.iter().take(LOOK_AHEAD).position(|rule| rule.accepts(seen)) {
            (next..next + skipped).for_each(|index| missing(index, recorder));
            next += skipped;
            recorder.accept(seen, || name(&rules[next], next));
            next += 1;
            continue;
        }
        let fits_later =
            |rule: &A| events[index + 1..].iter().take(LOOK_AHEAD).any(|later| rule.accepts(later));
        match rest.first() {
            Some(rule) if !fits_later(rule) => {
                recorder.refuse(seen, || Mismatch {
                    rule: name(rule, next),
                    expected: rule.expected(),
                    found: rule.found(seen),
                });
                next += 1;
            }
            _ => context.otherwise(seen, used, recorder),
        }
    }
    (next..rules.len()).for_each(|index| missing(index, recorder));
}
