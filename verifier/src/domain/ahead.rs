//! What a transaction about a node will ask, as far as that is known before it begins. It asks all of it again where it needs it: here
//! nothing is decided, and what is missing or too much is only slower.

use super::sequence::Sequence;
use super::{audit, proposal};
use crate::store::{EnrollmentState, Tx};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Scope;

/// What it is about.
#[derive(Clone, Copy, Default)]
pub struct Asking<'a> {
    /// Only the database that this server has answered with will do.
    pub here: bool,
    /// Its rows are read, and what governs it.
    pub node: Option<NodeId>,
    /// Its registration is read, too.
    pub registration: bool,
    /// Evidence of it is ruled on.
    pub ruling: bool,
    /// Of this boot.
    pub ticket: Option<&'a str>,
}

impl<'a> Asking<'a> {
    /// Of one node.
    pub fn of(node: NodeId) -> Self {
        Self { node: Some(node), ..Self::default() }
    }

    /// What that is, by the documents so far.
    pub fn questions(self, sequence: &Sequence) -> Questions<'a> {
        let index = sequence.index();
        let Some(node) = self.node else {
            return Questions {
                asking: self,
                entry: sequence.entry(),
                documents: [0; 2],
                membership: 0,
                group: None,
            };
        };
        let membership = index.newest_that_counts(&Scope::Membership(node));
        let own = index.key(node).is_some_and(|key| index.in_force(&Scope::Node(node), key));
        let group = index.group_of(membership).filter(|_| !own);
        let group = group.and_then(|group| Some((format!("group:{group}"), *index.key(node)?)));
        let documents = [index.proved(node), index.enrolled(node)];
        Questions { asking: self, entry: sequence.entry(), documents, membership, group }
    }
}

/// What is asked.
pub struct Questions<'a> {
    asking: Asking<'a>,
    /// The entry of the audit trail by which the database is known.
    entry: u64,
    /// Numbers of enrollments.
    documents: [u64; 2],
    /// Number of the document that puts the node into a group, or 0.
    membership: u64,
    /// The policy of the group, if that counts, and by which key.
    group: Option<(String, [u8; 32])>,
}

impl Questions<'_> {
    /// Asks it. What can't be read is said to who needs it.
    pub fn ask(&self, rows: &dyn Tx) {
        let _ = rows.head();
        let Asking { here, node, registration, ruling, ticket } = self.asking;
        if here {
            let _ = audit::trail(rows, self.entry);
        }
        let Some(node) = node else { return };
        let _ = rows.node(node);
        for state in [EnrollmentState::Current, EnrollmentState::Open] {
            let _ = rows.enrollment(node, state);
        }
        for number in self.documents.into_iter().filter(|number| *number != 0) {
            let _ = rows.document(number);
        }
        for scope in [Scope::Node(node), Scope::Additions(node)] {
            let _ = rows.policy(&scope.to_string(), None);
        }
        if let Some((scope, key)) = &self.group {
            let _ = rows.policy_by(scope, key);
        }
        if self.membership != 0 {
            let _ = rows.document_sha256(self.membership);
        }
        let _ = rows.proposal_heads(node);
        if registration {
            let _ = rows.registration(node);
        }
        if ruling {
            let _ = ticket.map(|ticket| rows.boot(node, ticket));
            let _ = proposal::numbers_not_booted(rows, node);
            let _ = rows.evidence_of_boots(node);
            let _ = rows.expect_evidence(node);
        }
    }
}
