//! The steps of an unlocking, in their order, and what follows when one of them fails.
//!
//! It only decides. [`super::unlock`] does what is said here: a [`Walk`] refuses a step that does not come next.

use crate::error::{Error, Kind, Result};

/// What is done of an unlocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The enrolled volumes are there, and whatever else the boot names.
    FindVolumes,
    /// SRK and AK are in the TPM, the sealed half is one of its, and PCR 15 is zero. The verifiers are asked meanwhile.
    PrepareKeys,
    /// Only with another TPM than the enrolled one: the verifier gets its evidence, which it refuses and records.
    TellOfOtherTpm,
    /// A verifier has answered, and says which enrollment is current.
    ChooseEnrollment,
    /// The volumes of that enrollment are complete, and their headers pass the allow-list.
    CheckVolumes,
    /// The sealed half of that enrollment is one of this TPM's.
    CheckHalf,
    /// The verifier has released, and K is made of both halves.
    Attest,
    /// Headers and tokens are those that K sealed.
    CheckSeals,
    /// Each volume's key opens its keyslot. A dry run ends here.
    TestKeys,
    /// No volume has become a part of another device meanwhile.
    CheckMembers,
    /// PCR 15 is zero still; from here on there is no SysRq.
    LookAtFence,
    /// What is about to be opened is on record.
    Record,
    /// PCR 15 is extended with r, and says so.
    ExtendFence,
    /// The volumes are opened, one after the other.
    Open,
    /// That all are open is on record.
    RecordOpened,
}

/// What comes when a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This step.
    Step(Step),
    /// Nothing: all that was to be done is done.
    End,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing can be opened by this enrollment, and whoever runs the verifier wants to know why.
    TellVerifier,
    /// The next enrollment on these disks is tried, from [`Step::PrepareKeys`] on.
    OtherEnrollment,
    /// Nothing is opened by attestation in this boot.
    Last(WayOut),
}

/// How an unlocking that failed is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// A dry run: nothing has been touched, and why is all there is to say.
    Report,
    /// PCR 15 is extended as closed, if it is not extended by now, and read back; then the volumes may ask for their
    /// passphrases. If that can't be had the machine is powered off ([`crate::fence::must_power_off`]).
    CloseFence,
    /// PCR 15 says that attestation opened this boot, and volumes may be open. No prompt may stand over them: they are
    /// closed, and PCR 15 says that a passphrase opens this boot. If that can't be had the machine is powered off.
    TakeBack,
}

/// What comes when `step` is done.
pub fn following(step: Step, dry_run: bool) -> Next {
    Next::Step(match step {
        Step::FindVolumes => Step::PrepareKeys,
        Step::PrepareKeys => Step::ChooseEnrollment,
        // It is told, and still another TPM.
        Step::TellOfOtherTpm => return Next::End,
        Step::ChooseEnrollment => Step::CheckVolumes,
        Step::CheckVolumes => Step::CheckHalf,
        Step::CheckHalf => Step::Attest,
        Step::Attest => Step::CheckSeals,
        Step::CheckSeals => Step::TestKeys,
        Step::TestKeys if dry_run => return Next::End,
        Step::TestKeys => Step::CheckMembers,
        Step::CheckMembers => Step::LookAtFence,
        Step::LookAtFence => Step::Record,
        Step::Record => Step::ExtendFence,
        Step::ExtendFence => Step::Open,
        Step::Open => Step::RecordOpened,
        Step::RecordOpened => return Next::End,
    })
}

/// What it means that `step` failed with an error of this kind; `others`: there is another enrollment on these disks that
/// was not tried yet.
pub fn failure(step: Step, kind: Kind, dry_run: bool, others: bool) -> Failure {
    if step == Step::PrepareKeys && kind == Kind::OtherTpm {
        return Failure::TellVerifier;
    }
    let about_this_enrollment = match step {
        Step::PrepareKeys
        | Step::TellOfOtherTpm
        | Step::ChooseEnrollment
        | Step::CheckVolumes
        | Step::CheckHalf
        | Step::Attest
        | Step::CheckSeals
        | Step::TestKeys => true,
        // There is none yet; or the verifier has released, and what fails now is this machine's business.
        Step::FindVolumes
        | Step::CheckMembers
        | Step::LookAtFence
        | Step::Record
        | Step::ExtendFence
        | Step::Open
        | Step::RecordOpened => false,
    };
    let another_may_help = match kind {
        Kind::Usage
        | Kind::NotEnrolled
        | Kind::Tpm
        | Kind::OtherTpm
        | Kind::Network
        | Kind::Refused
        | Kind::Pending
        | Kind::System => true,
        // What was found wrong with a volume or the fence is not made right by another verifier.
        Kind::Volume | Kind::Fence => false,
    };
    if others && about_this_enrollment && another_may_help {
        Failure::OtherEnrollment
    } else {
        Failure::Last(way_out(step, dry_run))
    }
}

/// How an unlocking is left that failed at `step`.
pub fn way_out(step: Step, dry_run: bool) -> WayOut {
    match step {
        Step::Open | Step::RecordOpened => WayOut::TakeBack,
        Step::FindVolumes
        | Step::PrepareKeys
        | Step::TellOfOtherTpm
        | Step::ChooseEnrollment
        | Step::CheckVolumes
        | Step::CheckHalf
        | Step::Attest
        | Step::CheckSeals
        | Step::TestKeys
        | Step::CheckMembers
        | Step::LookAtFence
        | Step::Record
        | Step::ExtendFence => {
            if dry_run {
                WayOut::Report
            } else {
                WayOut::CloseFence
            }
        }
    }
}

