//! What the policy makes of boots that were recorded.

use halfkey_evidence::eventlog::{AssumedLog, replay};
use halfkey_evidence::policy::{Assured, Claims, Evaluation, Finding, Policy, evaluate, learn};
use halfkey_protocol::tpm::bank::PcrBank;
pub use halfkey_testkit::log::{Record, log_of};
pub use halfkey_testkit::recorded::{BOOTS, Boot, boot};

/// The questions of these tests to a recorded boot.
pub trait Appraised {
    fn log(&self) -> AssumedLog<'_>;
    fn claims(&self) -> Claims<'_>;
    /// The policy that is learned from it. Of its kernel (Linux 6.1) the owner should not say what this says for the boot by
    /// systemd-boot: that is what the tests of that path need.
    fn learned(&self) -> String;
    fn assured(&self) -> Assured;
    fn judge(&self, policy: &Policy) -> Evaluation;
    /// With another word of the node for its command line.
    fn judge_with(&self, policy: &Policy, line: Option<&str>) -> Vec<Finding>;
    /// The verdict over a changed log, as if the TPM had quoted what it replays to; none if it does not replay.
    fn findings_of(&self, policy: &Policy, records: &[Record]) -> Option<Vec<Finding>>;
}

impl Appraised for Boot {
    fn log(&self) -> AssumedLog<'_> {
        replay(self.log, PcrBank::Sha256).unwrap().assume().unwrap()
    }

    fn claims(&self) -> Claims<'_> {
        Claims { command_line: Some(self.proc_cmdline()) }
    }

    fn learned(&self) -> String {
        learn(&self.log(), &self.claims(), self.assured(), "learned", &["from a test"])
            .unwrap_or_else(|findings| panic!("{}: {findings:?}", self.name))
    }

    fn assured(&self) -> Assured {
        Assured { kernel_measures_initrd: self.name == "systemd-boot-type1", ..Assured::default() }
    }

    fn judge(&self, policy: &Policy) -> Evaluation {
        evaluate(policy, &self.log(), &self.claims())
    }

    fn judge_with(&self, policy: &Policy, line: Option<&str>) -> Vec<Finding> {
        evaluate(policy, &self.log(), &Claims { command_line: line.map(str::as_bytes) }).findings
    }

    fn findings_of(&self, policy: &Policy, records: &[Record]) -> Option<Vec<Finding>> {
        let bytes = log_of(records);
        let log = replay(&bytes, PcrBank::Sha256).ok()?.assume().ok()?;
        Some(evaluate(policy, &log, &self.claims()).findings)
    }
}
