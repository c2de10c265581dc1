//! Tables and lines for people. What comes from nodes and servers is cleaned here.

use crate::checks;
use crate::key::{TenantKey, verified_document};
use crate::text::{clean, clean_short, hex};
use crate::time::{both, relative, rfc3339};
use crate::words;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use halfkey_protocol::wire::SignedEnrollment;
use halfkey_protocol::wire::operator::{
    AuditEntry, EvidenceList, EvidenceRecord, NodeList, NodeRecord, NodeState, NodeSummary, PcrDifference,
    PendingBoot,
};
use halfkey_protocol::{NodeId, identity};
use owo_colors::OwoColorize;
use std::fmt::Write;

/// How tables look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Standard output is a terminal: fit its width.
    pub terminal: bool,
    /// Colours are wanted.
    pub color: bool,
}

/// `halfkey nodes`.
pub fn nodes(list: &NodeList, style: &Style, now: u64) -> String {
    if list.nodes.is_empty() {
        return "no nodes".to_owned();
    }
    let digits = distinct_prefix(&list.nodes);
    let mut table = table(style, &["ID", "LABEL", "STATE", "LAST SEEN", "LAST VERDICT", "WAITS"]);
    for node in &list.nodes {
        let verdict = match (&node.last_outcome, &node.last_code) {
            (Some(outcome), Some(code)) => {
                format!("{} ({})", clean_short(outcome, 16), clean_short(code, 32))
            }
            (Some(outcome), None) => clean_short(outcome, 16),
            _ => "-".to_owned(),
        };
        let denied = node.last_outcome.as_deref() == Some("denied");
        table.add_row(vec![
            Cell::new(clean_short(&node.id, 36).chars().take(digits).collect::<String>()),
            Cell::new(clean_short(&node.label, 40)),
            painted(style, node.state.as_str(), state_color(node.state)),
            Cell::new(relative(now, node.last_seen)),
            painted(style, &verdict, denied.then_some(Color::Red)),
            if node.pending { painted(style, "for you", Some(Color::Yellow)) } else { Cell::new("-") },
        ]);
    }
    table.trim_fmt()
}

/// `halfkey node show`, and the result of an enrollment. `key` is this desk's tenant key, to say
/// whose an enrollment is.
pub fn node(record: &NodeRecord, key: Option<&TenantKey>, style: &Style, now: u64) -> String {
    let summary = &record.summary;
    let mut rows = vec![
        ("id", clean(&summary.id)),
        ("label", clean_short(&summary.label, 200)),
        ("state", paint(style, summary.state.as_str(), state_color(summary.state))),
    ];
    if let Some(because) = &record.revoked_because {
        rows.push(("revoked because", clean(because)));
    }
    rows.push(("EK fingerprint", identity::fingerprint(&record.registration.ek_public)));
    rows.push((
        "EK certificate",
        match &record.registration.ek_certificate {
            Some(der) => format!("{} bytes", der.len()),
            None => "none".to_owned(),
        },
    ));
    rows.push((
        "checked here",
        match check(record) {
            Ok(()) => "templates of EK, AK and SRK; the AK certified the SRK; the id is this EK's".to_owned(),
            Err(why) => paint(style, &format!("FAILED: {why}"), Some(Color::Red)),
        },
    ));
    rows.push((
        "registered",
        match record.registered_at {
            0 => "the registrar has forgotten it; this is the verifier's copy".to_owned(),
            at => both(now, at),
        },
    ));
    rows.push(("last seen", both(now, summary.last_seen)));
    if let Some(signed) = &record.enrollment {
        rows.push(("enrollment", enrollment(signed, record, key, now)));
    }
    if let Some(reference) = &record.reference {
        rows.push((
            "reference",
            format!(
                "evidence {}, {}, approved by {} {}",
                reference.evidence_id,
                clean_short(&reference.bank, 16),
                clean_short(&reference.learned_by, 64),
                both(now, reference.learned_at)
            ),
        ));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = rows.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:width$}  {value}").expect("a String takes everything");
        text
    });
    if let Some(boot) = &record.pending {
        text.push('\n');
        text.push_str(&pending(record, boot, now));
    }
    text.trim_end().to_owned()
}

