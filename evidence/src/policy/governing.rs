//! Which signed documents govern a node: the policy of its own, else that of the group that its tenant has put it in, and what it
//! may boot besides. The verifier asks this of its database, the operator's command of what a verifier shows.

use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Kind, Opened, Scope};
use halfkey_protocol::identity::fingerprint;
use std::fmt;

/// A node, and the tenant who enrolled it: nothing else than what that tenant has signed governs it.
#[derive(Clone, Copy, Debug)]
pub struct TenantNode<'a> {
    /// The node.
    pub id: NodeId,
    /// The key that signed its enrollment: Ed25519, 32 bytes.
    pub tenant_key: &'a [u8],
}

/// Why a document is not what it is used as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It was signed for something else.
    Scope {
        /// What it is used for.
        expected: Scope,
        /// What it was signed for.
        found: Scope,
    },
    /// The tenant has not signed it.
    Signer {
        /// Fingerprint of the tenant key.
        expected: String,
        /// Fingerprint of the first key that signed it; none for an entry that nobody signs.
        found: Option<String>,
    },
    /// It is another kind of document.
    Kind {
        /// What it is used as.
        expected: Kind,
        /// The kind that the document has.
        found: Kind,
    },
    /// It is the policy of a group that the tenant has not put the node in.
    NotMember(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope { expected, found } => {
                write!(f, "expected a document for {expected}, found one for {found}")
            }
            Self::Signer { expected, found } => {
                let found = found.as_deref().unwrap_or("no signature");
                write!(f, "expected the tenant key that enrolled the node, {expected}, found {found}")
            }
            Self::Kind { expected, found } => {
                write!(f, "expected the kind {}, found {}", expected.as_str(), found.as_str())
            }
            Self::NotMember(group) => write!(f, "no document says that the node is in group {group}"),
        }
    }
}

/// Whether this tenant has signed a document, and for this.
///
/// # Errors
/// `Signer`, `Scope`.
pub fn signed_for(document: &Opened, scope: &Scope, tenant_key: &[u8]) -> Result<(), Unfit> {
    if !document.is_by(tenant_key) {
        let found = document.keys.first().map(|key| fingerprint(key));
        return Err(Unfit::Signer { expected: fingerprint(tenant_key), found });
    }
    if document.scope != *scope {
        return Err(Unfit::Scope { expected: scope.clone(), found: document.scope.clone() });
    }
    Ok(())
}

