//! What PCR 15, the fence, says of a boot. The machine and the verifier read it by the same list.
//!
//! It is zero while the boot window is open. [`crate::keys::opening`] opens it, [`Event::Closed`] closes it; what comes afterwards says that the
//! opening counts no more. Later systemd measures into the same PCR, and keeps a log of that.

use crate::keys::label;
use crate::tpm::bank::PcrBank;

/// What the agent extends the fence with besides an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Into zero: no attestation opens this boot.
    Closed,
    /// After an opening: what was opened is closed again, and a passphrase is asked for.
    Passphrase,
    /// After an opening: what was opened is closed again, and a shell is given.
    Shell,
    /// After an opening: the mounted root is not on a volume that was opened.
    Rogue,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Passphrase, Self::Rogue, Self::Shell];

    /// What TPM2_PCR_Event is given.
    pub fn data(self) -> &'static [u8] {
        match self {
            Self::Closed => label::FENCE_CLOSED,
            Self::Passphrase => label::FENCE_PASSPHRASE,
            Self::Shell => label::FENCE_SHELL,
            Self::Rogue => label::FENCE_ROGUE,
        }
    }

    /// What that extends a bank with.
    pub fn digest(self, bank: PcrBank) -> Vec<u8> {
        bank.digest(&[self.data()])
    }
}

/// What PCR 15 says of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Zero: the boot window is open.
    Open,
    /// A passphrase boot, or no boot of ours.
    Closed,
    /// The enrolled volumes were opened in this boot, by the state that the agent left.
    Opened,
    /// The same; they were closed again, and a passphrase was asked for.
    Passphrase,
    /// The same; they were closed again, and there was a shell of the initramfs.
    Shell,
    /// The mounted root was not on a volume that was opened.
    Rogue,
    /// A value that nothing known leads to.
    Unknown,
}

impl Meaning {
    /// For people and for `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Opened => "opened",
            Self::Passphrase => "passphrase",
            Self::Shell => "shell",
            Self::Rogue => "rogue",
            Self::Unknown => "unknown",
        }
    }
}

/// The value of an open boot window.
pub fn zero(bank: PcrBank) -> Vec<u8> {
    vec![0; bank.digest_len()]
}

/// What a bank's PCR becomes when an event with this data is extended into `value`.
pub fn after(bank: PcrBank, value: &[u8], data: &[u8]) -> Vec<u8> {
    extended(bank, value, &bank.digest(&[data]))
}

/// TPM2_PCR_Extend.
fn extended(bank: PcrBank, value: &[u8], digest: &[u8]) -> Vec<u8> {
    bank.digest(&[value, digest])
}

/// What the fence becomes when an event with this data opens it ([`crate::keys::opening`]).
pub fn opened(bank: PcrBank, data: &[u8]) -> Vec<u8> {
    after(bank, &zero(bank), data)
}

/// What the fence means where it stands, on the machine itself. `opened` is the value that the opening of this boot led to,
/// if one is on record; `later` has the digests of what systemd measured into the PCR afterwards, in order.
pub fn meaning(bank: PcrBank, value: &[u8], opened: Option<&[u8]>, later: &[impl AsRef<[u8]>]) -> Meaning {
    if value == zero(bank) {
        return Meaning::Open;
    }
    let mut candidates = vec![(Meaning::Closed, after(bank, &zero(bank), Event::Closed.data()))];
    if let Some(opened) = opened {
        let asked = after(bank, opened, Event::Passphrase.data());
        candidates.push((Meaning::Rogue, after(bank, opened, Event::Rogue.data())));
        candidates.push((Meaning::Rogue, after(bank, &asked, Event::Rogue.data())));
        candidates.push((Meaning::Shell, after(bank, opened, Event::Shell.data())));
        candidates.push((Meaning::Passphrase, asked));
        candidates.push((Meaning::Opened, opened.to_vec()));
    }
    let leads = |start: Vec<u8>| {
        let mut at = start;
        // Newer systemd extends PCR 15 later, in the running system.
        at == value
            || later.iter().any(|digest| {
                at = extended(bank, &at, digest.as_ref());
                at == value
            })
    };
    let found = candidates.into_iter().find_map(|(meaning, start)| leads(start).then_some(meaning));
    found.unwrap_or(Meaning::Unknown)
}

/// What stands in the fence in place of an opening and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// Zero.
    Zero,
    /// This was extended.
    By(Event),
    /// A value that the log does not lead to.
    Unknown,
}

