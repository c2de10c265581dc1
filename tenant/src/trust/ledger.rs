//! What this workstation knows of a deployment: where its sequence of documents ended when it was last looked at, and for each scope the
//! newest document that its tenant key signed, here or at another workstation. A server that forgets one, or shows an old one, is noticed.

use crate::error::{Error, Result};
use crate::home::key::TenantKey;
use crate::home::{Existing, Home};
use crate::render::text::hex;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Deployment, Place, Scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FILE: &str = "documents.json";
/// Some hundred thousand scopes.
const MAX_FILE: u64 = 64 << 20;
/// More than one entry takes, in bytes.
const ENTRY: u64 = 1024;

/// The memory of one deployment, in `documents.json` of the home folder.
pub struct Ledger<'a> {
    home: &'a Home,
    deployment: Deployment,
}

/// What is known of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The newest document that was seen there.
    newest: u64,
    /// Its SHA-256, hex.
    sha256: String,
    /// Fingerprint of the tenant key that it was looked at with, and that signed what is held. What another one signed up to there
    /// was not noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
    /// By scope: what this workstation's tenant key signed and the server took.
    held: BTreeMap<String, Held>,
    /// The server has shown two documents of one number: nothing is signed until the owner has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fork: Option<Fork>,
}

/// Two documents of one number, by their SHA-256, hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    number: u64,
    before: String,
    now: String,
}

impl Fork {
    fn error(&self) -> Error {
        Error::untrusted(format!(
            "the documents that the server shows are not one sequence: document {} is another one than before\n  before  {}\n  now     {}",
            self.number, self.before, self.now
        ))
        .hint(FORKED)
    }
}

impl Known {
    /// Takes a part of the sequence that was followed. Another command of this workstation may have seen more meanwhile, and
    /// something else: what was seen is not replaced by another document of its number. Whether it could be compared.
    fn saw(&mut self, part: &[Place]) -> bool {
        let Some(end) = part.last() else { return true };
        match part.iter().find(|place| self.newest > 0 && place.number == self.newest) {
            Some(place) if hex(&place.sha256) != self.sha256 => {
                let (before, now) = (self.sha256.clone(), hex(&place.sha256));
                self.fork.get_or_insert(Fork { number: self.newest, before, now });
                return true;
            }
            Some(_) => {}
            None if end.number < self.newest => return true,
            None if self.newest > 0 => return false,
            None => {}
        }
        (self.newest, self.sha256) = (end.number, hex(&end.sha256));
        true
    }
}

/// The newest document of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    /// Its number in the sequence.
    version: u64,
    /// SHA-256 of that document, hex.
    sha256: String,
    /// It is the proof by which the node went to another tenant key: what was signed here before it counts no more.
    #[serde(default, skip_serializing_if = "is_false")]
    ended: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

type Deployments = BTreeMap<String, Known>;

impl<'a> Ledger<'a> {
    /// The ledger of a deployment.
    pub fn new(home: &'a Home, deployment: Deployment) -> Self {
        Self { home, deployment }
    }

    /// Which deployment it is of.
    pub fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// Compares where a server's sequence ends with where it once ended. Gives what has to be in it.
    ///
    /// # Errors
    /// `Untrusted` when it is shorter: with each document of this workstation that is missing; when it has forked before.
    pub fn not_before(&self, found: &Place) -> Result<Option<(u64, String)>> {
        let known = self.known()?;
        if let Some(fork) = &known.fork {
            return Err(fork.error());
        }
        if found.number >= known.newest {
            return Ok((known.newest > 0).then_some((known.newest, known.sha256)));
        }
        let mut what = format!(
            "the server has gone back: its newest document is number {}, and it once had number {}",
            found.number, known.newest
        );
        for (scope, held) in known.held.iter().filter(|(_, held)| held.version > found.number) {
            what.push_str(&format!(
                "\n  missing  document {} of this workstation's key, for {scope}",
                held.version
            ));
        }
        Err(Error::untrusted(what).hint(GONE_BACK))
    }

