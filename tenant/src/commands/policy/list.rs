//! `halfkey policy list`.

use crate::context::Context;
use crate::error::Result;
use crate::render::text::clean_short;
use crate::render::time::{self, relative};
use crate::render::{Style, table};
use comfy_table::Cell;
use halfkey_protocol::wire::policies::{PolicyList, PolicySummary};

/// Lists the policies of the verifier.
///
/// # Errors
/// As every request.
pub fn run(context: &Context) -> Result<()> {
    let list = context.logged_in()?.policies()?;
    context.out.value(&list, || shown(&list, &context.style(), time::now()))
}

/// `halfkey policy list`.
pub fn shown(list: &PolicyList, style: &Style, now: u64) -> String {
    if list.policies.is_empty() {
        return "no policies".to_owned();
    }
    let mut table = table(style, &["SCOPE", "VERSION", "NAME", "NODES", "APPLIED", "BY"]);
    for policy in &list.policies {
        table.add_row(vec![
            Cell::new(clean_short(&policy.scope, 80)),
            Cell::new(policy.version),
            Cell::new(name(policy)),
            Cell::new(policy.nodes),
            Cell::new(relative(now, policy.applied_at)),
            Cell::new(clean_short(&policy.applied_by, 40)),
        ]);
    }
    table.trim_fmt()
}

/// What it calls itself.
pub fn name(policy: &PolicySummary) -> String {
    if policy.name.is_empty() { "(withdrawn)".to_owned() } else { clean_short(&policy.name, 64) }
}
