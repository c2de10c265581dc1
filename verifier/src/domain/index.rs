//! What the sequence of documents says, whatever the rows beside it say.
//!
//! The documents name each other by their hashes, from the newest back to the first. At the start they are read once and
//! checked; from then on it is known which document of each scope is the newest. A row that goes by another one is damage.

use super::model::Stage;
use super::words::Words;
use halfkey_evidence::signed_document;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Deployment, Kind, Opened, Place, Scope};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::operator::Held;
use halfkey_protocol::wire::{self, SignedDocument};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// The sequence, without its documents.
#[derive(Default)]
pub struct Index {
    /// By number, from 1.
    hashes: Vec<[u8; 32]>,
    /// By scope and tenant key: number of the newest document.
    newest: HashMap<String, HashMap<[u8; 32], u64>>,
    /// Documents that withdraw a policy.
    withdrawals: HashSet<u64>,
    /// Documents that put a node into a group: which one. Empty: into none.
    groups: HashMap<u64, String>,
    /// Nodes that a document ever put into a group.
    put_into: HashMap<String, HashSet<NodeId>>,
    /// The newest enrollment of a node, whoever signed it.
    enrolled: HashMap<NodeId, Signed>,
    /// The enrollment of a node that was proved last.
    proved: HashMap<NodeId, Proved>,
    /// Nodes whose newest entry is a revocation, by whom and why.
    revoked: HashMap<NodeId, Words>,
    /// Nodes that are held, by whom and why.
    held: HashMap<NodeId, Words>,
    /// Enrollments up to this document that were not proved are used up: a restored database was accepted then.
    accepted: u64,
}

/// An enrollment.
#[derive(Clone)]
struct Signed {
    /// Number of its document.
    number: u64,
    /// The tenant key that counts.
    key: [u8; 32],
    /// What the tenant calls the node.
    label: String,
    /// Name of the TPM's storage key, which a TPM that is cleared loses.
    srk_name: Vec<u8>,
}

/// An enrollment that was proved.
struct Proved {
    enrollment: Signed,
    /// Number of the proof by which the node became this tenant's: what was signed for the node before counts no more. 0 if it was
    /// never another's.
    since: u64,
    /// The same of its TPM's storage key, too: what was trusted before counts no more.
    trusts_since: u64,
}

impl Index {
    /// Where it ends.
    pub fn head(&self) -> Place {
        Place { number: self.hashes.len() as u64, sha256: self.hashes.last().copied().unwrap_or_default() }
    }

    /// The next document, as it is stored.
    ///
    /// # Errors
    /// When it is not the next of this deployment, or proves what was not enrolled.
    pub fn read(&mut self, signed: &SignedDocument, deployment: Deployment) -> Result<Opened, String> {
        let at = self.hashes.len() + 1;
        let opened = signed_document::open(signed).map_err(|flaw| format!("document {at}: {flaw}"))?;
        if opened.deployment != deployment {
            return Err(format!(
                "document {at} is for deployment {}, this is {deployment}",
                opened.deployment
            ));
        }
        halfkey_protocol::document::follows(&opened, &self.head())
            .map_err(|why| format!("document {at}: {why}"))?;
        if let (Scope::Proof(node), Some(named)) = (&opened.scope, opened.proves())
            && self.stage(*node, &named) != Some(Stage::Open)
        {
            return Err(format!(
                "document {at}: expected a proof of the open enrollment of node {node}, found one of document {}, {}",
                named.number,
                crate::hex(&named.sha256)
            ));
        }
        self.require_tenant(&opened).map_err(|why| format!("document {at}: {why}"))?;
        self.push(&opened);
        Ok(opened)
    }

    /// What gives a node something (a boot that waits is released, a revocation or a hold is taken back) is its tenant's to say: of
    /// whoever enrolled it, as the node proved. Of a node that proved none any tenant says it: nothing is released to it, and anybody
    /// can leave an enrollment open.
    ///
    /// # Errors
    /// Whose key is expected, and whose is found.
    pub fn require_tenant(&self, opened: &Opened) -> Result<(), String> {
        let node = match (opened.kind, &opened.scope) {
            (Kind::Restoration, Scope::Revocation(node))
            | (Kind::Release, Scope::Hold(node))
            | (Kind::Approval, Scope::Approval(node)) => node,
            _ => return Ok(()),
        };
        let tenant = self.proved.get(node).map(|proved| &proved.enrollment.key);
        let (Some(tenant), Some(found)) = (tenant, opened.keys.first()) else { return Ok(()) };
        if found == tenant {
            return Ok(());
        }
        let [tenant, found] = [tenant, found].map(|key| fingerprint(key));
        Err(format!(
            "expected {} by the tenant key that enrolled node {node}, {tenant}, found {found}",
            opened.kind.with_article()
        ))
    }