/// Whether a quoted fence is what the opening made of it, extended by nothing but what the log has. Stricter than
/// [`meaning`]: log and value come from another machine, so nothing in the log may be one of our own events, and one of
/// them shows wherever it stands.
///
/// # Errors
/// What was found in its place.
pub fn only_opened(
    bank: PcrBank,
    opened: &[u8],
    quoted: &[u8],
    later: &[impl AsRef<[u8]>],
) -> Result<(), NotOpened> {
    let zero = zero(bank);
    if quoted == zero {
        return Err(NotOpened::Zero);
    }
    let ours = Event::ALL.map(|event| (event, event.digest(bank)));
    let leads_to_quote = |value: &[u8]| {
        ours.iter().find(|(_, digest)| extended(bank, value, digest) == quoted).map(|(event, _)| *event)
    };
    if let Some(event) = leads_to_quote(&zero) {
        return Err(NotOpened::By(event));
    }
    let mut value = opened.to_vec();
    let mut events = later.iter().map(AsRef::as_ref);
    loop {
        if value == quoted {
            return Ok(());
        }
        // Without a record of it, it shows all the same.
        if let Some(event) = leads_to_quote(&value) {
            return Err(NotOpened::By(event));
        }
        let Some(digest) = events.next() else { return Err(NotOpened::Unknown) };
        if let Some((event, _)) = ours.iter().find(|(_, own)| own[..] == *digest) {
            return Err(NotOpened::By(*event));
        }
        value = extended(bank, &value, digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BANKS: [PcrBank; 2] = PcrBank::ALL;

    #[test]
    fn machine_and_verifier_name_the_same_thing() {
        for bank in BANKS {
            let opened = opened(bank, b"r");
            let machine = bank.digest(&[b"machine-id:..."]);
            let none: &[Vec<u8>] = &[];
            let both = |value: &[u8], later: &[Vec<u8>]| {
                (meaning(bank, value, Some(&opened), later), only_opened(bank, &opened, value, later))
            };
            assert_eq!(both(&zero(bank), none), (Meaning::Open, Err(NotOpened::Zero)));
            assert_eq!(both(&opened, none), (Meaning::Opened, Ok(())));
            let later = bank.digest(&[&opened, &machine]);
            assert_eq!(both(&later, none), (Meaning::Unknown, Err(NotOpened::Unknown)));
            assert_eq!(both(&later, std::slice::from_ref(&machine)), (Meaning::Opened, Ok(())));
            for (event, expected) in [
                (Event::Passphrase, Meaning::Passphrase),
                (Event::Shell, Meaning::Shell),
                (Event::Rogue, Meaning::Rogue),
            ] {
                let value = after(bank, &opened, event.data());
                assert_eq!(both(&value, none), (expected, Err(NotOpened::By(event))));
                // In the log or not, it is no opening for the verifier.
                let own = event.digest(bank);
                assert_eq!(only_opened(bank, &opened, &value, &[own]), Err(NotOpened::By(event)));
                let value = after(bank, &later, event.data());
                let seen = only_opened(bank, &opened, &value, std::slice::from_ref(&machine));
                assert_eq!(seen, Err(NotOpened::By(event)));
            }
            let closed = after(bank, &zero(bank), Event::Closed.data());
            assert_eq!(both(&closed, none), (Meaning::Closed, Err(NotOpened::By(Event::Closed))));
            assert_eq!(meaning(bank, &opened, None, none), Meaning::Unknown);
        }
    }

    proptest! {
        /// Whatever is extended after the opening and whatever the log says of it.
        #[test]
        fn the_verifier_never_takes_more_for_an_opening_than_the_machine(
            extended in proptest::collection::vec(0usize..7, 0..5),
            logged in proptest::collection::vec(0usize..7, 0..5),
        ) {
            let bank = PcrBank::Sha256;
            let digest = |n: &usize| match Event::ALL.get(*n) {
                Some(event) => event.digest(bank),
                None => bank.digest(&[&[*n as u8]]),
            };
            let opened = opened(bank, b"r");
            let value = extended.iter().fold(opened.clone(), |value, n| bank.digest(&[&value, &digest(n)]));
            let later: Vec<Vec<u8>> = logged.iter().map(digest).collect();
            let by_verifier = only_opened(bank, &opened, &value, &later);
            let ours = extended.iter().any(|n| *n < Event::ALL.len());
            prop_assert_eq!(by_verifier.is_ok(), !ours && logged.starts_with(&extended));
            if by_verifier.is_ok() {
                prop_assert_eq!(meaning(bank, &value, Some(&opened), &later), Meaning::Opened);
            }
        }
    }
}
