//! NODE on the command line: an id, an unambiguous prefix of one, or a label.

use crate::client::Client;
use crate::error::{Error, Exit, Result};
use crate::render::text::clean_short;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::NodeSummary;

/// Candidates that an error lists.
const SHOWN: usize = 8;

/// The node that `typed` means. A whole id is taken without asking the server.
///
/// # Errors
/// When none or several fit, or the server can't be asked.
pub fn resolve(client: &Client, typed: &str) -> Result<NodeId> {
    match NodeId::parse(&typed.to_ascii_lowercase()) {
        Some(id) => Ok(id),
        // The server would refuse it, and an empty variable in a script is no node.
        None if typed.trim().is_empty() => pick(&[], typed),
        None => {
            let found = client.nodes_named(typed)?;
            pick_of(&found.nodes, typed, found.next.is_some())
        }
    }
}

/// The one node whose label is `typed`, or whose id begins with it. A label does not win over a
/// prefix: before enrollment a label is what a node calls itself, and it could call itself anything.
///
/// # Errors
/// When none or several fit.
pub fn pick(nodes: &[NodeSummary], typed: &str) -> Result<NodeId> {
    pick_of(nodes, typed, false)
}

/// The same of a part of the nodes: with `more`, others fit as well.
fn pick_of(nodes: &[NodeSummary], typed: &str, more: bool) -> Result<NodeId> {
    let prefix = typed.to_ascii_lowercase();
    let is_prefix = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let fits = |node: &&NodeSummary| {
        !typed.is_empty() && node.label == typed || is_prefix && node.id.starts_with(&prefix)
    };
    let candidates: Vec<_> = nodes.iter().filter(fits).collect();
    match candidates[..] {
        [] => Err(Error::new(
            Exit::NotFound,
            format!("no node has the label or an id beginning with `{}`", clean_short(typed, 64)),
        )
        .hint("`halfkey nodes` lists them")),
        [node] if !more => NodeId::parse(&node.id).ok_or_else(|| {
            Error::untrusted(format!(
                "the server lists a node with the impossible id `{}`",
                clean_short(&node.id, 64)
            ))
        }),
        _ => Err(ambiguous(typed, &candidates, more)),
    }
}

fn ambiguous(typed: &str, candidates: &[&NodeSummary], more: bool) -> Error {
    let at_least = if more { "at least " } else { "" };
    let mut message = format!("`{}` fits {at_least}{} nodes:", clean_short(typed, 64), candidates.len());
    for node in candidates.iter().take(SHOWN) {
        let (id, label) = (clean_short(&node.id, 36), clean_short(&node.label, 40));
        message.push_str(&format!("\n  {id}  {label}  ({})", node.state.as_str()));
    }
    if candidates.len() > SHOWN {
        message.push_str(&format!("\n  ... and {} more", candidates.len() - SHOWN));
    }
    Error::new(Exit::NotFound, message).hint("give more digits of the id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::wire::operator::NodeState;
    use proptest::prelude::*;

    fn node(id: &str, label: &str) -> NodeSummary {
        NodeSummary {
            id: id.into(),
            label: label.into(),
            state: NodeState::Enrolled,
            pending: false,
            held: false,
            cloned: false,
            last_seen: 0,
            last_outcome: None,
            last_code: None,
        }
    }

    const A: &str = "3f2a0000-0000-8000-8000-000000000001";
    const B: &str = "3f2b0000-0000-8000-8000-000000000002";

    #[test]
    fn a_label_or_a_prefix_finds_one() {
        let nodes = [node(A, "web"), node(B, "db")];
        assert_eq!(pick(&nodes, "db").unwrap().to_string(), B);
        assert_eq!(pick(&nodes, "3F2A").unwrap().to_string(), A);
        assert_eq!(pick(&nodes, "mail").unwrap_err().exit, Exit::NotFound);
        assert!(pick(&nodes, "").is_err(), "an empty variable in a script is no node");
        assert!(pick(&[node(A, "")], "").is_err());
    }

    #[test]
    fn several_are_listed() {
        let nodes = [node(A, "web"), node(B, "web")];
        for typed in ["web", "3f2"] {
            let error = pick(&nodes, typed).unwrap_err();
            assert_eq!(error.exit, Exit::NotFound);
            assert!(error.message.contains(A) && error.message.contains(B), "{error}");
        }
    }

    #[test]
    fn a_node_that_calls_itself_like_another_makes_it_ambiguous() {
        let nodes = [node(A, "web"), node(B, "3f2a")];
        assert_eq!(pick(&nodes, "3f2a").unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        assert_eq!(pick(&[node("../../x", "web")], "web").unwrap_err().exit, Exit::Untrusted);
    }

    proptest! {
        #[test]
        fn any_text_is_one_node_or_an_error(typed: String, label: String) {
            let _ = pick(&[node(A, &label), node(B, "x")], &typed);
        }
    }
}
