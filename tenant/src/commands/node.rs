//! `halfkey nodes` and `node`.

use crate::cli::Only;
use crate::client::resolve;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::key::TenantKey;
use crate::render::findings;
use crate::render::text::{clean, clean_short};
use crate::render::time::{self, both, relative};
use crate::render::{Style, name, paint, painted, rows, table};
use crate::trust::checks;
use comfy_table::{Cell, Color};
use halfkey_evidence::signed_document::open_enrollment;
use halfkey_protocol::document::Scope;
use halfkey_protocol::tpm::name;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::{
    Held, NodeList, NodeRecord, NodeState, NodeSummary, PendingBoot, TpmFirmware,
};
use halfkey_protocol::wire::policies::{NodePolicy, PolicySummary};
use halfkey_protocol::{NodeId, Reason, identity};

/// Lists the nodes, or some of them.
///
/// # Errors
/// As every request.
pub fn list(context: &Context, only: &Only) -> Result<()> {
    let mut list: NodeList = context.logged_in()?.nodes()?;
    list.nodes.retain(|node| is_wanted(node, only));
    context.out.value(&list, || list_shown(&list, &context.style(), time::now()))
}

/// Shows one node, and what was checked of it here.
///
/// # Errors
/// `Untrusted`, after it was shown, when its record does not pass the checks here; as every request.
pub fn show(context: &Context, typed: &str) -> Result<()> {
    let client = context.logged_in()?;
    let id = resolve::resolve(&client, typed)?;
    let record = client.node(id)?;
    let judged = record.enrollment.is_some().then(|| client.node_policy(id)).transpose()?;
    // A workstation without a tenant key can still look.
    let key = context.home.tenant_key().ok();
    context
        .out
        .value(&record, || shown(&record, judged.as_ref(), key.as_ref(), &context.style(), time::now()))?;
    check(&record).map_err(|why| {
        Error::untrusted(why)
            .hint("this record can't come from an honest node and an honest server; do not enroll it")
    })
}

fn is_wanted(node: &NodeSummary, only: &Only) -> bool {
    let state = only.state.as_deref().is_none_or(|state| match state {
        "held" => node.held,
        "cloned" => node.cloned,
        state => node.state.as_str() == state,
    });
    let last = only.last.as_deref().is_none_or(|word| {
        [&node.last_outcome, &node.last_code].into_iter().any(|said| said.as_deref() == Some(word))
    });
    let text = only.text.as_deref().is_none_or(|text| {
        let text = text.to_lowercase();
        node.label.to_lowercase().contains(&text) || node.id.starts_with(&text)
    });
    state && last && text && (node.pending || !only.pending)
}

/// `halfkey nodes`.
pub fn list_shown(list: &NodeList, style: &Style, now: u64) -> String {
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
            painted(style, &state(node), state_color(node)),
            Cell::new(relative(now, node.last_seen)),
            painted(style, &verdict, denied.then_some(Color::Red)),
            if node.pending { painted(style, "for you", Some(Color::Yellow)) } else { Cell::new("-") },
        ]);
    }
    table.trim_fmt()
}

/// `halfkey node show`, and the result of an enrollment. `judged` is what its boots are judged by, if that was asked for;
/// `key` is this workstation's tenant key, to say whose an enrollment is.
pub fn shown(
    record: &NodeRecord,
    judged: Option<&NodePolicy>,
    key: Option<&TenantKey>,
    style: &Style,
    now: u64,
) -> String {
    let summary = &record.summary;
    let mut list = vec![
        ("id", clean(&summary.id)),
        ("label", clean_short(&summary.label, 200)),
        ("state", paint(style, &state(summary), state_color(summary))),
    ];
    if let Some(because) = &record.revoked_because {
        list.push(("revoked because", clean(because)));
    }
    if let Some(Held { by, because }) = &record.held {
        list.push((
            "held",
            format!("by {}: {}; `halfkey release` ends it", clean_short(by, 64), clean(because)),
        ));
    }
    if summary.cloned {
        let what = "its last boot was released twice, with different r: an answer got lost, or two machines run \
                    from one state of this TPM; `halfkey evidence` shows both";
        list.push(("cloned?", paint(style, what, Some(Color::Red))));
    }
    if let Some(registration) = &record.registration {
        list.push(("EK fingerprint", identity::fingerprint(&registration.ek_public)));
        list.push((
            "EK certificate",
            match &registration.ek_certificate {
                Some(der) => format!("{} bytes", der.len()),
                None => "none".to_owned(),
            },
        ));
        list.push((
            "checked here",
            match check(record) {
                Ok(()) => {
                    "templates of EK, AK and SRK; the AK certified the SRK; the id is this EK's".to_owned()
                }
                Err(why) => paint(style, &format!("FAILED: {why}"), Some(Color::Red)),
            },
        ));
    }
    list.push((
        "registered",
        match record.registered_at {
            _ if record.registration.is_none() => {
                "not: the registrar has forgotten it, and it was never enrolled".to_owned()
            }
            0 => "the registrar has forgotten it; this is the verifier's copy".to_owned(),
            at => both(now, at),
        },
    ));
    list.push(("last seen", both(now, summary.last_seen)));
    if let Some(TpmFirmware { version, before, since }) = &record.tpm_firmware {
        let before = before.as_deref().map(|before| format!(", {} before", clean_short(before, 18)));
        let before = before.unwrap_or_default();
        list.push((
            "TPM firmware",
            format!("{}, since {}{before}", clean_short(version, 18), both(now, *since)),
        ));
    }
    if let Some(signed) = &record.enrollment {
        list.push(("enrollment", enrollment(signed, record, key, now)));
    }
    if let Some(signed) = &record.open {
        list.push(("not proved yet", enrollment(signed, record, key, now)));
    }
    if let Some(group) = judged.and_then(|judged| judged.group.as_deref()) {
        list.push(("group", clean_short(group, 64)));
    }
    let additions = judged.and_then(|judged| judged.additions.as_ref());
    match &record.policy {
        Some(summary) => list.push(("policy", policy(summary, now))),
        None if record.enrollment.is_some() => {
            list.push(("policy", "none: every boot waits for an operator".to_owned()));
        }
        None => {}
    }
    if let Some(record) = additions {
        list.push(("additions", policy(&record.summary, now)));
    }
    let trusted = judged.map_or(&[][..], |judged| &judged.trusted);
    if !trusted.is_empty() {
        let numbers: Vec<_> = trusted.iter().map(|proposal| proposal.id.to_string()).collect();
        list.push(("trusted unseen", format!("proposals {}: `halfkey proposal show N`", numbers.join(", "))));
    }
    let mut text = rows("", &list);
    if let Some(boot) = &record.pending {
        text.push('\n');
        text.push_str(&pending(record, boot, now));
    }
    text.trim_end().to_owned()
}

