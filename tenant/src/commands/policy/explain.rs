//! `halfkey policy explain`: why a boot is allowed or denied.

use crate::client::resolve;
use crate::context::Context;
use crate::documents::governed::Governed;
use crate::documents::signing::SigningContext;
use crate::error::{Error, Exit, Result};
use crate::render;
use crate::render::text::{clean, short_digest};
use crate::render::{Style, findings, painted, table};
use crate::trust::boot::{self, Attester};
use comfy_table::{Cell, Color};
use halfkey_evidence::policy::{self, ExplainedEvent, Explanation};
use serde::Serialize;
use std::fmt::Write;

/// `halfkey policy explain --json`.
#[derive(Serialize)]
struct Explained {
    node_id: String,
    evidence_id: u64,
    /// Scope and version of the policy.
    policy: String,
    #[serde(flatten)]
    explanation: Explanation,
}

/// Explains a boot by the policy that governs the node now.
///
/// # Errors
/// `Failed` without a message of its own when the boot is denied: the explanation says it.
pub fn run(context: &Context, node: &str, number: Option<u64>) -> Result<()> {
    let signing = SigningContext::open(context)?;
    let id = resolve::resolve(&signing.client, node)?;
    let record = signing.client.node(id)?;
    let attester = Attester::of(id, &record, &signing.key)?;
    let number = match number {
        Some(number) => number,
        None => boot::last(&signing.client, id, "boot", |_| true)?,
    };
    let boot = attester.boot(&signing.client, number)?;
    let governed = Governed::fetch(&signing, id)?;
    let (Some(effective), Some(own)) = (governed.with_trusted(&signing.client, &attester)?, &governed.policy)
    else {
        return Err(Error::failed(format!("no policy governs node {id}: there is nothing to explain"))
            .hint("`halfkey policy learn NODE` shows what one would say"));
    };
    let explanation = policy::explain(effective.policy(), &*boot.log()?, &boot.claims());
    let explained = Explained {
        node_id: id.to_string(),
        evidence_id: number,
        policy: format!("{}@{}", own.scope(), own.version()),
        explanation,
    };
    context.out.value(&explained, || {
        format!(
            "evidence {number} of {}, {} then, by {} version {}\n\n{}",
            render::name(&record.summary),
            clean(&boot.record.summary.outcome),
            own.scope(),
            own.version(),
            shown(&explained.explanation, &context.style())
        )
    })?;
    if explained.explanation.accepted {
        return Ok(());
    }
    Err(Error::new(Exit::Failed, "this boot is not what the policy allows"))
}

/// `halfkey policy explain`.
pub fn shown(explanation: &Explanation, style: &Style) -> String {
    let mut table = table(style, &["EVENT", "PCR", "WHAT", "STANDING", "DIGEST", "RULE"]);
    for event in &explanation.events {
        let (rule, color) = match (&event.rule, &event.finding) {
            (_, Some(_)) => ("NO RULE".to_owned(), Some(Color::Red)),
            (Some(rule), None) => (clean(rule), None),
            (None, None) => ("-".to_owned(), None),
        };
        table.add_row(vec![
            Cell::new(event.event.map_or("-".to_owned(), |number| number.to_string())),
            Cell::new(pcr(event)),
            Cell::new(clean(&event.what)),
            Cell::new(event.standing),
            Cell::new(short_digest(&event.digest)),
            painted(style, &rule, color),
        ]);
    }
    let mut text = table.trim_fmt();
    let boot = explanation.boot.as_deref().map_or("none".to_owned(), clean);
    match (explanation.accepted, explanation.findings.len()) {
        (true, _) => write!(text, "\n\nallowed: boot \"{boot}\""),
        (false, count) => write!(
            text,
            "\n\ndenied, {count} finding{}; the boot of the policy that fits best: {boot}\n{}",
            if count == 1 { "" } else { "s" },
            findings(&explanation.findings)
        ),
    }
    .expect("a String takes everything");
    text.trim_end().to_owned()
}

/// Information extends no PCR.
fn pcr(event: &ExplainedEvent) -> String {
    if event.digest.is_empty() { "-".to_owned() } else { event.pcr.to_string() }
}
