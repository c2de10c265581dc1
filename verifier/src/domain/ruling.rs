//! Evidence comes in and is ruled on, in the transaction that records both.

use super::model::{NodeSnapshot, ReleasedBoot};
use super::{
    By, Error, Notice, NoticeKind, Result, TxView, audit, boot, enrollment, json, legible, node, proposal,
    released, retention,
};
use crate::appraisal::{Decided, Ruling};
use crate::events::Event;
use crate::store::{EvidenceHead, EvidenceRow};
use halfkey_evidence::policy::{Matched, Origin};
use halfkey_protocol::wire::{Evidence, Outcome, Verdict};
use halfkey_protocol::{NodeId, Reason};

/// Evidence to be ruled on.
pub struct EvidenceRequest<'a> {
    /// Whose.
    pub node: NodeId,
    /// Seconds since 1970.
    pub now: u64,
    /// Names the boot, if the quote is authentic.
    pub ticket: Option<&'a str>,
    /// What the node sent.
    pub evidence: &'a Evidence,
    /// Records kept per node, of each outcome.
    pub keep: u64,
    /// What the machine calls the boot in which it asks.
    pub trace: Option<String>,
}

/// Rules on evidence and records evidence, verdict, counters and audit entry, or nothing. If `rule` gives none, nothing is changed.
///
/// # Errors
/// `NotEnrolled`.
pub fn attest(
    view: &TxView<'_>,
    request: &EvidenceRequest<'_>,
    rule: &mut dyn FnMut(&NodeSnapshot) -> Option<Ruling>,
) -> Result<Option<Verdict>> {
    let node = node::one(view, request.node)?.ok_or_else(|| {
        Error::Refused(Reason::NotEnrolled, format!("node {} is not enrolled", request.node))
    })?;
    // A decision that can't be read is none.
    let (boot, damage) = match request.ticket {
        Some(ticket) => legible(boot::one(view, request.node, ticket, request.now))?,
        None => (None, None),
    };
    let proposals = proposal::not_booted(view, request.node)?;
    let snapshot = NodeSnapshot { node, boot, proposals };
    let Some(ruling) = rule(&snapshot) else { return Ok(None) };
    let in_row = snapshot.boot.as_ref().and_then(|boot| boot.damage.as_ref());
    let by = By { actor: "verifier", now: request.now };
    if let Some(damage) = in_row.or(damage.as_ref()) {
        audit::append(view, by, "damage", Some(request.node), damage)?;
    }
    let again = again(&snapshot, &ruling);
    let twin = match again {
        Some(Again::Twin(twin)) => Some(twin),
        Some(Again::Restarted(_)) | None => None,
    };
    let id = view.rows.insert_evidence(&row(request, &ruling, twin)?)?;
    let verdict = ruling.verdict(id);
    if let Some(quoted) = ruling.quoted {
        if quoted.newer {
            view.rows.set_quoted(&ruling.enrollment_id, &quoted.counters.into())?;
        }
        match &ruling.decided {
            Decided::Released { release, booted } => {
                let released = ReleasedBoot {
                    evidence_id: id,
                    reset: quoted.counters.reset,
                    restart: quoted.counters.restart,
                    fence: *release.fence(),
                    base: base_of(&snapshot, release.boot()),
                    boot: release.boot().cloned(),
                    twin,
                };
                released::record(view, request.node, &ruling.enrollment_id, &released)?;
                proposal::booted(view, request.node, booted)?;
                if let Some(ticket) = release.approval() {
                    boot::use_approval(view, request.node, ticket, request.now)?;
                }
            }
            Decided::Enrolled(release) => {
                enrollment::fetched(view, &snapshot.node, release.fetched_by())?;
            }
            Decided::Pending { .. } | Decided::Denied { .. } => {}
        }
        node::note_firmware(view, &snapshot.node, quoted.tpm_firmware, id, request.now)?;
        let waits = boot::record(view, request.node, id, &ruling, request.now)?;
        tell(view, request, &snapshot, &ruling, id, waits);
        view.rows.set_seen(request.node, request.now, &verdict.outcome, verdict.code.as_deref())?;
    }
    let outcome = ruling.decided.outcome();
    retention::trim_evidence(view, request.node, ruling.quoted.is_some(), outcome, request.keep)?;
    let code = verdict.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
    let outcome_said = format!("{}: {}{code}: ", request.evidence.purpose, verdict.outcome);
    let detail = audit::shortened(&outcome_said, &verdict.message, &format!(" (evidence {id})"));
    match (ruling.quoted.is_some(), &ruling.decided) {
        (true, Decided::Released { .. } | Decided::Enrolled(_)) => {
            audit::append(view, by, "verdict", Some(request.node), &detail)?;
        }
        // The first since a release, or in an hour, without a look at the trail, which a transaction with others can't wait for.
        (true, Decided::Pending { .. } | Decided::Denied { .. })
            if !refused_lately(&snapshot, request.now) =>
        {
            audit::append(view, by, "verdict", Some(request.node), &detail)?;
        }
        (true, Decided::Pending { .. } | Decided::Denied { .. }) => {
            audit::append_seldom(view, by, "verdict", request.node, &outcome_said, &detail)?;
        }
        // Anybody can send it in a node's name.
        (false, _) => {
            audit::count(view, by, "verdict", &request.node.to_string(), Some(request.node), &detail)?;
        }
    }
    match again {
        Some(Again::Twin(twin)) => {
            let detail = format!(
                "evidence {id} was released with the resetCount and restartCount of evidence {twin} and another r"
            );
            audit::append(view, by, "cloned", Some(request.node), &detail)?;
            view.tell(notice(request, &snapshot, NoticeKind::Cloned, None, id));
        }
        Some(Again::Restarted(before)) => {
            let detail = format!(
                "evidence {id} was released with the resetCount of evidence {before} and a higher restartCount: \
                 the power was cut while the machine was suspended, or a copy of its TPM was started"
            );
            audit::append(view, by, "restarted", Some(request.node), &detail)?;
        }
        None => {}
    }
    view.emit(Event::Verdict { node: request.node, evidence: id, outcome });
    Ok(Some(verdict))
}