    /// Remembers a part of a server's sequence that was followed to where it ends. False if another command has seen another part
    /// meanwhile: then it has to be followed from there.
    ///
    /// # Errors
    /// `Untrusted` when another command has seen another document of a number of it; when the home folder can't be written.
    pub fn saw(&self, part: &[Place]) -> Result<bool> {
        let (mut compared, mut fork) = (true, None);
        self.change(|known| {
            compared = known.saw(part);
            fork.clone_from(&known.fork);
        })?;
        fork.map_or(Ok(compared), |fork| Err(fork.error()))
    }

    /// The server shows another document of a number than before. Gives the error, which stays until the owner has said
    /// `halfkey accept-rollback`.
    pub fn forked(&self, number: u64, before: &str, now: &Place) -> Error {
        let fork = Fork { number, before: before.to_owned(), now: hex(&now.sha256) };
        let remembered = self.change(|known| {
            known.fork.get_or_insert_with(|| fork.clone());
        });
        remembered.err().unwrap_or_else(|| fork.error())
    }

    /// Scopes whose document is not the one of its number in a sequence, given by its hashes from number 1 on.
    ///
    /// # Errors
    /// When the home folder can't be read.
    pub fn missing(&self, hashes: &[String]) -> Result<Vec<(String, u64)>> {
        let there = |held: &Held| {
            let index = usize::try_from(held.version).ok().and_then(|version| version.checked_sub(1));
            index.and_then(|index| hashes.get(index)) == Some(&held.sha256)
        };
        let held = self.known()?.held.into_iter();
        Ok(held.filter(|(_, held)| !there(held)).map(|(scope, held)| (scope, held.version)).collect())
    }

    /// Goes by a sequence that ends at `newest`, without these.
    ///
    /// # Errors
    /// When the home folder can't be written.
    pub fn accept(&self, newest: &Place, missing: &[(String, u64)]) -> Result<()> {
        self.change(|known| {
            (known.newest, known.sha256) = (newest.number, hex(&newest.sha256));
            known.fork = None;
            for (scope, _) in missing {
                known.held.remove(scope);
            }
        })
    }

    /// Whether one more document can be remembered: asked before it is submitted.
    ///
    /// # Errors
    /// `Failed` when the file is full.
    pub fn require_room(&self, scope: &Scope) -> Result<()> {
        let deployments = self.read()?;
        let known = deployments.get(&self.deployment.to_string());
        if known.is_some_and(|known| known.held.contains_key(&scope.to_string())) {
            return Ok(());
        }
        let size = rendered(&deployments).len() as u64;
        if size + ENTRY <= MAX_FILE { Ok(()) } else { Err(self.full(size)) }
    }

    fn full(&self, size: u64) -> Error {
        let path = self.home.path().join(FILE);
        Error::failed(format!("{} has {size} bytes, of at most {MAX_FILE}: nothing was signed", path.display()))
            .hint("it has an entry for each node and group; use another workstation, with a key of its own, for more nodes")
    }

    /// Compares the newest document of a scope that the server shows (for which deployment it is, and its place there; `None`: that
    /// there is none) with what it once had.
    ///
    /// # Errors
    /// `Untrusted` when it is older, another one of the same number, or of another deployment.
    pub fn check(&self, scope: &Scope, served: Option<(Deployment, &Place)>) -> Result<()> {
        if let Some((found, _)) = served {
            self.check_deployment(scope, found)?;
        }
        let Some(held) = self.known()?.held.remove(&scope.to_string()) else { return Ok(()) };
        let (version, sha256) =
            served.map_or((0, String::new()), |(_, place)| (place.number, hex(&place.sha256)));
        if held.ended {
            return match served {
                Some(_) if version <= held.version => Err(Error::untrusted(format!(
                    "the server shows version {version} of {scope}, which ended when the node was enrolled with another tenant key"
                ))
                .hint(RESTORED)),
                Some(_) | None => Ok(()),
            };
        }
        if version < held.version {
            let found = if served.is_some() { format!("version {version}") } else { "none".to_owned() };
            return Err(Error::untrusted(format!(
                "expected version {} of {scope} or a later one, the server shows {found}",
                held.version
            ))
            .hint(RESTORED));
        }
        if version == held.version && sha256 != held.sha256 {
            return Err(Error::untrusted(format!(
                "the server shows another version {version} of {scope} than before\n  before  {}\n  now     {sha256}",
                held.sha256
            ))
            .hint("two workstations with this tenant key may have signed the same version; compare with the other, then apply the whole policy again with `halfkey policy apply FILE`"));
        }
        Ok(())
    }

