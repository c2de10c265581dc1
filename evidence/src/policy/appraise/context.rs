//! What every part of an appraisal looks at.

use super::recorder::{MeasuredEvent, Mismatch, Recorder};
use super::survey::is_boundary;
use crate::eventlog::ExplainedLog;
use crate::policy::command_line::MAX_LINE;
use crate::policy::compiled::{BankRules, Compiled};
use crate::policy::rules::Digest;

/// What the node says besides, none of it proven by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims<'a> {
    /// `/proc/cmdline`
    pub command_line: Option<&'a [u8]>,
}

impl<'a> Claims<'a> {
    /// The command line, if it is text of a bearable length.
    pub(super) fn line(&self) -> Option<&'a str> {
        str::from_utf8(self.command_line?).ok().filter(|line| line.len() <= MAX_LINE)
    }
}

/// What every part of an appraisal looks at.
pub(in crate::policy) struct Context<'c, 'l> {
    pub(super) policy: &'c Compiled,
    pub(super) rules: &'c BankRules,
    pub(super) log: &'l ExplainedLog<'l>,
    /// Whether a PCR is one of the values of `[pcr]`; none if that does not speak of it.
    values: [Option<bool>; 15],
}

/// What a PCR was before systemd's boundary events, if there are any, and it has measured nothing else there. The quoted value can't be
/// had without that value, and what comes on top says nothing.
pub(in crate::policy) fn before_boundaries<'l>(
    rules: &BankRules,
    log: &'l ExplainedLog<'_>,
    pcr: u8,
) -> Option<&'l [u8]> {
    let mut added = log.systemd().iter().filter(|event| event.pcr == pcr).peekable();
    added.peek()?;
    added.all(|event| is_boundary(rules.built_in, event)).then(|| log.log().pcr(pcr))?
}

impl<'c, 'l> Context<'c, 'l> {
    pub fn new(policy: &'c Compiled, log: &'l ExplainedLog<'l>) -> Self {
        let rules = policy.bank(log.bank());
        let mut values = [None; 15];
        for (pcr, allowed) in &policy.document.pcrs {
            let is_allowed = |found: &[u8]| allowed.iter().any(|value| value.as_bytes() == found);
            let before = before_boundaries(rules, log, *pcr);
            values[usize::from(*pcr)] = Some(is_allowed(log.pcr(*pcr)) || before.is_some_and(is_allowed));
        }
        Self { policy, rules, log, values }
    }

    pub(super) fn ignored(&self, pcr: u8) -> bool {
        self.policy.document.ignore & 1 << pcr != 0
    }

    /// What `[pcr]` says of a PCR.
    pub(super) fn value(&self, pcr: u8) -> Option<bool> {
        self.values.get(usize::from(pcr)).copied().flatten()
    }

    /// Whether an `[[event]]` accepts it, and has not accepted all that it may.
    pub(super) fn shared(&self, seen: &MeasuredEvent<'_>, used: &mut [u32]) -> bool {
        let Some(index) = self.rules.event(seen.pcr, seen.digest) else { return false };
        used[index] += 1;
        used[index] <= self.rules.limits[index]
    }

    /// An event that no rule of its PCR accepts.
    pub(super) fn otherwise<S: Recorder>(
        &self,
        seen: &MeasuredEvent<'_>,
        used: &mut [u32],
        recorder: &mut S,
    ) {
        if self.shared(seen, used) {
            return recorder.accept(seen, || "event".to_owned());
        }
        match self.value(seen.pcr) {
            Some(true) => recorder.accept(seen, || format!("pcr.{}", seen.pcr)),
            // The value is a finding already; which of its events is to blame, nobody knows.
            Some(false) => {}
            None => recorder.refuse(seen, || Mismatch {
                rule: "no rule".to_owned(),
                expected: "no such event".to_owned(),
                found: Digest::new(seen.digest).map_or_else(String::new, |digest| digest.to_string()),
            }),
        }
    }
}
