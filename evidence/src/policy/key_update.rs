//! What KEK and db gain, by a boot that has it or by the files that will bring it: in words, and as part of a document.
//!
//! An entry of db alone lets nothing boot: images count by their hash, or by a signer that a document names, and what verified one has an
//! event of its own. So it is the authorities that widen a policy.

use super::appraise::secure_boot::{listed, name as name_of};
use super::appraise::{Claims, evaluate};
use super::edit;
use super::learn::keys;
use super::parsed::{Additions, Policy};
use super::rules::{Boot, Listed, MoreKeys};
use crate::eventlog::ExplainedLog;
use crate::eventlog::signatures::Signature;
use std::collections::HashSet;
use std::fmt;

/// A list of `[secure_boot]` that may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyList {
    /// Who may change db and dbx.
    Kek,
    /// What firmware starts.
    Db,
    /// What has verified an image of a boot.
    Authorities,
}

impl KeyList {
    const ALL: [Self; 3] = [Self::Kek, Self::Db, Self::Authorities];

    /// Its key in a document.
    pub fn key(self) -> &'static str {
        match self {
            Self::Kek => "kek",
            Self::Db => "db",
            Self::Authorities => "authorities",
        }
    }
}

/// An entry that a document does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Where it belongs.
    pub list: KeyList,
    /// What the document will say.
    pub is: Listed,
    /// What it is, by its own word: one line.
    pub what: String,
}

/// What the lists of `[secure_boot]` gain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    entries: Vec<NewEntry>,
    /// The same: a file can have tens of thousands.
    known: HashSet<(KeyList, Listed)>,
}

/// So much of a name is shown.
const LONGEST_NAME: usize = 120;

impl KeyUpdate {
    /// What a boot has, and a policy does not list. Of those who verified an image only such as are in db, which firmware measures before
    /// it starts anything: the event of another one can be of whatever ran. And none if the policy names a signer, whose place an
    /// authority can take.
    pub fn of_boot(policy: &Policy, log: &ExplainedLog<'_>, claims: &Claims<'_>) -> Self {
        let (found, _) = keys(log);
        let mut update = Self::default();
        for (list, found) in [(KeyList::Kek, &found.lists[1]), (KeyList::Db, &found.lists[2])] {
            found.iter().for_each(|(is, what)| update.push(policy, list, *is, what));
        }
        if policy.boots().iter().any(Boot::has_signer) {
            return update;
        }
        let refused = evaluate(&policy.with_keys(&update), log, claims).findings;
        for (is, what) in &found.authorities {
            let by_rule = refused
                .iter()
                .any(|finding| finding.rule == "secure_boot.authorities" && finding.found == is.to_string());
            if by_rule && found.lists[2].iter().any(|(in_db, _)| in_db == is) {
                update.push(policy, KeyList::Authorities, *is, what);
            }
        }
        update
    }

    /// Adds an entry that will be in the list, if a policy does not list it.
    ///
    /// # Errors
    /// What it is, if no list of that kind can name it.
    pub fn add(
        &mut self,
        policy: Option<&Policy>,
        list: KeyList,
        signature: &Signature<'_>,
    ) -> Result<(), String> {
        let what = short(&name_of(signature));
        let is = match (list, listed(signature)) {
            (KeyList::Kek, Some(Listed::Image(_))) | (_, None) => return Err(what),
            (_, Some(is)) => is,
        };
        match policy {
            Some(policy) => self.push(policy, list, is, &what),
            None => self.insert(NewEntry { list, is, what }),
        }
        Ok(())
    }

    fn push(&mut self, policy: &Policy, list: KeyList, is: Listed, what: &str) {
        let known = &policy.compiled.keys;
        let known = match list {
            KeyList::Kek => &known.kek,
            KeyList::Db => &known.db,
            KeyList::Authorities => &known.authorities,
        };
        if !known.contains(&is) {
            self.insert(NewEntry { list, is, what: short(what) });
        }
    }

    fn insert(&mut self, entry: NewEntry) {
        if self.known.insert((entry.list, entry.is)) {
            self.entries.push(entry);
        }
    }

    /// Whether nothing is new.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is new.
    pub fn entries(&self) -> &[NewEntry] {
        &self.entries
    }

    pub(super) fn listed(&self) -> MoreKeys {
        let of = |list| self.of(list).map(|entry| entry.is).collect();
        MoreKeys { kek: of(KeyList::Kek), db: of(KeyList::Db), authorities: of(KeyList::Authorities) }
    }