/// Whether the last that the node signed was in this hour, and nothing was released for it.
fn refused_lately(snapshot: &NodeSnapshot, now: u64) -> bool {
    let NodeSnapshot { node, .. } = snapshot;
    node.last_seen / 3600 == now / 3600 && node.last_outcome.as_deref() != Some(Outcome::Released.as_str())
}

/// What came of evidence that the node signed: what anybody can send in its name is told to nobody.
fn tell(
    view: &TxView<'_>,
    request: &EvidenceRequest<'_>,
    snapshot: &NodeSnapshot,
    ruling: &Ruling,
    id: u64,
    waits: bool,
) {
    let first = || snapshot.node.current.as_ref().is_some_and(|current| current.released.is_none());
    let kind = match &ruling.decided {
        Decided::Denied { .. } => NoticeKind::Denied,
        Decided::Pending { .. } if waits => NoticeKind::Pending,
        Decided::Released { .. } if first() => NoticeKind::FirstBoot,
        Decided::Pending { .. } | Decided::Released { .. } | Decided::Enrolled(_) => return,
    };
    view.tell(notice(request, snapshot, kind, ruling.decided.reason(), id));
}

fn notice(
    request: &EvidenceRequest<'_>,
    snapshot: &NodeSnapshot,
    kind: NoticeKind,
    reason: Option<Reason>,
    id: u64,
) -> Notice {
    Notice {
        kind,
        node: request.node,
        label: snapshot.node.label.clone(),
        reason,
        evidence: Some(id),
        by: None,
        trace: request.trace.clone(),
        at: request.now,
    }
}

