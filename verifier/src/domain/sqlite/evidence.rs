//! Evidence and the transaction that rules on it.

use super::{as_u64, audit, boots, broken, damaged, from_json, id_text, json, nodes, number, proposals};
use crate::attest::{Decided, Ruling};
use crate::domain::sequence::Index;
use crate::domain::{By, Case, ReleasedBoot, Result, Standing, StoreError, legible};
use halfkey_protocol::wire::operator::{EvidenceRecord, EvidenceSummary};
use halfkey_protocol::wire::{Evidence, Outcome, Purpose, Verdict};
use halfkey_protocol::{Bytes, NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

/// Records per node of quotes that are not the node's: anybody can send those, so
/// they must not push out real ones.
const KEPT_FOREIGN: u64 = 20;

/// Bytes of logs per node, of the newest records: released, pending, and denied ones.
const LOGS: u64 = 32 << 20;
const DENIED_LOGS: u64 = 8 << 20;

/// Rules on evidence and records everything, or nothing.
pub fn attest(
    tx: &Transaction<'_>,
    case: &Case<'_>,
    index: &Index,
    rule: &mut dyn FnMut(&Standing) -> Ruling,
) -> Result<Verdict> {
    let node = nodes::one(tx, case.node, index)?.ok_or_else(|| {
        StoreError::Refused(Reason::NotEnrolled, format!("node {} is not enrolled", case.node))
    })?;
    // A decision that can't be read is none.
    let (boot, damage) = match case.ticket {
        Some(ticket) => legible(boots::one(tx, case.node, ticket, case.now))?,
        None => (None, None),
    };
    let in_row = boot.as_ref().and_then(|boot| boot.damage.as_ref());
    if let Some(damage) = in_row.or(damage.as_ref()) {
        let by = By { actor: "verifier", now: case.now };
        audit::append(tx, by, "damage", Some(case.node), damage)?;
    }
    let proposals = proposals::accepted(tx, case.node)?;
    let standing = Standing { node, boot, proposals };
    let ruling = rule(&standing);
    let twin = twin(&standing, &ruling);
    let id = insert(tx, case, &ruling, twin)?;
    let verdict = ruling.verdict(id);
    if let Some(quoted) = ruling.quoted {
        if quoted.newer {
            nodes::set_counters(tx, &ruling.enrollment_id, quoted.counters)?;
        }
        match &ruling.decided {
            Decided::Released { release, booted } => {
                let released = ReleasedBoot {
                    evidence_id: id,
                    reset: quoted.counters.reset,
                    restart: quoted.counters.restart,
                    fence: *release.fence(),
                    boot: release.boot().cloned(),
                    twin,
                };
                nodes::set_released(tx, &ruling.enrollment_id, &released)?;
                proposals::booted(tx, case.node, booted)?;
                if let Some(ticket) = release.approval() {
                    boots::use_approval(tx, case.node, ticket, case.now)?;
                }
            }
            Decided::Enrolled(release) => {
                tx.execute(
                    "UPDATE enrollments SET fetched_by = ?2 WHERE enrollment_id = ?1",
                    [&ruling.enrollment_id, release.fetched_by()],
                )
                .map_err(broken)?;
            }
            Decided::Pending { .. } | Decided::Denied { .. } => {}
        }
        nodes::set_firmware(tx, &standing.node, quoted.tpm_firmware, id, case.now)?;
        boots::record(tx, case.node, id, &ruling, case.now)?;
        tx.prepare_cached(
            "UPDATE nodes SET last_seen = ?2, last_outcome = ?3, last_code = ?4 WHERE node_id = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![id_text(case.node), number(case.now), verdict.outcome, verdict.code])
        })
        .map_err(broken)?;
    }
    trim(tx, case, &ruling)?;
    let code = verdict.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
    let detail =
        format!("{}: {}{code}: {} (evidence {id})", case.evidence.purpose, verdict.outcome, verdict.message);
    let by = By { actor: "verifier", now: case.now };
    match ruling.quoted.is_some() {
        true => audit::append(tx, by, "verdict", Some(case.node), &detail)?,
        // Anybody can send it in a node's name.
        false => audit::count(tx, by, "verdict", &id_text(case.node), Some(case.node), &detail)?,
    }
    if let Some(twin) = twin {
        let detail =
            format!("evidence {id} was released with the resetCount of evidence {twin} and another r");
        audit::append(tx, by, "cloned", Some(case.node), &detail)?;
    }
    Ok(verdict)
}