/// What was found wrong with a record here, if anything.
pub fn check(record: &NodeRecord) -> Result<(), String> {
    let id = NodeId::parse(&record.summary.id).ok_or("the id is not one")?;
    checks::registration(id, record).map(drop).map_err(|e| e.message)
}

/// The boot that waits for an operator.
pub fn pending(record: &NodeRecord, boot: &PendingBoot, now: u64) -> String {
    let mut text = format!(
        "a boot of {} waits\n  reason     {} ({})\n  evidence   {}\n  since      {}\n  expires    {}\n  approvable {}\n",
        name(&record.summary),
        clean(&boot.message),
        clean_short(&boot.code, 40),
        boot.evidence_id,
        both(now, boot.since),
        both(now, boot.expires),
        if boot.approvable { "yes" } else { "no" },
    );
    text.push_str(&differences(&boot.differing, record.reference.is_some()));
    text.trim_end().to_owned()
}

fn differences(differing: &[PcrDifference], reference: bool) -> String {
    if differing.is_empty() {
        return if reference {
            "  no PCR differs from the approved boot\n".to_owned()
        } else {
            "  no boot of this node was approved yet: there is nothing to compare with\n".to_owned()
        };
    }
    differing.iter().fold(String::new(), |mut text, difference| {
        let expected =
            difference.expected.as_ref().map_or("nothing approved yet".to_owned(), |value| hex(value));
        writeln!(
            text,
            "  PCR {:<2}  {}\n    expected  {expected}\n    found     {}",
            difference.pcr,
            words::pcr(difference.pcr),
            hex(&difference.found)
        )
        .expect("a String takes everything");
        text
    })
}

/// `halfkey evidence NODE`.
pub fn evidence_list(list: &EvidenceList, style: &Style, now: u64) -> String {
    if list.evidence.is_empty() {
        return "no evidence".to_owned();
    }
    let mut table = table(style, &["NUMBER", "WHEN", "PURPOSE", "OUTCOME", "REASON"]);
    for entry in &list.evidence {
        let reason = match &entry.code {
            Some(code) => format!("{}: {}", clean_short(code, 40), clean_short(&entry.message, 300)),
            None => clean_short(&entry.message, 300),
        };
        table.add_row(vec![
            Cell::new(entry.id),
            Cell::new(both(now, entry.at)),
            Cell::new(clean_short(&entry.purpose, 16)),
            painted(style, &clean_short(&entry.outcome, 16), outcome_color(&entry.outcome)),
            Cell::new(reason),
        ]);
    }
    table.trim_fmt()
}

/// `halfkey evidence --id N`.
pub fn evidence(record: &EvidenceRecord, style: &Style, now: u64) -> String {
    let (summary, finish) = (&record.summary, &record.finish);
    let number = |value: Option<u64>| value.map_or("unreadable".to_owned(), |value| value.to_string());
    let size = |log: &Option<halfkey_protocol::Bytes>| {
        log.as_ref().map_or("none".to_owned(), |log| format!("{} bytes", log.len()))
    };
    let mut text = format!("evidence {} of node {}\n", summary.id, clean(&summary.node_id));
    let rows = [
        ("when", both(now, summary.at)),
        ("purpose", clean_short(&summary.purpose, 16)),
        ("outcome", paint(style, &clean_short(&summary.outcome, 16), outcome_color(&summary.outcome))),
        ("code", summary.code.as_deref().map_or("-".to_owned(), |code| clean_short(code, 40))),
        ("message", clean(&summary.message)),
        ("agent", clean_short(&finish.agent, 64)),
        ("resetCount", number(record.reset_count.map(u64::from))),
        ("restartCount", number(record.restart_count.map(u64::from))),
        ("clock", record.clock.map_or("unreadable".to_owned(), |ms| format!("{ms} ms"))),
        ("PCR 15 after opening", record.expected_fence.as_ref().map_or("-".to_owned(), |value| hex(value))),
        ("event log", size(&finish.event_log)),
        ("systemd's log", size(&finish.userspace_log)),
        ("IMA list", size(&finish.ima_log)),
    ];
    for (name, value) in rows {
        writeln!(text, "  {name:20}  {value}").expect("a String takes everything");
    }
    if !record.differing.is_empty() {
        text.push_str("differs from the approved boot\n");
        text.push_str(&differences(&record.differing, true));
    }
    writeln!(text, "PCRs, bank {}", clean_short(&finish.bank, 16)).expect("a String takes everything");
    for (pcr, value) in finish.pcrs.iter().take(24).enumerate() {
        let meaning = words::pcr(u8::try_from(pcr).unwrap_or(u8::MAX));
        writeln!(text, "  {pcr:2}  {}  {meaning}", hex(value)).expect("a String takes everything");
    }
    text.trim_end().to_owned()
}

