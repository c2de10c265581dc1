//! Kinds of documents, and what they are for.

use crate::NodeId;
use std::fmt;

/// Longest name of a group, in bytes: `a-z`, `0-9`, `-`, `_`, `.`.
pub const MAX_GROUP: usize = 64;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The policy of a node or a group. Body: TOML, docs/policy.md.
    Policy,
    /// What one node may boot besides. Body: TOML.
    Additions,
    /// From now on the scope has no policy. Body: empty.
    Withdrawal,
    /// Which group a node is in. Body: the group's name, empty for none.
    Membership,
    /// A new key for a node. Body: [`crate::wire::Enrollment`] as JSON.
    Enrollment,
    /// The verifier's: the node holds the key of its newest enrollment, which is the one in use from now on. Body: that enrollment's
    /// document, as [`super::proof_of`] says it.
    Proof,
    /// An operator's: nothing is released to the node any more. Body: who and why.
    Revocation,
    /// Takes a revocation back. Body: why.
    Restoration,
    /// An operator's: the next boots of the node are denied. Body: who and why.
    Hold,
    /// Takes a hold back. Body: why.
    Release,
    /// Releases a boot that waits, this one time. Body: its ticket.
    Approval,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Policy,
        Self::Additions,
        Self::Withdrawal,
        Self::Membership,
        Self::Enrollment,
        Self::Proof,
        Self::Revocation,
        Self::Restoration,
        Self::Hold,
        Self::Release,
        Self::Approval,
    ];

    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Additions => "additions",
            Self::Withdrawal => "withdrawal",
            Self::Membership => "membership",
            Self::Enrollment => "enrollment",
            Self::Proof => "proof",
            Self::Revocation => "revocation",
            Self::Restoration => "restoration",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Approval => "approval",
        }
    }

    /// The name in a sentence: `a policy`, `an approval`.
    pub fn with_article(self) -> String {
        let name = self.as_str();
        let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {name}")
    }

    /// From the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it counts only with a tenant's signature.
    pub fn is_signed(self) -> bool {
        match self {
            Self::Policy
            | Self::Additions
            | Self::Withdrawal
            | Self::Membership
            | Self::Enrollment
            | Self::Restoration
            | Self::Release
            | Self::Approval => true,
            // What only takes something from a node needs no more than an operator who is listed.
            Self::Proof | Self::Revocation | Self::Hold => false,
        }
    }

    /// Whether such a document can be for this.
    pub(super) fn fits(self, scope: &Scope) -> bool {
        match scope {
            Scope::Node(_) => matches!(self, Self::Policy | Self::Withdrawal),
            Scope::Group(_) => self == Self::Policy,
            Scope::Additions(_) => matches!(self, Self::Additions | Self::Withdrawal),
            Scope::Membership(_) => self == Self::Membership,
            Scope::Enrollment(_) => self == Self::Enrollment,
            Scope::Proof(_) => self == Self::Proof,
            Scope::Revocation(_) => matches!(self, Self::Revocation | Self::Restoration),
            Scope::Hold(_) => matches!(self, Self::Hold | Self::Release),
            Scope::Approval(_) => self == Self::Approval,
        }
    }
}

/// What a document is for: the newest of a scope is the one that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The policy of one node.
    Node(NodeId),
    /// The policy of all nodes of a group that have none of their own.
    Group(String),
    /// What one node may boot besides.
    Additions(NodeId),
    /// The group of a node.
    Membership(NodeId),
    /// The enrollment of a node.
    Enrollment(NodeId),
    /// Which enrollment of a node was proved.
    Proof(NodeId),
    /// Whether a node is revoked.
    Revocation(NodeId),
    /// Whether an operator holds a node's boots.
    Hold(NodeId),
    /// Which boot of a node was approved.
    Approval(NodeId),
}

impl Scope {
    /// Reads the text form; `None` if it is not canonical.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("node", id) => NodeId::parse(id).map(Self::Node),
            ("additions", id) => NodeId::parse(id).map(Self::Additions),
            ("membership", id) => NodeId::parse(id).map(Self::Membership),
            ("enrollment", id) => NodeId::parse(id).map(Self::Enrollment),
            ("proof", id) => NodeId::parse(id).map(Self::Proof),
            ("revocation", id) => NodeId::parse(id).map(Self::Revocation),
            ("hold", id) => NodeId::parse(id).map(Self::Hold),
            ("approval", id) => NodeId::parse(id).map(Self::Approval),
            ("group", name) => is_group_name(name).then(|| Self::Group(name.to_owned())),
            _ => None,
        }
    }

    /// The node, if it is for one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(id)
            | Self::Additions(id)
            | Self::Membership(id)
            | Self::Enrollment(id)
            | Self::Proof(id)
            | Self::Revocation(id)
            | Self::Hold(id)
            | Self::Approval(id) => Some(*id),
            Self::Group(_) => None,
        }
    }

    /// Whether it is that of a policy, of additions or of a withdrawal of one.
    pub fn is_of_policy(&self) -> bool {
        match self {
            Self::Node(_) | Self::Group(_) | Self::Additions(_) => true,
            Self::Membership(_)
            | Self::Enrollment(_)
            | Self::Proof(_)
            | Self::Revocation(_)
            | Self::Hold(_)
            | Self::Approval(_) => false,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Additions(id) => write!(f, "additions:{id}"),
            Self::Membership(id) => write!(f, "membership:{id}"),
            Self::Enrollment(id) => write!(f, "enrollment:{id}"),
            Self::Proof(id) => write!(f, "proof:{id}"),
            Self::Revocation(id) => write!(f, "revocation:{id}"),
            Self::Hold(id) => write!(f, "hold:{id}"),
            Self::Approval(id) => write!(f, "approval:{id}"),
        }
    }
}

/// Whether this can be the name of a group: 1 to [`MAX_GROUP`] of `a-z`, `0-9`, `-`, `_`, `.`.
pub fn is_group_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=MAX_GROUP).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_text() {
        let id = NodeId([7; 16]);
        for scope in [
            Scope::Node(id),
            Scope::Group("web-1.a_b".into()),
            Scope::Additions(id),
            Scope::Membership(id),
            Scope::Enrollment(id),
            Scope::Proof(id),
            Scope::Revocation(id),
            Scope::Hold(id),
            Scope::Approval(id),
        ] {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        let upper = format!("node:{}", id.to_string().replace("07", "0A"));
        let long = format!("group:{}", "a".repeat(MAX_GROUP + 1));
        for text in
            ["", "group", "group:", "group:Web", "group:a b", "group:a:b", "nodes:x", "node:7", &upper, &long]
        {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
    }
}