/// What the proposal that this boot comes from took shim and boot loader from, by its tag.
fn base_of(snapshot: &NodeSnapshot, boot: Option<&Matched>) -> Option<String> {
    let id = match boot?.origin {
        Origin::Document => return None,
        Origin::Proposal(id) => id,
    };
    let trusted = snapshot.node.governing.trusted.iter().find(|trusted| trusted.id == id)?;
    trusted.base_boot.clone()
}

/// Another opening since the same reset of the TPM, with the evidence of the last one.
enum Again {
    /// Of the same boot: the agent was started again, or two machines run from one state of a TPM.
    Twin(u64),
    /// Of a TPM that went on: TPM2_Startup(CLEAR) after TPM2_Shutdown(STATE) begins with new PCRs, and counts as a restart. As with a
    /// higher resetCount, nothing says that there are two.
    Restarted(u64),
}

fn again(snapshot: &NodeSnapshot, ruling: &Ruling) -> Option<Again> {
    let last = snapshot.node.current.as_ref()?.released.as_ref()?;
    let release = match &ruling.decided {
        Decided::Released { release, .. } => release,
        Decided::Enrolled(_) | Decided::Pending { .. } | Decided::Denied { .. } => return None,
    };
    let counters = ruling.quoted.as_ref()?.counters;
    if counters.reset != last.reset || *release.fence() == last.fence {
        return None;
    }
    Some(match counters.restart > last.restart {
        true => Again::Restarted(last.evidence_id),
        false => Again::Twin(last.evidence_id),
    })
}

fn row(request: &EvidenceRequest<'_>, ruling: &Ruling, twin: Option<u64>) -> Result<EvidenceRow> {
    let evidence = request.evidence;
    // Those of a quote that is not the node's could be anything and are not kept.
    let kept = |log: &Option<halfkey_protocol::Bytes>| {
        log.as_ref().filter(|_| ruling.quoted.is_some()).map(|log| log.to_vec())
    };
    let without_logs = Evidence {
        node_id: evidence.node_id.clone(),
        purpose: evidence.purpose.clone(),
        nonce: evidence.nonce.clone(),
        hpke_public: evidence.hpke_public.clone(),
        nonce_tpm: evidence.nonce_tpm.clone(),
        purpose_data: evidence.purpose_data.clone(),
        quote: evidence.quote.clone(),
        signature: evidence.signature.clone(),
        bank: evidence.bank.clone(),
        pcrs: evidence.pcrs.clone(),
        agent: evidence.agent.clone(),
        version: evidence.version,
        event_log: None,
        systemd_log: None,
        ima_log: None,
        command_line: evidence.command_line.clone(),
    };
    let decided = &ruling.decided;
    let expected_fence = match decided {
        Decided::Released { release, .. } => Some(release.fence().to_vec()),
        Decided::Enrolled(_) | Decided::Pending { .. } | Decided::Denied { .. } => None,
    };
    Ok(EvidenceRow {
        head: EvidenceHead {
            id: 0,
            node_id: request.node.to_string(),
            at: request.now,
            purpose: evidence.purpose.clone(),
            outcome: decided.outcome().as_str().to_owned(),
            code: decided.reason().map(|reason| reason.code().to_owned()),
            message: decided.message(),
            twin,
        },
        authentic: ruling.quoted.is_some(),
        evidence: json(&without_logs)?,
        event_log: kept(&evidence.event_log),
        systemd_log: kept(&evidence.systemd_log),
        ima_log: kept(&evidence.ima_log),
        quote: ruling.quoted.map(|quoted| quoted.counters.into()).unwrap_or_default(),
        expected_fence,
        findings: json(&ruling.findings)?,
        tpm_firmware: ruling.quoted.map(|quoted| node::firmware(quoted.tpm_firmware)),
    })
}