    /// Whether a document that the server shows is for this deployment.
    ///
    /// # Errors
    /// `Untrusted` when it is for another one.
    pub fn check_deployment(&self, scope: &Scope, found: Deployment) -> Result<()> {
        if found == self.deployment {
            return Ok(());
        }
        Err(Error::untrusted(format!(
            "the server shows a document for {scope} that this workstation signed for another deployment\n  expected  {}\n  found     {found}",
            self.deployment
        )))
    }

    /// Remembers what the server has taken, after `head`.
    ///
    /// # Errors
    /// As [`Ledger::saw`].
    pub fn held(&self, scope: &Scope, head: &Place, place: &Place) -> Result<()> {
        self.change(|known| {
            // What another command has seen beyond `head` is compared by the next one.
            known.saw(&[*head, *place]);
            let held = Held { version: place.number, sha256: hex(&place.sha256), ended: false };
            known.held.insert(scope.to_string(), held);
        })?;
        self.known()?.fork.map_or(Ok(()), |fork| Err(fork.error()))
    }

    /// Whether the sequence was looked at with this tenant key so far. Else it has to be followed from the first document.
    ///
    /// # Errors
    /// When the home folder can't be read.
    pub fn is_of(&self, key: &TenantKey) -> Result<bool> {
        Ok(self.known()?.key == key.fingerprint())
    }

    /// Remembers what a part of the sequence has by this workstation's tenant key, whichever workstation signed it: the newest of
    /// each scope. What is
    /// `missing` from the whole sequence makes room for an older one. If it was looked at with another key so far, the part is all of
    /// the sequence: what that key signed is not held any more, and what this one signed is all there.
    ///
    /// # Errors
    /// `Failed` when the file is full; when the home folder can't be written.
    pub fn signed(
        &self,
        key: &TenantKey,
        own: &BTreeMap<String, Place>,
        missing: &[(String, u64)],
    ) -> Result<()> {
        self.change(|known| {
            if known.key != key.fingerprint() {
                known.held.clear();
                known.key = key.fingerprint();
            }
            for (scope, place) in own {
                let before = known.held.get(scope);
                let newer = before.is_none_or(|held| held.version < place.number);
                if newer || missing.iter().any(|(gone, _)| gone == scope) {
                    let held = Held { version: place.number, sha256: hex(&place.sha256), ended: false };
                    known.held.insert(scope.clone(), held);
                }
            }
        })
    }

    /// What is held was signed by this key: else what is remembered from now on would be taken for another one's.
    ///
    /// # Errors
    /// `Failed` when it was not; when the home folder can't be read.
    pub fn require_of(&self, key: &TenantKey) -> Result<()> {
        if self.is_of(key)? {
            return Ok(());
        }
        Err(Error::failed("the tenant key of this workstation was replaced meanwhile; nothing was signed")
            .hint("run the command again"))
    }

    /// Whether an enrollment of a node is the newest one that this workstation's key signed, as far as it is known.
    ///
    /// # Errors
    /// When the home folder can't be read.
    pub fn has_enrolled(&self, node: NodeId, enrollment: &Place) -> Result<bool> {
        let held = self.known()?.held.remove(&Scope::Enrollment(node).to_string());
        let same = |held: Held| held.version == enrollment.number && held.sha256 == hex(&enrollment.sha256);
        Ok(held.filter(|held| !held.ended).is_some_and(same))
    }