/// One line of the audit trail.
pub fn audit_entry(entry: &AuditEntry, style: &Style) -> String {
    let node = entry.node_id.as_deref().map_or("-".to_owned(), |id| clean_short(id, 36));
    let action = format!("{:8}", clean_short(&entry.action, 16));
    let color = match entry.action.as_str() {
        "refuse" | "revoke" | "deny" => Some(Color::Red),
        "approve" | "restore" | "enroll" => Some(Color::Green),
        _ => None,
    };
    format!(
        "{:6}  {}  {}  {node:36}  {}: {}",
        entry.seq,
        rfc3339(entry.at),
        paint(style, &action, color),
        clean_short(&entry.actor, 64),
        clean(&entry.detail)
    )
}

/// `label (id)`.
pub fn name(summary: &NodeSummary) -> String {
    format!("{} ({})", clean_short(&summary.label, 64), clean_short(&summary.id, 36))
}

fn enrollment(signed: &SignedEnrollment, record: &NodeRecord, key: Option<&TenantKey>, now: u64) -> String {
    let whose = identity::fingerprint(&signed.tenant_key);
    let mine = match key {
        Some(key) if key.public() == signed.tenant_key.as_ref() => "this desk's tenant key",
        _ => "another tenant key",
    };
    let Some(document) = verified_document(signed) else {
        return format!("INVALID: the signature is not that of {whose}");
    };
    if document.node_id != record.summary.id {
        return format!("INVALID: it is for node {}", clean_short(&document.node_id, 36));
    }
    let srk = identity::object_name(&record.registration.srk_public);
    let changed = if srk.as_deref() == Some(document.srk_name.as_ref()) {
        ""
    } else {
        "; the SRK changed since then (TPM cleared?): enroll again"
    };
    format!(
        "{}, {}, signed by {mine} {whose}{changed}",
        both(now, document.created),
        clean_short(&document.bank, 16)
    )
}

/// How many digits of the ids tell these nodes apart: at least 8.
fn distinct_prefix(nodes: &[NodeSummary]) -> usize {
    let mut ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    ids.sort_unstable();
    let common = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count() + 1;
    ids.windows(2).map(common).max().unwrap_or(0).clamp(8, 36)
}

fn table(style: &Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    if style.color {
        table.enforce_styling();
    }
    table.set_header(header.iter().map(|name| {
        let cell = Cell::new(name);
        if style.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn painted(style: &Style, text: &str, color: Option<Color>) -> Cell {
    match color {
        Some(color) if style.color => Cell::new(text).fg(color),
        _ => Cell::new(text),
    }
}

fn paint(style: &Style, text: &str, color: Option<Color>) -> String {
    match color {
        Some(Color::Red) if style.color => text.red().to_string(),
        Some(Color::Green) if style.color => text.green().to_string(),
        Some(Color::Yellow) if style.color => text.yellow().to_string(),
        _ => text.to_owned(),
    }
}

fn state_color(state: NodeState) -> Option<Color> {
    match state {
        NodeState::Enrolled => Some(Color::Green),
        NodeState::Enrolling => Some(Color::Yellow),
        NodeState::Revoked => Some(Color::Red),
        NodeState::Registered => None,
    }
}

fn outcome_color(outcome: &str) -> Option<Color> {
    match outcome {
        "released" => Some(Color::Green),
        "pending" => Some(Color::Yellow),
        "denied" => Some(Color::Red),
        _ => None,
    }
}