/// The last release, if this one is of the same boot and yet another: an answer that got lost, or two machines that
/// run from one state of a TPM.
fn twin(standing: &Standing, ruling: &Ruling) -> Option<u64> {
    let last = standing.node.current.as_ref()?.released.as_ref()?;
    match &ruling.decided {
        Decided::Released { release, .. } => {
            let same_boot = ruling.quoted.is_some_and(|quoted| quoted.counters.reset == last.reset);
            (same_boot && *release.fence() != last.fence).then_some(last.evidence_id)
        }
        Decided::Enrolled(_) | Decided::Pending { .. } | Decided::Denied { .. } => None,
    }
}

/// Evidence of a node, newest first.
pub fn of_node(c: &Connection, node: NodeId, limit: u64) -> Result<Vec<EvidenceSummary>> {
    let sql = format!("SELECT {SUMMARY} FROM evidence WHERE node_id = ?1 ORDER BY id DESC LIMIT ?2");
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    let rows = query.query_map(params![id_text(node), number(limit)], summary);
    let rows: Vec<_> = rows.and_then(Iterator::collect).map_err(broken)?;
    rows.into_iter().map(known).collect()
}

/// One record.
pub fn one(c: &Connection, id: u64) -> Result<Option<EvidenceRecord>> {
    let sql = format!(
        "SELECT {SUMMARY}, evidence, event_log, systemd_log, ima_log, reset_count, restart_count, clock,
                expected_fence, findings, tpm_firmware
         FROM evidence WHERE id = ?1"
    );
    let read = |row: &Row<'_>| {
        let log = |index| row.get::<_, Option<Vec<u8>>>(index).map(|log| log.map(Bytes));
        let texts: (String, String) = (row.get(8)?, row.get(16)?);
        let logs = [log(9)?, log(10)?, log(11)?];
        let clock: Option<i64> = row.get(14)?;
        let counters: (Option<u32>, Option<u32>) = (row.get(12)?, row.get(13)?);
        let firmware: Option<String> = row.get(17)?;
        Ok((summary(row)?, texts, logs, counters, clock.map(as_u64), log(15)?, firmware))
    };
    let found = c
        .prepare_cached(&sql)
        .and_then(|mut query| query.query_row([number(id)], read).optional())
        .map_err(broken)?;
    let Some((
        summary,
        (evidence, findings),
        logs,
        (reset_count, restart_count),
        clock,
        expected_fence,
        tpm_firmware,
    )) = found
    else {
        return Ok(None);
    };
    let [event_log, systemd_log, ima_log] = logs;
    let evidence = Evidence { event_log, systemd_log, ima_log, ..from_json(&evidence, "evidence")? };
    let findings = from_json(&findings, "findings")?;
    let summary = known(summary)?;
    Ok(Some(EvidenceRecord {
        summary,
        evidence,
        reset_count,
        restart_count,
        clock,
        tpm_firmware,
        expected_fence,
        findings,
    }))
}

const SUMMARY: &str = "id, node_id, at, purpose, outcome, code, message, twin";

fn summary(row: &Row<'_>) -> rusqlite::Result<EvidenceSummary> {
    Ok(EvidenceSummary {
        id: as_u64(row.get(0)?),
        node_id: row.get(1)?,
        at: as_u64(row.get(2)?),
        purpose: row.get(3)?,
        outcome: row.get(4)?,
        code: row.get(5)?,
        message: row.get(6)?,
        cloned: row.get::<_, Option<i64>>(7)?.map(as_u64),
    })
}

/// Its words are ones that this program writes.
fn known(summary: EvidenceSummary) -> Result<EvidenceSummary> {
    let EvidenceSummary { id, purpose, outcome, .. } = &summary;
    for (column, text, is_known) in [
        ("purpose", purpose, Purpose::parse(purpose).is_some()),
        ("outcome", outcome, Outcome::parse(outcome).is_some()),
    ] {
        if !is_known {
            return Err(damaged(&format!("table evidence, id {id}: {column} {text:.32?}")));
        }
    }
    Ok(summary)
}

