//! Rows of nodes compared with what the documents say.

use super::index::Index;
use super::model::{Damage, Enrollment, Node, PolicyRef, Stage, node_state};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Place, Scope};
use halfkey_protocol::wire::operator::{NodeState, NodeSummary};

impl Index {
    /// What the lists say of a node: the sequence, and what a row forbids besides.
    pub fn amend(&self, node: NodeId, line: &mut NodeSummary) {
        let (newest, proved) = (self.enrolled(node), self.proved(node));
        let revoked = line.state == NodeState::Revoked || self.is_revoked(node);
        line.state = node_state(revoked, newest != proved, proved != 0);
        line.held |= self.is_held(node);
        if let Some(label) = self.label(node) {
            line.label = label.to_owned();
        }
    }

    /// Compares what rows say of a node with the documents. What differs is noted at the node, an enrollment that stands otherwise
    /// is taken away from it, and it is revoked if a document says so.
    pub fn check(&self, node: &mut Node) {
        if node.revoked.is_none() {
            node.revoked = self.revoked(node.id).map(str::to_owned);
        }
        if let Some(label) = self.label(node.id) {
            node.label = label.to_owned();
        }
        if node.held.is_none() {
            node.held = self.held(node.id).cloned();
        }
        let newest = self.enrolled(node.id);
        let proved = self.proved(node.id);
        let open = if newest == proved { 0 } else { newest };
        let enrollments = [("open", open, &mut node.open), ("proved", proved, &mut node.current)];
        let differing = enrollments.map(|(what, expected, row)| self.other_enrollment(what, expected, row));
        let why = differing.into_iter().flatten().next();
        let differing = why.map(|why| Damage::Enrollment(format!("enrollment:{}: {why}", node.id)));
        for enrollment in [&mut node.open, &mut node.current].into_iter().flatten() {
            enrollment.stage = self.stage(node.id, &enrollment.document);
            if enrollment.stage == Some(Stage::UsedUp) {
                // Its row has none any more. It could be put back.
                enrollment.c_u = None;
            }
        }
        // What a row itself shows says more than that its document is missing.
        node.damage = match node.damage.take() {
            Some(damage @ Damage::Enrollment(_)) => Some(damage),
            found => differing.or(found).or_else(|| self.other_documents(node).map(Damage::Governing)),
        };
    }

    /// The enrollment that was proved last is the current one, and a newer one is the open one.
    fn other_enrollment(&self, what: &str, expected: u64, row: &mut Option<Enrollment>) -> Option<String> {
        let place = row.as_ref().map(|row| row.document).unwrap_or_default();
        if place.number == expected && (expected == 0 || self.has(&place)) {
            return None;
        }
        *row = None;
        let named = |number| if number == 0 { "none".to_owned() } else { format!("document {number}") };
        let (found, expected) = (named(place.number), named(expected));
        Some(format!("the database says that {found} is {what}, and the sequence that {expected} is"))
    }

    fn other_documents(&self, node: &Node) -> Option<String> {
        let enrollment = node.current.as_ref().or(node.open.as_ref())?;
        let key = <[u8; 32]>::try_from(enrollment.signed.tenant_key()).ok()?;
        let governing = &node.governing;
        let own = governing.policy.as_ref().filter(|policy| policy.scope.starts_with("node:"));
        let own = own.or(governing.withdrawn.as_ref());
        let since = self.since(node.id);
        let mut slots = vec![
            (Scope::Node(node.id).to_string(), since, own),
            (
                Scope::Additions(node.id).to_string(),
                since,
                governing.additions.as_ref().or(governing.without_additions.as_ref()),
            ),
            (Scope::Membership(node.id).to_string(), since, governing.membership.as_ref()),
        ];
        // Those of a group are of its tenant, whatever became of one node.
        match (&governing.policy, &governing.group) {
            (Some(policy), _) if policy.scope.starts_with("group:") => {
                slots.push((policy.scope.clone(), 0, Some(policy)));
            }
            (None, Some(group)) => slots.push((format!("group:{group}"), 0, None)),
            (Some(_), _) | (None, None) => {}
        }
        slots.into_iter().find_map(|(scope, since, row)| {
            let expected = self.newest_since(&scope, &key, since).unwrap_or(0);
            self.differs(expected, row, node.current.is_some()).map(|why| format!("{scope}: {why}"))
        })
    }

    /// Where nothing of the node's tenant counts, a document of another key may be there: that it does not count is said later. So may
    /// a newer one until the node is proved.
    fn differs(&self, expected: u64, row: Option<&PolicyRef>, proved: bool) -> Option<String> {
        let found = row.map_or(0, |row| row.version);
        if found < expected {
            return Some(format!("the database goes by document {found}, and {expected} is newer"));
        }
        if proved && expected != 0 && found != expected {
            return Some(format!(
                "the database goes by document {found}, and {expected} is the tenant's last"
            ));
        }
        let row = row?;
        let place = Place { number: row.version, sha256: row.sha256 };
        (!self.has(&place)).then(|| format!("document {found} is not of the sequence"))
    }
}