    /// What this workstation's key signed for one node alone before document `number`, and counts as far as it knows.
    ///
    /// # Errors
    /// When the home folder can't be read.
    pub fn of_node(&self, node: NodeId, number: u64) -> Result<Vec<String>> {
        let held = self.known()?.held;
        let counts =
            |scope: &String| held.get(scope).is_some_and(|held| !held.ended && held.version < number);
        let scopes =
            [Scope::Node(node), Scope::Additions(node), Scope::Membership(node), Scope::Enrollment(node)];
        Ok(scopes.iter().map(Scope::to_string).filter(counts).collect())
    }

    /// That ended with this proof. Gives what it was.
    ///
    /// # Errors
    /// When the home folder can't be read or written.
    pub fn end(&self, node: NodeId, proof: &Place) -> Result<Vec<String>> {
        let ended = self.of_node(node, proof.number)?;
        self.change(|known| {
            for scope in &ended {
                let held = Held { version: proof.number, sha256: hex(&proof.sha256), ended: true };
                known.held.insert(scope.clone(), held);
            }
        })?;
        Ok(ended)
    }

    fn known(&self) -> Result<Known> {
        Ok(self.read()?.remove(&self.deployment.to_string()).unwrap_or_default())
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> Result<()> {
        // Two commands at a time would each forget what the other has seen.
        let _lock = self.home.lock()?;
        let mut deployments = self.read()?;
        let known = deployments.entry(self.deployment.to_string()).or_default();
        let before = known.clone();
        change(known);
        // Most commands see what was seen before.
        if *known == before && before != Known::default() {
            return Ok(());
        }
        let text = rendered(&deployments);
        // It could not be read again.
        if text.len() as u64 > MAX_FILE {
            return Err(self.full(text.len() as u64));
        }
        self.home.write(FILE, &text, Existing::Replace)
    }

    fn read(&self) -> Result<Deployments> {
        let Some(json) = self.home.read(FILE, MAX_FILE)? else { return Ok(Deployments::new()) };
        serde_json::from_slice(&json).map_err(|_| {
            Error::failed(format!("{} is damaged", self.home.path().join(FILE).display()))
                .hint("restore it from a backup; without it an older policy would go unnoticed")
        })
    }
}

fn rendered(deployments: &Deployments) -> Vec<u8> {
    serde_json::to_vec_pretty(deployments).expect("strings and numbers have a JSON form")
}

/// What to do when a server has gone back.
const GONE_BACK: &str = "if the verifier was restored from a backup on purpose, `halfkey accept-rollback` goes on from there; else somebody put its database back";

/// What to do when it has shown two documents of one number.
const FORKED: &str = "somebody changed its database, or put back a part of it, or it shows each workstation another one: compare with other workstations; if it was restored from a backup on purpose, `halfkey accept-rollback` goes on from what it has";

/// What to do when it shows an older document of one scope.
const RESTORED: &str = "if the verifier was restored from a backup, apply the whole policy again with `halfkey policy apply FILE`, and look at groups and revocations; else somebody put its database back";

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Each command would else write what it has read, without what another has remembered since.
    #[test]
    fn what_commands_remember_at_once_is_all_remembered() {
        const COMMANDS: u8 = 8;
        const DOCUMENTS: u64 = 10;
        let dir = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(dir.path().join("home"))).unwrap();
        home.create().unwrap();
        let deployment = Deployment([5; 16]);
        thread::scope(|scope| {
            for node in 0..COMMANDS {
                let home = &home;
                scope.spawn(move || {
                    for number in 1..=DOCUMENTS {
                        let [head, place] =
                            [number - 1, number].map(|number| Place { number, sha256: [0; 32] });
                        let id = NodeId([node; 16]);
                        Ledger::new(home, deployment).held(&Scope::Node(id), &head, &place).unwrap();
                        Ledger::new(home, deployment).held(&Scope::Membership(id), &head, &place).unwrap();
                    }
                });
            }
        });
        let known = Ledger::new(&home, deployment).known().unwrap();
        assert_eq!(known.held.len(), 2 * usize::from(COMMANDS), "{known:?}");
        assert!(known.held.values().all(|held| held.version == DOCUMENTS), "{known:?}");
    }
}