impl TenantNode<'_> {
    /// The group that a document puts the node in; `None` if that is none.
    ///
    /// # Errors
    /// When it is no membership of this node by its tenant.
    pub fn group<'d>(&self, membership: &'d Opened) -> Result<Option<&'d str>, Unfit> {
        self.is(membership, Scope::Membership(self.id), Kind::Membership)?;
        Ok(Some(membership.body.as_str()).filter(|name| !name.is_empty()))
    }

    /// Whether a document is a policy that governs the node. `group` is what [`TenantNode::group`] says.
    ///
    /// # Errors
    /// When it is no policy of this node by its tenant, nor one of its group.
    pub fn policy(&self, policy: &Opened, group: Option<&str>) -> Result<(), Unfit> {
        let scope = match &policy.scope {
            Scope::Group(name) if group == Some(name) => Scope::Group(name.clone()),
            Scope::Group(name) => return Err(Unfit::NotMember(name.clone())),
            Scope::Node(_)
            | Scope::Additions(_)
            | Scope::Membership(_)
            | Scope::Enrollment(_)
            | Scope::Proof(_)
            | Scope::Revocation(_)
            | Scope::Hold(_)
            | Scope::Approval(_) => Scope::Node(self.id),
        };
        self.is(policy, scope, Kind::Policy)
    }

    /// Whether a document takes the node's own policy back, so that its group's governs it.
    ///
    /// # Errors
    /// When it is no withdrawal of it by the node's tenant.
    pub fn withdrawal(&self, withdrawal: &Opened) -> Result<(), Unfit> {
        self.is(withdrawal, Scope::Node(self.id), Kind::Withdrawal)
    }

    /// Whether a document says what the node may boot besides.
    ///
    /// # Errors
    /// When it is no additions for this node by its tenant.
    pub fn additions(&self, additions: &Opened) -> Result<(), Unfit> {
        self.is(additions, Scope::Additions(self.id), Kind::Additions)
    }

    fn is(&self, document: &Opened, scope: Scope, kind: Kind) -> Result<(), Unfit> {
        signed_for(document, &scope, self.tenant_key)?;
        if document.kind != kind {
            return Err(Unfit::Kind { expected: kind, found: document.kind });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::document::{Deployment, Place};

    const ID: NodeId = NodeId([7; 16]);
    const NODE: TenantNode<'_> = TenantNode { id: ID, tenant_key: &[1; 32] };

    fn document(kind: Kind, scope: Scope, body: &str) -> Opened {
        Opened {
            kind,
            scope,
            deployment: Deployment([5; 16]),
            place: Place { number: 3, sha256: [3; 32] },
            previous: [2; 32],
            created: 0,
            body: body.into(),
            keys: vec![[1; 32]],
        }
    }

    #[test]
    fn a_policy_governs_its_node_or_the_group_that_the_tenant_put_it_in() {
        let own = document(Kind::Policy, Scope::Node(ID), "");
        NODE.policy(&own, None).unwrap();
        NODE.policy(&own, Some("web")).unwrap();
        let web = document(Kind::Policy, Scope::Group("web".into()), "");
        NODE.policy(&web, Some("web")).unwrap();
        for group in [None, Some("db")] {
            assert_eq!(NODE.policy(&web, group), Err(Unfit::NotMember("web".into())));
        }
        let of_another = document(Kind::Policy, Scope::Node(NodeId([8; 16])), "");
        assert!(matches!(NODE.policy(&of_another, None), Err(Unfit::Scope { .. })));
        let withdrawn = document(Kind::Withdrawal, Scope::Node(ID), "");
        NODE.withdrawal(&withdrawn).unwrap();
        assert!(matches!(NODE.policy(&withdrawn, None), Err(Unfit::Kind { .. })));
        assert!(matches!(NODE.withdrawal(&own), Err(Unfit::Kind { .. })));
    }

    #[test]
    fn a_membership_names_a_group_or_none() {
        let member = |body| document(Kind::Membership, Scope::Membership(ID), body);
        assert_eq!(NODE.group(&member("web")), Ok(Some("web")));
        assert_eq!(NODE.group(&member("")), Ok(None));
        let of_another = document(Kind::Membership, Scope::Membership(NodeId([8; 16])), "web");
        assert!(matches!(NODE.group(&of_another), Err(Unfit::Scope { .. })));
    }

    #[test]
    fn nothing_counts_that_another_tenant_has_signed() {
        let theirs = |kind, scope| Opened { keys: vec![[2; 32]], ..document(kind, scope, "web") };
        let (policy, group) = (Some("web"), Scope::Group("web".into()));
        for refused in [
            NODE.policy(&theirs(Kind::Policy, Scope::Node(ID)), policy),
            NODE.policy(&theirs(Kind::Policy, group), policy),
            NODE.withdrawal(&theirs(Kind::Withdrawal, Scope::Node(ID))),
            NODE.additions(&theirs(Kind::Additions, Scope::Additions(ID))),
            NODE.group(&theirs(Kind::Membership, Scope::Membership(ID))).map(drop),
        ] {
            assert!(matches!(refused, Err(Unfit::Signer { .. })), "{refused:?}");
        }
        let nobodys = Opened { keys: vec![], ..document(Kind::Policy, Scope::Node(ID), "") };
        assert!(matches!(NODE.policy(&nobodys, None), Err(Unfit::Signer { found: None, .. })));
        NODE.additions(&document(Kind::Additions, Scope::Additions(ID), "")).unwrap();
    }
}