    /// The next document, which was checked.
    pub fn push(&mut self, opened: &Opened) {
        let number = opened.place.number;
        self.hashes.push(opened.place.sha256);
        match (&opened.scope, opened.kind) {
            (Scope::Revocation(node), Kind::Revocation) => {
                say(&mut self.revoked, *node, word(&opened.body));
            }
            (Scope::Revocation(node), _) => {
                self.revoked.remove(node);
            }
            (Scope::Hold(node), Kind::Hold) => {
                say(&mut self.held, *node, word(&opened.body));
            }
            (Scope::Hold(node), _) => {
                self.held.remove(node);
            }
            (Scope::Enrollment(node), _) => {
                let key = opened.keys.first().copied().unwrap_or_default();
                let said = serde_json::from_str::<wire::Enrollment>(&opened.body);
                let said = said.map(|said| (said.label, said.srk_name.to_vec()));
                let (label, srk_name) = said.unwrap_or_default();
                self.enrolled.insert(*node, Signed { number, key, label, srk_name });
            }
            (Scope::Proof(node), _) => {
                let named = opened.proves().filter(|named| self.stage(*node, named) == Some(Stage::Open));
                if let Some(enrollment) = named.and_then(|_| self.enrolled.get(node)).cloned() {
                    let since = if self.goes_to_another(*node) { number } else { self.since(*node) };
                    let anew = since == number || self.changes_srk(*node);
                    let trusts_since = if anew { number } else { self.trusts_since(*node) };
                    self.proved.insert(*node, Proved { enrollment, since, trusts_since });
                }
            }
            (Scope::Membership(node), _) => {
                self.groups.insert(number, opened.body.clone());
                self.put_into.entry(opened.body.clone()).or_default().insert(*node);
            }
            (Scope::Node(_) | Scope::Group(_) | Scope::Additions(_), Kind::Withdrawal) => {
                self.withdrawals.insert(number);
            }
            (Scope::Node(_) | Scope::Group(_) | Scope::Additions(_) | Scope::Approval(_), _) => {}
        }
        let scope = opened.scope.to_string();
        if !opened.keys.is_empty() {
            let of_scope = self.newest.entry(scope).or_default();
            of_scope.extend(opened.keys.iter().map(|key| (*key, number)));
        }
    }

