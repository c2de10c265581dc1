//! Scopes and groups on the command line.

use crate::client::{Client, resolve};
use crate::error::{Error, Result};
use crate::render::text::clean_short;
use halfkey_protocol::wire::policies::{MAX_GROUP, Scope, is_group_name};

/// The name of a group.
///
/// # Errors
/// `Usage` if it can't be one.
pub fn group(name: &str) -> Result<String> {
    if is_group_name(name) {
        return Ok(name.to_owned());
    }
    Err(Error::usage(format!(
        "expected the name of a group: 1 to {MAX_GROUP} of a-z, 0-9, '-', '_' and '.', found `{}`",
        clean_short(name, MAX_GROUP)
    )))
}

/// A scope, in which a node may be called by its label or a prefix.
///
/// # Errors
/// `Usage` if it is no scope; as [`resolve::resolve`] for the node.
pub fn typed(client: &Client, text: &str) -> Result<Scope> {
    match text.split_once(':') {
        Some(("node", node)) => resolve::resolve(client, node).map(Scope::Node),
        Some(("additions", node)) => resolve::resolve(client, node).map(Scope::Additions),
        Some(("group", name)) => group(name).map(Scope::Group),
        _ => Err(Error::usage(format!("expected a scope, found `{}`", clean_short(text, 64)))
            .hint("a scope is group:NAME, node:NODE or additions:NODE; `halfkey policy list` lists them")),
    }
}

/// The same with a version: `group:web@3`.
///
/// # Errors
/// As [`typed`].
pub fn typed_version(client: &Client, text: &str) -> Result<(Scope, Option<u64>)> {
    match text.rsplit_once('@').map(|(scope, version)| (scope, version.parse())) {
        Some((scope, Ok(version))) => Ok((typed(client, scope)?, Some(version))),
        _ => Ok((typed(client, text)?, None)),
    }
}