fn policy(summary: &PolicySummary, now: u64) -> String {
    format!(
        "{} version {}, \"{}\", applied by {} {}",
        clean_short(&summary.scope, 80),
        summary.version,
        clean_short(&summary.name, 64),
        clean_short(&summary.applied_by, 64),
        both(now, summary.applied_at)
    )
}

/// What was found wrong with a record here, if anything.
pub fn check(record: &NodeRecord) -> std::result::Result<(), String> {
    let id = NodeId::parse(&record.summary.id).ok_or("the id is not one")?;
    // Of a node that was never enrolled, and that the registrar has forgotten, no TPM is shown.
    if (&record.registration, &record.enrollment, &record.open) == (&None, &None, &None) {
        return Ok(());
    }
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
    if boot.code == Reason::NoPolicy.code() {
        text.push_str("  no policy governs this node yet: there is nothing to compare with\n");
    }
    text.push_str(&findings(&boot.findings));
    text.trim_end().to_owned()
}

fn enrollment(signed: &SignedDocument, record: &NodeRecord, key: Option<&TenantKey>, now: u64) -> String {
    let whose = identity::fingerprint(signed.tenant_key());
    let mine = match key {
        Some(key) if key.public() == signed.tenant_key() => "this workstation's tenant key",
        _ => "another tenant key",
    };
    let Ok((opened, document)) = open_enrollment(signed) else {
        return format!("INVALID: the signature is not that of {whose}");
    };
    let for_whom = Scope::Enrollment(NodeId::parse(&record.summary.id).unwrap_or(NodeId([0; 16])));
    if opened.scope != for_whom {
        return format!("INVALID: it is for {}", opened.scope);
    }
    let srk =
        record.registration.as_ref().and_then(|registration| name::object_name(&registration.srk_public));
    let changed = if srk.as_deref() == Some(document.srk_name.as_ref()) {
        ""
    } else {
        "; the SRK changed since then (TPM cleared?): enroll again"
    };
    format!(
        "{}, {}, signed by {mine} {whose}{changed}",
        both(now, opened.created),
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

/// Where it stands, and what an operator has to know besides.
fn state(node: &NodeSummary) -> String {
    let held = if node.held { ", held" } else { "" };
    let cloned = if node.cloned { ", cloned?" } else { "" };
    format!("{}{held}{cloned}", node.state.as_str())
}

fn state_color(node: &NodeSummary) -> Option<Color> {
    match node.state {
        NodeState::Enrolled | NodeState::Enrolling if node.cloned => Some(Color::Red),
        NodeState::Enrolled if node.held => Some(Color::Yellow),
        NodeState::Enrolled => Some(Color::Green),
        NodeState::Enrolling => Some(Color::Yellow),
        NodeState::Revoked => Some(Color::Red),
        NodeState::Registered => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_all_that_is_listed() {
        let node = NodeSummary {
            id: "5104d28a-f4c5-8051-bf52-2df06c1a9ad1".to_owned(),
            label: "Web-17".to_owned(),
            state: NodeState::Enrolled,
            pending: false,
            held: true,
            cloned: false,
            last_seen: 0,
            last_outcome: Some("denied".to_owned()),
            last_code: Some("policy_mismatch".to_owned()),
        };
        let word = |text: &str| Some(text.to_owned());
        for (only, wanted) in [
            (Only::default(), true),
            (Only { pending: true, ..Only::default() }, false),
            (Only { state: word("enrolled"), ..Only::default() }, true),
            (Only { state: word("held"), last: word("denied"), ..Only::default() }, true),
            (Only { state: word("cloned"), ..Only::default() }, false),
            (Only { last: word("policy_mismatch"), text: word("web"), ..Only::default() }, true),
            (Only { last: word("policy"), ..Only::default() }, false),
            (Only { text: word("5104D"), ..Only::default() }, true),
            (Only { text: word("104d"), ..Only::default() }, false),
            (Only { state: word("revoked"), text: word("web"), ..Only::default() }, false),
        ] {
            assert_eq!(is_wanted(&node, &only), wanted, "{only:?}");
        }
    }
}