    /// Whether the newest entry of an operator says so.
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.revoked.contains_key(&node)
    }

    /// Why, if it is.
    pub fn revoked(&self, node: NodeId) -> Option<&str> {
        self.revoked.get(&node).map(|words| words.newest().because.as_str())
    }

    /// The same of a hold.
    pub fn is_held(&self, node: NodeId) -> bool {
        self.held.contains_key(&node)
    }

    /// Who holds it and why, if it is.
    pub fn held(&self, node: NodeId) -> Option<&Held> {
        self.held.get(&node).map(Words::newest)
    }

    /// What operators have said in this scope since the node is revoked, or held; none if it is not.
    pub fn said(&self, scope: &Scope) -> Option<&Words> {
        match scope {
            Scope::Revocation(node) => self.revoked.get(node),
            Scope::Hold(node) => self.held.get(node),
            Scope::Node(_)
            | Scope::Group(_)
            | Scope::Additions(_)
            | Scope::Membership(_)
            | Scope::Enrollment(_)
            | Scope::Proof(_)
            | Scope::Approval(_) => None,
        }
    }

    /// A restored database was accepted when it ended there: what was open then is used up.
    pub fn accept(&mut self, number: u64) {
        self.accepted = number;
    }

    /// Where the enrollment with this document stands. `None`: the sequence has another document of that number, or none.
    pub fn stage(&self, node: NodeId, document: &Place) -> Option<Stage> {
        let (newest, proved) = (self.enrolled(node), self.proved(node));
        self.has(document).then_some(match document.number {
            number if number == proved => Stage::Proved,
            number if number == newest && number <= self.accepted => Stage::UsedUp,
            number if number == newest => Stage::Open,
            _ => Stage::Replaced,
        })
    }

    /// How many enrollments are open, and not used up by a database that was accepted up to this document.
    pub fn open_after(&self, accepted: u64) -> usize {
        let waits = |node: &NodeId, newest: u64| newest > accepted && newest != self.proved(*node);
        self.enrolled.iter().filter(|(node, newest)| waits(node, newest.number)).count()
    }

    /// A document for one node counts only if it has a number after this: that of the proof by which the node went to its tenant
    /// from another one, if it ever did.
    pub fn since(&self, node: NodeId) -> u64 {
        self.proved.get(&node).map_or(0, |proved| proved.since)
    }

    /// A proposal that was trusted counts only if that was under this number: that of the proof by which the node went to its tenant,
    /// or by which its TPM was enrolled again after it was cleared.
    pub fn trusts_since(&self, node: NodeId) -> u64 {
        self.proved.get(&node).map_or(0, |proved| proved.trusts_since)
    }

    /// Whether a proof of the open enrollment makes the node another tenant's than it was.
    pub fn goes_to_another(&self, node: NodeId) -> bool {
        self.open_differs(node, |before, open| before.key != open.key)
    }

    /// Whether a proof of the open enrollment is of another storage key than the one before: the TPM was cleared.
    pub fn changes_srk(&self, node: NodeId) -> bool {
        self.open_differs(node, |before, open| before.srk_name != open.srk_name)
    }

    fn open_differs(&self, node: NodeId, differs: impl Fn(&Signed, &Signed) -> bool) -> bool {
        match (self.proved.get(&node), self.enrolled.get(&node)) {
            (Some(before), Some(open)) => differs(&before.enrollment, open),
            (None, _) | (_, None) => false,
        }
    }

    /// Number of the document by which the tenant of the open enrollment says last which group the node is in, if that will count
    /// when the enrollment is proved.
    pub fn membership_at_proof(&self, node: NodeId) -> Option<u64> {
        let open = self.enrolled.get(&node).filter(|_| !self.goes_to_another(node))?;
        self.newest_since(&Scope::Membership(node).to_string(), &open.key, self.since(node))
    }

    /// Whether this document withdraws a policy.
    pub fn withdraws(&self, number: u64) -> bool {
        self.withdrawals.contains(&number)
    }

    /// Into which group this document puts a node, if it does.
    pub fn group_of(&self, number: u64) -> Option<&str> {
        self.groups.get(&number).map(String::as_str).filter(|group| !group.is_empty())
    }

    /// The nodes in a group, by the documents. Of a node that is enrolled its tenant's word counts.
    pub fn members_of<'a>(&'a self, group: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        let ever = self.put_into.get(group).into_iter().flatten().copied();
        ever.filter(move |node| self.group_by_documents(*node) == Some(group))
    }

    /// The nodes that a document with this scope is about.
    pub fn nodes_of(&self, scope: &Scope, mut each: impl FnMut(NodeId)) {
        match scope {
            Scope::Group(group) => self.members_of(group).for_each(each),
            other => other.node().into_iter().for_each(&mut each),
        }
    }

    /// Each node that is in a group, with its name.
    pub fn members(&self) -> impl Iterator<Item = (&str, NodeId)> {
        self.put_into.keys().flat_map(|group| self.members_of(group).map(move |node| (group.as_str(), node)))
    }

    fn group_by_documents(&self, node: NodeId) -> Option<&str> {
        let scope = Scope::Membership(node).to_string();
        let number = match self.key(node) {
            Some(key) => self.newest_since(&scope, key, self.since(node))?,
            None => self.newest.get(&scope)?.values().copied().max()?,
        };
        self.group_of(number)
    }

    /// Whether a policy of this scope by this key is in force: what counts is the last that it signed.
    pub fn in_force(&self, scope: &Scope, key: &[u8; 32]) -> bool {
        let since = scope.node().map_or(0, |node| self.since(node));
        self.newest_since(&scope.to_string(), key, since).is_some_and(|number| !self.withdraws(number))
    }

    /// Number of the newest document of a scope by this key, if it is after a number.
    pub fn newest_since(&self, scope: &str, key: &[u8; 32], since: u64) -> Option<u64> {
        self.newest.get(scope)?.get(key).copied().filter(|number| *number > since)
    }

    /// Number of the newest document of a scope, or 0. Of what is for one node those of its tenant count, since it is that one's.
    pub fn newest_that_counts(&self, scope: &Scope) -> u64 {
        let text = scope.to_string();
        let Some(node) = scope.node() else {
            return self.newest_by_key(&text).first().copied().unwrap_or(0);
        };
        self.key(node).and_then(|key| self.newest_since(&text, key, self.since(node))).unwrap_or(0)
    }

    /// Tenant key of the enrollment that was proved, else of the open one.
    pub fn key(&self, node: NodeId) -> Option<&[u8; 32]> {
        let proved = self.proved.get(&node).map(|proved| &proved.enrollment);
        proved.or_else(|| self.enrolled.get(&node)).map(|enrollment| &enrollment.key)
    }

    /// Numbers of the newest document of a scope by each tenant key, newest first.
    pub fn newest_by_key(&self, scope: &str) -> Vec<u64> {
        let of_scope = self.newest.get(scope).into_iter().flatten();
        let mut numbers: Vec<u64> = of_scope.map(|(_, number)| *number).collect();
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        numbers
    }

    /// Every scope that a tenant signed something for, in order.
    pub fn scopes(&self) -> std::collections::BTreeSet<&str> {
        self.newest.keys().map(String::as_str).collect()
    }

    /// What the tenant calls the node: by the enrollment that was proved, else by the open one. Anybody can sign one that is never
    /// proved.
    pub fn label(&self, node: NodeId) -> Option<&str> {
        let proved = self.proved.get(&node).map(|proved| &proved.enrollment);
        proved.or_else(|| self.enrolled.get(&node)).map(|enrollment| enrollment.label.as_str())
    }

    /// The nodes with this label, and those whose ids begin so.
    pub fn named(&self, typed: &str) -> impl Iterator<Item = NodeId> {
        let prefix = typed.to_ascii_lowercase();
        let fits = move |node: &NodeId| {
            self.label(*node) == Some(typed) || !prefix.is_empty() && node.to_string().starts_with(&prefix)
        };
        self.enrolled.keys().copied().filter(fits)
    }

    /// Whether any enrollment of the node was ever signed.
    pub fn is_enrolled(&self, node: NodeId) -> bool {
        self.enrolled.contains_key(&node)
    }

    /// Whether any enrollment of the node was ever proved.
    pub fn is_proved(&self, node: NodeId) -> bool {
        self.proved.contains_key(&node)
    }

    /// Whose the newest document of a scope is.
    pub fn owner(&self, scope: &str) -> Option<&[u8; 32]> {
        let of_scope = self.newest.get(scope)?.iter();
        of_scope.max_by_key(|(_, number)| **number).map(|(key, _)| key)
    }

    /// Whether any node that is not revoked is enrolled with a key, proved or not.
    pub fn enrolls(&self, key: &[u8]) -> bool {
        let proved = self.proved.iter().map(|(node, proved)| (node, &proved.enrollment));
        let mut all = self.enrolled.iter().chain(proved);
        all.any(|(node, enrollment)| enrollment.key == key && !self.is_revoked(*node))
    }

    /// Number of the newest enrollment of a node, or 0.
    pub fn enrolled(&self, node: NodeId) -> u64 {
        self.enrolled.get(&node).map_or(0, |enrollment| enrollment.number)
    }

    /// Number of the enrollment of a node that was proved last, or 0.
    pub fn proved(&self, node: NodeId) -> u64 {
        self.proved.get(&node).map_or(0, |proved| proved.enrollment.number)
    }

    /// Whether the sequence has it, or is nothing but what came after nothing.
    pub fn goes_on_from(&self, place: &Place) -> bool {
        *place == Place::default() || self.has(place)
    }

    /// Whether it is one of the sequence.
    pub fn has(&self, place: &Place) -> bool {
        let index = usize::try_from(place.number).ok().and_then(|number| number.checked_sub(1));
        index.and_then(|index| self.hashes.get(index)) == Some(&place.sha256)
    }
}

