//! What operators have said of a node since it is revoked, or held. Nobody's key is asked for it, so what is only said again must not
//! grow the sequence, nor take the place after its end from those who sign for it.

use halfkey_protocol::wire::operator::Held;

/// Reasons of one operator that count while a node is revoked, or held. More take nothing from it, and tell its tenant nothing.
pub const REASONS: usize = 4;

/// Who has said it and why, since it stands. An end of it ends them all.
#[derive(Debug)]
pub struct Words {
    newest: Held,
    before: Vec<Held>,
}

impl Words {
    /// Somebody was the first.
    pub fn first(word: Held) -> Self {
        Self { newest: word, before: Vec::new() }
    }

    /// The next one. Those that this build would not take, of one before, are not kept.
    pub fn push(&mut self, word: Held) {
        if self.has(&word) {
            self.before.retain(|said| *said != word);
        } else if self.reasons_of(&word.by) >= REASONS
            && let Some(oldest) = self.before.iter().position(|said| said.by == word.by)
        {
            self.before.remove(oldest);
        }
        let before = std::mem::replace(&mut self.newest, word);
        if before != self.newest {
            self.before.push(before);
        }
    }

    /// The newest: what is shown.
    pub fn newest(&self) -> &Held {
        &self.newest
    }

    /// Whether this was said.
    pub fn has(&self, word: &Held) -> bool {
        self.all().any(|said| said == word)
    }

    /// How many reasons an operator has given.
    pub fn reasons_of(&self, by: &str) -> usize {
        self.all().filter(|said| said.by == by).count()
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        self.before.iter().chain([&self.newest])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(by: &str, because: impl ToString) -> Held {
        Held { by: by.to_owned(), because: because.to_string() }
    }

    #[test]
    fn what_is_said_again_and_again_is_kept_once() {
        let mut words = Words::first(word("ada", 0));
        for because in (1..1000).chain([999, 998]) {
            words.push(word("ada", because));
        }
        words.push(word("bob", "too"));
        words.push(word("ada", 998));
        assert_eq!(
            (words.reasons_of("ada"), words.reasons_of("bob"), words.reasons_of("eve")),
            (REASONS, 1, 0)
        );
        assert_eq!(*words.newest(), word("ada", 998));
        assert!(
            words.has(&word("ada", 999)) && words.has(&word("bob", "too")) && !words.has(&word("ada", 1))
        );
    }
}
