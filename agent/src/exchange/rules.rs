//! What follows from what came of an attempt: one table for every purpose.
//!
//! It only decides. Who is asked, what is said and how time passes, is [`super::run`]'s.

use crate::net::Again;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Purpose;

/// Attempts that end with what a fresh quote can turn, before that is taken for the answer.
pub const ROUNDS: u32 = 5;

/// For whom an exchange waits while the verifier can't say yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// Who approves what was booted: any operator.
    Operator,
    /// Who enrolls the node.
    Tenant,
}

/// What came of an attempt, as far as it decides what is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// What was asked for: a release, or whatever a verifier says to a proposal.
    Answered,
    /// The verifier waits for people.
    Pending,
    /// No. The reason, if this agent knows it.
    Denied(Option<Reason>),
    /// No answer to this attempt, or one that is an error.
    Failed(Again, Option<Reason>),
    /// `begin` had no answer that helps; whatever another attempt could turn, the race has tried already.
    NotBegun(Option<Reason>),
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// What came is what was asked for.
    Done,
    /// What came is the end of it.
    GiveUp,
    /// Waiting until somebody has done something, then another attempt.
    Wait(Person),
    /// The deadline came before that person.
    TooLate(Person),
    /// Another attempt at once: a denial that a fresh quote can turn.
    FreshQuote,
    /// Another attempt when this says so.
    TryAgain(Again),
}

/// For whom an exchange of this purpose waits.
fn person(purpose: Purpose) -> Option<Person> {
    match purpose {
        Purpose::Boot => Some(Person::Operator),
        Purpose::Enroll => Some(Person::Tenant),
        // Whoever proposes has nothing that hangs on it, and the running system asks again later.
        Purpose::Propose | Purpose::Runtime => None,
    }
}

/// What follows, after `rounds` attempts that a fresh quote or a new exchange could have turned; `over`: the deadline
/// has come.
pub fn next(purpose: Purpose, came: Came, rounds: u32, over: bool) -> Next {
    let wait = |person| if over { Next::TooLate(person) } else { Next::Wait(person) };
    let person = person(purpose);
    match came {
        Came::Answered => Next::Done,
        Came::Pending => person.map_or(Next::GiveUp, wait),
        // A verifier says this of a node that registered a moment ago, to `begin` or to the evidence.
        Came::Denied(Some(Reason::NotEnrolled))
        | Came::Failed(_, Some(Reason::NotEnrolled))
        | Came::NotBegun(Some(Reason::NotEnrolled))
            if person == Some(Person::Tenant) =>
        {
            wait(Person::Tenant)
        }
        Came::NotBegun(_) => Next::GiveUp,
        Came::Denied(reason) => {
            let turns = reason.is_some_and(Reason::retry) && rounds < ROUNDS && !over;
            if turns { Next::FreshQuote } else { Next::GiveUp }
        }
        Came::Failed(Again::Never, _) => Next::GiveUp,
        Came::Failed(Again::AtOnce, _) if rounds >= ROUNDS => Next::GiveUp,
        Came::Failed(again, _) => {
            if over {
                Next::GiveUp
            } else {
                Next::TryAgain(again)
            }
        }
    }
}

impl Next {
    /// Whether it counts among the `rounds`.
    pub fn is_round(self) -> bool {
        matches!(self, Self::FreshQuote | Self::TryAgain(Again::AtOnce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_one_consequence_for_each_purpose() {
        use Again::{AfterPause, AtOnce, Never, OnNetworkChange};
        use Came::{Answered, Denied, Failed, NotBegun, Pending};
        use Next::{Done, FreshQuote, GiveUp, TryAgain};
        let (operator, tenant) = (Next::Wait(Person::Operator), Next::Wait(Person::Tenant));
        let not_enrolled = Some(Reason::NotEnrolled);
        // Boot, enroll, propose, runtime.
        for (came, expected) in [
            (Answered, [Done; 4]),
            (Pending, [operator, tenant, GiveUp, GiveUp]),
            (Denied(None), [GiveUp; 4]),
            (Denied(Some(Reason::Revoked)), [GiveUp; 4]),
            (Denied(Some(Reason::PolicyMismatch)), [GiveUp; 4]),
            (Denied(Some(Reason::EnrollmentUsed)), [GiveUp; 4]),
            (Denied(Some(Reason::Stale)), [FreshQuote; 4]),
            (Denied(Some(Reason::NonceExpired)), [FreshQuote; 4]),
            (Denied(not_enrolled), [GiveUp, tenant, GiveUp, GiveUp]),
            (Failed(Never, None), [GiveUp; 4]),
            (Failed(Never, Some(Reason::Revoked)), [GiveUp; 4]),
            (Failed(Never, not_enrolled), [GiveUp, tenant, GiveUp, GiveUp]),
            (Failed(AtOnce, Some(Reason::Stale)), [TryAgain(AtOnce); 4]),
            (Failed(AfterPause, None), [TryAgain(AfterPause); 4]),
            (Failed(AfterPause, Some(Reason::Unavailable)), [TryAgain(AfterPause); 4]),
            (Failed(OnNetworkChange, None), [TryAgain(OnNetworkChange); 4]),
            (NotBegun(None), [GiveUp; 4]),
            (NotBegun(Some(Reason::Stale)), [GiveUp; 4]),
            (NotBegun(not_enrolled), [GiveUp, tenant, GiveUp, GiveUp]),
        ] {
            for (purpose, expected) in Purpose::ALL.into_iter().zip(expected) {
                assert_eq!(next(purpose, came, 0, false), expected, "{purpose:?} {came:?}");
                assert_eq!(next(purpose, came, ROUNDS - 1, false), expected, "{purpose:?} {came:?}, last");
                // After the last round only that counts which is no round.
                let spent = if expected.is_round() { GiveUp } else { expected };
                assert_eq!(next(purpose, came, ROUNDS, false), spent, "{purpose:?} {came:?}, spent");
                // And at the deadline nothing goes on.
                let over = match expected {
                    Done => Done,
                    Next::Wait(person) => Next::TooLate(person),
                    _ => GiveUp,
                };
                assert_eq!(next(purpose, came, 0, true), over, "{purpose:?} {came:?}, over");
            }
        }
    }

    #[test]
    fn nothing_but_these_reasons_is_asked_again() {
        for reason in Reason::ALL.iter().copied().filter(|reason| !reason.retry()) {
            for purpose in Purpose::ALL {
                let waits = purpose == Purpose::Enroll && reason == Reason::NotEnrolled;
                for came in [Came::Denied(Some(reason)), Came::NotBegun(Some(reason))] {
                    let ends = next(purpose, came, 0, false) == Next::GiveUp;
                    assert_eq!(ends, !waits, "{purpose:?} {came:?}");
                }
            }
        }
    }
}