#[cfg(test)]
mod tests {
    use crate::appraisal::{Decided, Quoted, Ruling};
    use crate::domain::retention;
    use crate::domain::{
        By, Counters, Error, EvidenceRequest, NewDocument, NewEnrollment, NewPending, PolicySource,
        ProposalRequest, ProposalRuling, ProposalSnapshot, Records,
    };
    use crate::keys::ClusterKey;
    use crate::store::memory::Memory;
    use crate::store::{QuoteRow, Store as _, Then, Tx};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use halfkey_evidence::Rejection;
    use halfkey_protocol::document::{Deployment, Kind, Scope, next, signed_bytes};
    use halfkey_protocol::keys::half;
    use halfkey_protocol::tpm::bank::PcrBank;
    use halfkey_protocol::tpm::kdf::Hash;
    use halfkey_protocol::wire::{
        Credential, DocumentSignature, Enrollment, Evidence, Outcome, Register, SignedDocument,
        credential_digest,
    };
    use halfkey_protocol::{Bytes, NodeId, Reason};
    use std::sync::Arc;

    const NODE: NodeId = NodeId([7; 16]);

    fn records() -> (Arc<Memory>, Records) {
        let rows = Arc::new(Memory::default());
        let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
        enroll(&records, "first", 1000, 1000).unwrap();
        (rows, records)
    }

    fn change(rows: &Memory, change: impl Fn(&dyn Tx)) {
        rows.write(crate::store::Changes::Rows, &mut |tx| {
            change(tx);
            Then::Commit
        })
        .unwrap();
    }

    fn enroll(records: &Records, id: &str, created: u64, now: u64) -> Result<(), Error> {
        let some = || Bytes(vec![1; 32]);
        let credential = Credential { id_object: some(), secret: some() };
        // An ECC key with nameAlg SHA-256, as far as its name needs.
        let public = Bytes(vec![0x00, 0x23, 0x00, 0x0b]);
        let name = Bytes([&[0x00, 0x0b][..], &Hash::Sha256.digest(&[&public])].concat());
        let enrollment = Enrollment {
            enrollment_id: id.into(),
            challenge: vec![0x33; 32].into(),
            ek_name: name.clone(),
            ak_name: name.clone(),
            srk_name: name,
            c_u_sha256: credential_digest(&credential).into(),
            c_v_sha256: credential_digest(&credential).into(),
            release_public: some(),
            bank: "sha256".into(),
            proof_sha256: half::proof_digest(&[1; 32]).into(),
            ca: String::new(),
            servers: vec![],
            label: String::new(),
        };
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (scope, head) = (Scope::Enrollment(NODE), records.head().unwrap());
        let body = serde_json::to_string(&enrollment).unwrap();
        let document = next(Kind::Enrollment, &scope, Deployment([0; 16]), &head, created, body);
        let document = serde_json::to_vec(&document).unwrap();
        let signature = DocumentSignature {
            key: key.public_key().as_ref().into(),
            signature: key.sign(&signed_bytes(&document)).as_ref().into(),
        };
        let signed = SignedDocument { document: document.into(), signatures: vec![signature] };
        let opened = halfkey_evidence::signed_document::open(&signed).unwrap();
        let registration = Register {
            versions: vec![1],
            ek_public: public.clone(),
            ek_certificate: None,
            ek_chain: vec![],
            ak_public: public.clone(),
            srk_public: public,
            certify_info: some(),
            certify_signature: some(),
            label: String::new(),
        };
        let new = NewEnrollment {
            node: NODE,
            id,
            label: "web1",
            document: NewDocument { opened: &opened, signed: &signed },
            registration: &registration,
            bank: PcrBank::Sha256,
            c_v: &credential,
            c_u: &credential,
        };
        records.enroll(&new, By { actor: "ada", now })
    }

    fn attest(records: &Records, outcome: Outcome, log: usize) -> u64 {
        attest_at(records, 1, outcome, Rejection::new(Reason::PolicyMismatch, "test"), log)
    }