    fn of(&self, list: KeyList) -> impl Iterator<Item = &NewEntry> {
        self.entries.iter().filter(move |entry| entry.list == list)
    }

    /// What it means to take them into a policy: a sentence each.
    pub fn warnings(&self, policy: Option<&Policy>) -> Vec<String> {
        let mut said = Vec::new();
        if self.of(KeyList::Kek).next().is_some() {
            said.push(
                "kek: whoever has its key can change db and dbx. What comes into db then is denied until it is listed; what is revoked holds \
                 as far as dbx_at_least names it"
                    .to_owned(),
            );
        }
        if self.of(KeyList::Db).next().is_some() {
            said.push(
                "db: firmware starts whatever its owner has signed. That alone changes nothing in what may be booted: an image counts by its \
                 hash, or by a signer that the policy names, and what verified it must be one of authorities"
                    .to_owned(),
            );
        }
        let images = self.of(KeyList::Db).filter(|entry| matches!(entry.is, Listed::Image(_))).count();
        if images > 0 {
            said.push(format!(
                "db: {images} of it are hashes of images, and no certificates: firmware starts these images. An update of dbx has such hashes, too, \
                 and does not belong here"
            ));
        }
        let by_signer = policy.and_then(|policy| policy.boots().iter().find(|boot| boot.has_signer()));
        match (self.of(KeyList::Authorities).next(), by_signer) {
            (None, _) => {}
            (Some(_), Some(boot)) => said.push(format!(
                "authorities: whatever its owner has signed boots in the place of the signer of boot {:?}, on every machine of this policy",
                boot.name
            )),
            (Some(_), None) => said.push(
                "authorities: whatever its owner has signed may run before the kernel where no rule names it: drivers and option ROMs, if pcr 2 \
                 is ignored. The images of a [[boot]] count by their hash as before"
                    .to_owned(),
            ),
        }
        for (entry, policy) in self.of(KeyList::Db).filter_map(|entry| Some((entry, policy?))) {
            let names = |boot: &&Boot| boot.images.iter().any(|image| image.has_signer(&entry.is));
            if let Some(boot) = policy.boots().iter().find(names) {
                said.push(format!(
                    "{} is a signer of boot {:?}: with it in db, whatever it has signed boots",
                    entry.is, boot.name
                ));
            } else if policy.compiled.keys.authorities.contains(&entry.is) {
                said.push(format!("{} is one of authorities already: what it has signed may run", entry.is));
            }
        }
        if self.entries.iter().any(|entry| matches!(entry.is, Listed::Certificate(_))) {
            said.push(
                "a certificate's name is its own word: compare the fingerprint with what its owner publishes"
                    .to_owned(),
            );
        }
        said
    }

    /// The text of a policy with them. `None` if its `[secure_boot]` is written in another way than line by line: then it is for the
    /// owner to write.
    pub fn policy(&self, text: &str) -> Option<String> {
        let before = Policy::parse(text).ok()?;
        let (after, text) = self.written(text, |text| Policy::parse(text).ok())?;
        let expected = before.with_keys(self);
        (after.compiled.document == expected.compiled.document).then_some(text)
    }

    /// The same for additions.
    pub fn additions(&self, text: &str) -> Option<String> {
        let mut expected = Additions::parse(text).ok()?;
        let (after, text) = self.written(text, |text| Additions::parse(text).ok())?;
        let more = self.listed();
        expected.keys.kek.extend(more.kek);
        expected.keys.db.extend(more.db);
        expected.keys.authorities.extend(more.authorities);
        (after == expected).then_some(text)
    }

    fn written<T>(&self, text: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, String)> {
        let mut text = text.to_owned();
        for list in KeyList::ALL {
            let entries: Vec<_> = self.of(list).map(|entry| (entry.is, entry.what.as_str())).collect();
            if !entries.is_empty() {
                text = edit::listing(&text, list.key(), &entries)?;
            }
        }
        Some((read(&text)?, text))
    }
}

/// As it stands in a document: `[secure_boot]` with what is new in it.
impl fmt::Display for KeyUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.written("", |_| Some(())) {
            Some((_, text)) => f.write_str(text.trim()),
            None => Ok(()),
        }
    }
}

fn short(what: &str) -> String {
    match what.char_indices().nth(LONGEST_NAME) {
        Some((at, _)) => format!("{}…", &what[..at]),
        None => what.to_owned(),
    }
}