/// How far an unlocking has come.
#[derive(Debug)]
pub struct Walk {
    at: Step,
    dry_run: bool,
}

impl Walk {
    /// At [`Step::FindVolumes`].
    pub fn new(dry_run: bool) -> Self {
        Self { at: Step::FindVolumes, dry_run }
    }

    /// The step that is being done.
    pub fn at(&self) -> Step {
        self.at
    }

    /// The step is about to be done: the one before it is done.
    ///
    /// # Errors
    /// When another one comes next; then this one must not be done.
    pub fn enter(&mut self, step: Step) -> Result<()> {
        let next = following(self.at, self.dry_run);
        let tells = (self.at, step) == (Step::PrepareKeys, Step::TellOfOtherTpm);
        if next != Next::Step(step) && !tells {
            return Err(Error::system(
                "unlock",
                format!("expected {next:?} after {:?}, found {step:?}", self.at),
            ));
        }
        self.at = step;
        Ok(())
    }

    /// Another enrollment is tried on the volumes that were found.
    pub fn start_over(&mut self) {
        self.at = Step::FindVolumes;
    }

    /// What it means that the step which is being done failed.
    pub fn failure(&self, kind: Kind, others: bool) -> Failure {
        failure(self.at, kind, self.dry_run, others)
    }

    /// How this is left when nothing else is tried.
    pub fn way_out(&self) -> WayOut {
        way_out(self.at, self.dry_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 10] = [
        Kind::Usage,
        Kind::NotEnrolled,
        Kind::Tpm,
        Kind::OtherTpm,
        Kind::Network,
        Kind::Refused,
        Kind::Pending,
        Kind::Volume,
        Kind::Fence,
        Kind::System,
    ];

    /// Each step, whether another enrollment can make it right, and how a failure is left.
    const TABLE: [(Step, bool, WayOut); 15] = [
        (Step::FindVolumes, false, WayOut::CloseFence),
        (Step::PrepareKeys, true, WayOut::CloseFence),
        (Step::TellOfOtherTpm, true, WayOut::CloseFence),
        (Step::ChooseEnrollment, true, WayOut::CloseFence),
        (Step::CheckVolumes, true, WayOut::CloseFence),
        (Step::CheckHalf, true, WayOut::CloseFence),
        (Step::Attest, true, WayOut::CloseFence),
        (Step::CheckSeals, true, WayOut::CloseFence),
        (Step::TestKeys, true, WayOut::CloseFence),
        (Step::CheckMembers, false, WayOut::CloseFence),
        (Step::LookAtFence, false, WayOut::CloseFence),
        (Step::Record, false, WayOut::CloseFence),
        (Step::ExtendFence, false, WayOut::CloseFence),
        (Step::Open, false, WayOut::TakeBack),
        (Step::RecordOpened, false, WayOut::TakeBack),
    ];

    #[test]
    fn the_steps_come_in_the_order_of_the_list() {
        for dry_run in [false, true] {
            let mut walk = Walk::new(dry_run);
            for (step, ..) in TABLE.into_iter().skip(1).filter(|(step, ..)| *step != Step::TellOfOtherTpm) {
                if dry_run && walk.at() == Step::TestKeys {
                    assert_eq!(following(walk.at(), true), Next::End);
                    assert!(walk.enter(step).is_err(), "a dry run goes on to {step:?}");
                    return;
                }
                // Nothing is left out, done twice, or done before its time.
                for (other, ..) in TABLE {
                    let tells = (walk.at(), other) == (Step::PrepareKeys, Step::TellOfOtherTpm);
                    if other != step && !tells {
                        let at = walk.at();
                        assert!(walk.enter(other).is_err(), "{other:?} after {at:?}");
                        assert_eq!(walk.at(), at);
                    }
                }
                walk.enter(step).unwrap();
            }
            assert_eq!(following(walk.at(), dry_run), Next::End);
        }
    }

    #[test]
    fn what_each_failure_means() {
        for (step, another, way) in TABLE {
            for kind in KINDS {
                let left = |dry_run: bool| match way {
                    WayOut::CloseFence if dry_run => Failure::Last(WayOut::Report),
                    way => Failure::Last(way),
                };
                for (dry_run, others) in [(false, false), (false, true), (true, false), (true, true)] {
                    let expected = if (step, kind) == (Step::PrepareKeys, Kind::OtherTpm) {
                        Failure::TellVerifier
                    } else if others && another && !matches!(kind, Kind::Volume | Kind::Fence) {
                        Failure::OtherEnrollment
                    } else {
                        left(dry_run)
                    };
                    assert_eq!(failure(step, kind, dry_run, others), expected, "{step:?} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn another_tpm_is_told_of_and_stays_another() {
        let mut walk = Walk::new(false);
        walk.enter(Step::PrepareKeys).unwrap();
        assert_eq!(walk.failure(Kind::OtherTpm, true), Failure::TellVerifier);
        walk.enter(Step::TellOfOtherTpm).unwrap();
        assert_eq!(walk.failure(Kind::OtherTpm, false), Failure::Last(WayOut::CloseFence));
        assert!(walk.enter(Step::ChooseEnrollment).is_err());
        assert_eq!(walk.failure(Kind::OtherTpm, true), Failure::OtherEnrollment);
        walk.start_over();
        walk.enter(Step::PrepareKeys).unwrap();
    }
}