    fn attest_at(records: &Records, now: u64, outcome: Outcome, because: Rejection, log: usize) -> u64 {
        let some = || Bytes(vec![1; 32]);
        let evidence = Evidence {
            version: 1,
            node_id: NODE.to_string(),
            purpose: "boot".into(),
            nonce: some(),
            hpke_public: some(),
            nonce_tpm: some(),
            purpose_data: some(),
            quote: some(),
            signature: some(),
            bank: "sha256".into(),
            pcrs: vec![],
            event_log: Some(Bytes(vec![7; log])),
            systemd_log: None,
            ima_log: None,
            command_line: None,
            agent: "test".into(),
        };
        let waiting = NewPending { ticket: "t".into(), approvable: false, expires: 0 };
        let decided = match outcome {
            Outcome::Pending => Decided::Pending { because, waiting },
            Outcome::Denied => Decided::denied(because),
            Outcome::Released => panic!("only a grant makes a release"),
        };
        let counters = Counters { reset: 1, restart: 1, clock: 1 };
        let ruling = || Ruling {
            enrollment_id: "first".into(),
            quoted: Some(Quoted { counters, newer: false, tpm_firmware: 0 }),
            findings: vec![],
            decided: decided.clone(),
        };
        let request =
            EvidenceRequest { node: NODE, now, ticket: None, evidence: &evidence, keep: 20, trace: None };
        records.attest(&request, &mut |_| ruling()).unwrap().evidence_id.unwrap()
    }

    #[test]
    fn a_flood_of_denied_evidence_pushes_out_itself_only() {
        let (_, records) = records();
        let pending = attest(&records, Outcome::Pending, 1000);
        // Each another one: what is the same counts once.
        let denied: Vec<_> =
            (0..30).map(|less| attest(&records, Outcome::Denied, (1 << 20) - less)).collect();
        let kept = records.evidence_of(NODE, 100).unwrap();
        assert_eq!(kept.len(), 21, "twenty and the one that waits");
        let log = |id: u64| records.evidence(id).unwrap().unwrap().evidence.event_log;
        assert!(log(pending).is_some_and(|log| log.len() == 1000));
        let with_logs = denied[10..].iter().filter(|id| log(**id).is_some()).count();
        assert_eq!(with_logs as u64, retention::DENIED_LOGS >> 20);
        assert!(log(denied[29]).is_some(), "the newest");
    }

    fn propose(records: &Records, now: u64, because: &Rejection) {
        let request = ProposalRequest { node: NODE, now, sha256: [1; 32], proposal: None };
        let mut rule = |_: &ProposalSnapshot, _: &dyn PolicySource| {
            Ok(ProposalRuling {
                enrollment_id: "first".into(),
                counters: Some(Counters { reset: 1, restart: 1, clock: now }),
                decision: Err(because.clone()),
                from_evidence: 0,
                base_boot: None,
            })
        };
        records.propose(&request, &mut rule).unwrap();
    }

    /// Whoever has one TPM that is enrolled, revoked or not, has a quote for each second.
    #[test]
    fn a_node_that_is_denied_all_the_time_does_not_fill_the_trail() {
        let (_, records) = records();
        let before = records.audit(None, None, 1).unwrap().pop().unwrap().seq;
        let trail = |action: &str| {
            let entries = records.audit(Some(before), None, 10_000).unwrap();
            entries.into_iter().filter(|entry| entry.action == action).collect::<Vec<_>>()
        };
        let hour = 500_000 * 3600;
        let long = |reason| Rejection::new(reason, "é".repeat(10_000));
        for second in 0..600 {
            let outcome = if second % 2 == 0 { Outcome::Denied } else { Outcome::Pending };
            attest_at(&records, hour + second, outcome, long(Reason::PolicyMismatch), 1);
            propose(&records, hour + second, &long(Reason::ProposalMalformed));
        }
        // The first that is counted is an entry as well.
        assert_eq!(
            (trail("verdict").len(), trail("propose").len()),
            (super::audit::OFTEN + 1, super::audit::OFTEN + 1)
        );
        let last = attest_at(&records, hour + 600, Outcome::Denied, long(Reason::Revoked), 1);
        propose(&records, hour + 600, &long(Reason::Revoked));
        for action in ["verdict", "propose"] {
            let of_hour = trail(action);
            assert_eq!(of_hour.len(), super::audit::OFTEN + 2, "another reason is news");
            assert!(of_hour.iter().all(|entry| entry.detail.len() <= 1 << 10), "{of_hour:?}");
        }
        let said = trail("verdict").pop().unwrap().detail;
        assert!(
            said.starts_with("boot: denied revoked: ") && said.ends_with(&format!("... (evidence {last})"))
        );
        attest_at(&records, hour + 3600, Outcome::Denied, long(Reason::PolicyMismatch), 1);
        assert_eq!(trail("verdict").len(), super::audit::OFTEN + 3, "another hour");
        records.expire(0, hour + 2 * 3600).unwrap();
        let counted = trail("verdict").pop().unwrap().detail;
        assert!(counted.starts_with("579 more in the hour from "), "{counted}");
    }