fn insert(tx: &Transaction<'_>, case: &Case<'_>, ruling: &Ruling, twin: Option<u64>) -> Result<u64> {
    let evidence = case.evidence;
    // The logs have columns of their own: as bytes, not as base64. Those of a quote
    // that is not the node's could be anything and are not kept.
    let logs = [&evidence.event_log, &evidence.systemd_log, &evidence.ima_log]
        .map(|log| log.as_ref().filter(|_| ruling.quoted.is_some()).map(|log| log.as_ref()));
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
        Decided::Released { release, .. } => Some(release.fence()),
        Decided::Enrolled(_) | Decided::Pending { .. } | Decided::Denied { .. } => None,
    };
    let counters = ruling.quoted.map(|quoted| quoted.counters);
    let (finish_json, findings) = (json(&without_logs)?, json(&ruling.findings)?);
    tx.prepare_cached(
        "INSERT INTO evidence (node_id, at, purpose, outcome, code, message, authentic, evidence, event_log, systemd_log,
                               ima_log, reset_count, restart_count, clock, expected_fence, findings,
                               twin, tpm_firmware)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )
    .and_then(|mut insert| {
        insert.insert(params![
            id_text(case.node),
            number(case.now),
            evidence.purpose,
            decided.outcome().as_str(),
            decided.reason().map(Reason::code),
            decided.message(),
            ruling.quoted.is_some(),
            finish_json,
            logs[0],
            logs[1],
            logs[2],
            counters.map(|counters| counters.reset),
            counters.map(|counters| counters.restart),
            counters.map(|counters| number(counters.clock)),
            expected_fence,
            findings,
            twin.map(number),
            ruling.quoted.map(|quoted| nodes::firmware(quoted.tpm_firmware)),
        ])
    })
    .map(as_u64)
    .map_err(broken)
}

/// Deletes what is too old, but not what a pending boot or a waiting proposal stands on.
/// Each outcome is counted alone: a node that sends nonsense must not push out the
/// record of what was released to it.
fn trim(tx: &Transaction<'_>, case: &Case<'_>, ruling: &Ruling) -> Result<()> {
    let (node, authentic) = (id_text(case.node), ruling.quoted.is_some());
    let outcome = ruling.decided.outcome();
    let keep = if authentic { case.keep.max(1) } else { KEPT_FOREIGN };
    tx.prepare_cached(
        "DELETE FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
             AND id <= (SELECT id FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
                        ORDER BY id DESC LIMIT 1 OFFSET ?4)
             AND id NOT IN (SELECT evidence_id FROM boots WHERE node_id = ?1)
             AND id NOT IN (SELECT from_evidence FROM proposals WHERE node_id = ?1 AND state = 'waiting')",
    )
    .and_then(|mut delete| delete.execute(params![node, authentic, outcome.as_str(), number(keep)]))
    .map_err(broken)?;
    // Without its log a boot can still be approved, but nothing can be learned from it.
    let budget = match outcome {
        Outcome::Denied => DENIED_LOGS,
        Outcome::Released | Outcome::Pending => LOGS,
    };
    tx.prepare_cached(
        "UPDATE evidence SET event_log = NULL, systemd_log = NULL, ima_log = NULL WHERE id IN
             (SELECT id FROM (SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS total FROM
                  (SELECT id, coalesce(length(event_log), 0) + coalesce(length(systemd_log), 0)
                              + coalesce(length(ima_log), 0) AS bytes
                   FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3))
              WHERE bytes > 0 AND total > ?4)",
    )
    .and_then(|mut update| update.execute(params![node, authentic, outcome.as_str(), number(budget)]))
    .map(|_| ())
    .map_err(broken)
}

#[cfg(test)]
mod tests {
    use crate::attest::{Decided, Quoted, Ruling};
    use crate::domain::NewDocument;
    use crate::domain::sqlite::Sqlite;
    use crate::domain::{By, Case, Counters, NewEnrollment, NewPending, Store, StoreError};
    use crate::keys::ClusterKey;
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

    const NODE: NodeId = NodeId([7; 16]);