/// Who and why, as the body of an entry says it.
pub fn word(body: &str) -> Held {
    let (by, because) = body.split_once(": ").unwrap_or(("", body));
    Held { by: by.to_owned(), because: because.to_owned() }
}

fn say(standing: &mut HashMap<NodeId, Words>, node: NodeId, word: Held) {
    match standing.entry(node) {
        Entry::Occupied(words) => words.into_mut().push(word),
        Entry::Vacant(none) => drop(none.insert(Words::first(word))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::Bytes;
    use halfkey_protocol::document::{next, proof_of};

    const HERE: Deployment = Deployment([5; 16]);
    const NODE: NodeId = NodeId([7; 16]);
    const A: [u8; 32] = [0xa; 32];
    const B: [u8; 32] = [0xb; 32];

    fn push(index: &mut Index, kind: Kind, scope: Scope, body: &str, keys: &[[u8; 32]]) -> u64 {
        let number = index.head().number + 1;
        let place = at(number);
        let (body, keys) = (body.to_owned(), keys.to_vec());
        let previous = index.head().sha256;
        index.push(&Opened { kind, scope, deployment: HERE, place, previous, created: 1, body, keys });
        number
    }

    fn enroll(index: &mut Index, key: [u8; 32]) -> u64 {
        push(index, Kind::Enrollment, Scope::Enrollment(NODE), "", &[key])
    }

    fn prove(index: &mut Index, enrollment: u64) -> u64 {
        push(index, Kind::Proof, Scope::Proof(NODE), &proof_of(&at(enrollment)), &[])
    }

    /// Where [`push`] has put it.
    fn at(number: u64) -> Place {
        Place { number, sha256: [number as u8; 32] }
    }

    /// Of a TPM with this SRK.
    fn enroll_srk(index: &mut Index, key: [u8; 32], srk_name: &[u8]) -> u64 {
        let none = Bytes::default;
        let said = wire::Enrollment {
            enrollment_id: String::new(),
            challenge: none(),
            ek_name: none(),
            ak_name: none(),
            srk_name: srk_name.into(),
            c_u_sha256: none(),
            c_v_sha256: none(),
            release_public: none(),
            bank: String::new(),
            proof_sha256: none(),
            ca: String::new(),
            servers: Vec::new(),
            label: String::new(),
        };
        let body = serde_json::to_string(&said).unwrap();
        push(index, Kind::Enrollment, Scope::Enrollment(NODE), &body, &[key])
    }

    fn stages(index: &Index, numbers: &[u64]) -> Vec<Stage> {
        numbers.iter().filter_map(|number| index.stage(NODE, &at(*number))).collect()
    }

    #[test]
    fn an_enrollment_is_open_then_proved_then_replaced() {
        let mut index = Index::default();
        assert_eq!(stages(&index, &[0, 1]), []);
        let first = enroll(&mut index, A);
        assert_eq!(stages(&index, &[first]), [Stage::Open]);
        let second = enroll(&mut index, A);
        assert_eq!(stages(&index, &[first, second]), [Stage::Replaced, Stage::Open]);
        let proof = prove(&mut index, second);
        assert_eq!(
            stages(&index, &[first, second, proof]),
            [Stage::Replaced, Stage::Proved, Stage::Replaced]
        );
        let third = enroll(&mut index, A);
        // Nobody enrolled another document of its number.
        let other = Place { sha256: [9; 32], ..at(third) };
        assert_eq!(index.stage(NODE, &other), None);
        push(&mut index, Kind::Proof, Scope::Proof(NODE), &proof_of(&other), &[]);
        assert_eq!(stages(&index, &[second, third]), [Stage::Proved, Stage::Open]);
        prove(&mut index, third);
        assert_eq!(stages(&index, &[second, third]), [Stage::Replaced, Stage::Proved]);
        // Of one that is not the open one it is none, whoever wrote it.
        prove(&mut index, second);
        assert_eq!(stages(&index, &[second, third]), [Stage::Replaced, Stage::Proved]);
    }

    /// By the document's number: no row says otherwise.
    #[test]
    fn what_is_open_in_a_database_that_is_accepted_is_used_up() {
        let mut index = Index::default();
        let first = enroll(&mut index, A);
        prove(&mut index, first);
        let second = enroll(&mut index, A);
        assert_eq!((index.open_after(0), index.open_after(second)), (1, 0));
        index.accepted = index.head().number;
        assert_eq!(stages(&index, &[first, second]), [Stage::Proved, Stage::UsedUp]);
        // Not by a proof either.
        prove(&mut index, second);
        assert_eq!(stages(&index, &[first, second]), [Stage::Proved, Stage::UsedUp]);
        let third = enroll(&mut index, A);
        assert_eq!(stages(&index, &[first, second, third]), [Stage::Proved, Stage::Replaced, Stage::Open]);
        assert_eq!(index.open_after(index.accepted), 1);
        prove(&mut index, third);
        assert_eq!(stages(&index, &[first, third]), [Stage::Replaced, Stage::Proved]);
    }

    #[test]
    fn documents_count_from_the_proof_by_which_the_node_went_to_their_tenant() {
        let mut index = Index::default();
        let own = |index: &mut Index, key| push(index, Kind::Policy, Scope::Node(NODE), "", &[key]);
        let first = enroll(&mut index, A);
        own(&mut index, A);
        prove(&mut index, first);
        assert_eq!(index.since(NODE), 0, "what was signed before the first proof counts");
        let again = enroll(&mut index, A);
        prove(&mut index, again);
        assert_eq!(index.since(NODE), 0);
        // Not proved: the node is still the first one's.
        enroll(&mut index, B);
        assert_eq!(index.since(NODE), 0);
        let other = enroll(&mut index, B);
        let went = prove(&mut index, other);
        assert_eq!(index.since(NODE), went);
        let back = enroll(&mut index, A);
        assert_eq!(index.since(NODE), went);
        let came = prove(&mut index, back);
        assert_eq!(index.since(NODE), came);
        let once_more = enroll(&mut index, A);
        prove(&mut index, once_more);
        assert_eq!(index.since(NODE), came);
    }

    #[test]
    fn trust_counts_from_the_proof_of_another_srk_or_by_another_tenant() {
        let mut index = Index::default();
        let mut expected = 0;
        for (key, srk, anew) in
            [(A, b"1", false), (A, b"1", false), (A, b"2", true), (A, b"2", false), (B, b"2", true)]
        {
            let enrollment = enroll_srk(&mut index, key, srk);
            assert_eq!(index.trusts_since(NODE), expected, "not before it is proved");
            let proof = prove(&mut index, enrollment);
            expected = if anew { proof } else { expected };
            assert_eq!(index.trusts_since(NODE), expected, "{srk:?}");
            assert_eq!(index.since(NODE), if key == B { proof } else { 0 }, "{srk:?}");
        }
    }

    #[test]
    fn a_sequence_with_a_proof_of_nothing_is_none() {
        let mut index = Index::default();
        fn read(index: &mut Index, kind: Kind, scope: Scope, body: &str) -> Result<(), String> {
            let text = next(kind, &scope, HERE, &index.head(), 1, body.to_owned());
            let document = serde_json::to_vec(&text).unwrap().into();
            index.read(&SignedDocument { document, signatures: vec![] }, HERE).map(drop)
        }
        read(&mut index, Kind::Revocation, Scope::Revocation(NODE), "ada: stolen").unwrap();
        let head = index.head();
        let refused = read(&mut index, Kind::Proof, Scope::Proof(NODE), &proof_of(&head)).unwrap_err();
        assert!(refused.contains("found one of document 1"), "{refused}");
        read(&mut index, Kind::Hold, Scope::Hold(NODE), "ada: repair").unwrap();
        // An enrollment, and a proof of another one of its number.
        enroll(&mut index, A);
        let other = proof_of(&Place { sha256: [9; 32], ..at(3) });
        let refused = read(&mut index, Kind::Proof, Scope::Proof(NODE), &other).unwrap_err();
        assert!(refused.contains(&"09".repeat(32)), "{refused}");
        read(&mut index, Kind::Proof, Scope::Proof(NODE), &proof_of(&at(3))).unwrap();
        assert_eq!((index.head().number, stages(&index, &[3])), (4, vec![Stage::Proved]));
    }
}