    /// The node has fetched and proved it.
    fn prove(rows: &Memory, records: &Records, enrollment: &str, now: u64) {
        let some = || Bytes(vec![1; 32]);
        let c_u = Credential { id_object: some(), secret: some() };
        let ticket = "a ticket";
        let c_u = crate::domain::seal::seal(
            &ClusterKey::from_bytes(&[1; 32]),
            NODE,
            enrollment,
            Some(ticket),
            &c_u,
        )
        .unwrap();
        change(rows, |tx| tx.set_fetched(enrollment, ticket, Some(&c_u)).unwrap());
        records.prove(NODE, enrollment, &[1; 32], now).unwrap();
    }

    #[test]
    fn an_enrollment_is_not_older_than_the_current_one() {
        let (rows, records) = records();
        enroll(&records, "before it is proved", 10, 2000).unwrap();
        prove(&rows, &records, "before it is proved", 2000);
        let refused = enroll(&records, "older", 9, 2000).unwrap_err();
        assert!(matches!(&refused, Error::Refused(Reason::Conflict, _)), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("Jan  1 00:00:09 1970") && said.contains("Jan  1 00:00:10 1970"), "{said}");
        enroll(&records, "same", 10, 2000).unwrap();
        enroll(&records, "far", 1 << 40, 2000).unwrap();
        prove(&rows, &records, "far", 2000);
        enroll(&records, "again", 11, 2000).expect("a future one of the past does not lock the node out");
    }

    #[test]
    fn words_and_counters_that_nothing_here_writes_are_damage() {
        let (rows, records) = records();
        let id = attest(&records, Outcome::Denied, 1);
        prove(&rows, &records, "first", 1000);
        let forge = |purpose: &str, outcome: &str| {
            change(&rows, |tx| {
                let mut row = tx.evidence(id).unwrap().unwrap();
                row.head.purpose = purpose.to_owned();
                row.head.outcome = outcome.to_owned();
                tx.insert_evidence(&row).unwrap();
            });
            id + 1
        };
        let forged = forge("boot", "allowed");
        for said in [records.evidence(forged).unwrap_err(), records.evidence_of(NODE, 9).unwrap_err()] {
            let expected = format!("table evidence, id {forged}: outcome \"allowed\"");
            assert!(said.to_string().contains(&expected), "{said}");
        }
        let said = records.evidence(forge("anything", "denied") + 1).unwrap_err();
        assert!(said.to_string().contains("purpose \"anything\""), "{said}");
        let half = QuoteRow { reset: Some(7), ..QuoteRow::default() };
        change(&rows, |tx| tx.set_quoted("first", &half).unwrap());
        let node = records.node(NODE).unwrap().unwrap();
        let said = node.damage.unwrap().to_string();
        let expected = "table enrollments, first: counters Some(7), None and None";
        assert!(said.contains(expected) && node.current.is_none(), "{said}");
    }
}