    fn store() -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("db"), ClusterKey::from_bytes(&[1; 32])).unwrap();
        enroll(&store, "first", 1000, 1000).unwrap();
        (dir, store)
    }

    fn enroll(store: &Sqlite, id: &str, created: u64, now: u64) -> Result<(), StoreError> {
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
        let (scope, head) = (Scope::Enrollment(NODE), store.head().unwrap());
        let body = serde_json::to_string(&enrollment).unwrap();
        let document = next(Kind::Enrollment, &scope, Deployment([0; 16]), &head, created, body);
        let document = serde_json::to_vec(&document).unwrap();
        let signature = DocumentSignature {
            key: key.public_key().as_ref().into(),
            signature: key.sign(&signed_bytes(&document)).as_ref().into(),
        };
        let signed = SignedDocument { document: document.into(), signatures: vec![signature] };
        let opened = halfkey_evidence::document::open(&signed).unwrap();
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
        store.enroll(&new, By { actor: "ada", now })
    }

    fn attest(store: &Sqlite, outcome: Outcome, log: usize) -> u64 {
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
        let because = Rejection::new(Reason::PolicyMismatch, "test");
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
        let case = Case { node: NODE, now: 1, ticket: None, evidence: &evidence, keep: 20 };
        store.attest(&case, &mut |_| ruling()).unwrap().evidence_id.unwrap()
    }

    #[test]
    fn a_flood_of_denied_evidence_pushes_out_itself_only() {
        let (_dir, store) = store();
        let pending = attest(&store, Outcome::Pending, 1000);
        let denied: Vec<_> = (0..30).map(|_| attest(&store, Outcome::Denied, 1 << 20)).collect();
        let kept = store.evidence_of(NODE, 100).unwrap();
        assert_eq!(kept.len(), 21, "twenty and the one that waits");
        let log = |id: u64| store.evidence(id).unwrap().unwrap().evidence.event_log;
        assert!(log(pending).is_some_and(|log| log.len() == 1000));
        let with_logs = denied[10..].iter().filter(|id| log(**id).is_some()).count();
        assert_eq!(with_logs as u64, super::DENIED_LOGS >> 20);
        assert!(log(denied[29]).is_some(), "the newest");
    }

    /// The node has fetched and proved it.
    fn prove(store: &Sqlite, enrollment: &str, now: u64) {
        let fetched = "UPDATE enrollments SET fetched_by = 'a ticket' WHERE enrollment_id = ?1";
        store.writer().execute(fetched, [enrollment]).unwrap();
        store.prove(NODE, enrollment, &[1; 32], now).unwrap();
    }

    #[test]
    fn an_enrollment_is_not_older_than_the_current_one() {
        let (_dir, store) = store();
        enroll(&store, "before it is proved", 10, 2000).unwrap();
        prove(&store, "before it is proved", 2000);
        let refused = enroll(&store, "older", 9, 2000).unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(Reason::Conflict, _)), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("Jan  1 00:00:09 1970") && said.contains("Jan  1 00:00:10 1970"), "{said}");
        enroll(&store, "same", 10, 2000).unwrap();
        enroll(&store, "far", 1 << 40, 2000).unwrap();
        prove(&store, "far", 2000);
        enroll(&store, "again", 11, 2000).expect("a future one of the past does not lock the node out");
    }

    #[test]
    fn words_and_counters_that_nothing_here_writes_are_damage() {
        let (_dir, store) = store();
        let id = attest(&store, Outcome::Denied, 1);
        prove(&store, "first", 1000);
        for (statement, expected) in [
            (
                "UPDATE evidence SET outcome = 'allowed'",
                format!("table evidence, id {id}: outcome \"allowed\""),
            ),
            (
                "UPDATE evidence SET outcome = 'denied', purpose = 'anything'",
                format!("id {id}: purpose \"anything\""),
            ),
        ] {
            store.writer().execute(statement, []).unwrap();
            for said in [store.evidence(id).unwrap_err(), store.evidence_of(NODE, 9).unwrap_err()] {
                assert!(said.to_string().contains(&expected), "{said}");
            }
        }
        for (statement, expected) in [
            (
                "UPDATE enrollments SET reset_count = 7",
                "table enrollments, first: counters Some(7), None and None",
            ),
            ("UPDATE enrollments SET restart_count = 7, clock = -1", "table enrollments, first: clock -1"),
            ("UPDATE enrollments SET clock = 1, bank = 'sha1'", "table enrollments, first: bank \"sha1\""),
        ] {
            store.writer().execute(statement, []).unwrap();
            let node = store.node(NODE).unwrap().unwrap();
            let said = node.damage.unwrap().to_string();
            assert!(said.contains(expected) && node.current.is_none(), "{said}");
        }
    }
}
