//! Evidence. Logs have columns of their own: as bytes, not as base64.

use super::{SqliteTx, as_u64, broken, clock_at, id_text, number, some_u64_at, u64_at};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, QuoteRow, Result};
use halfkey_protocol::NodeId;
use rusqlite::{Row, params};

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for SqliteTx<'_> {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log, systemd_log,
                 ima_log, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
        let EvidenceHead { node_id, at, purpose, outcome, code, message, twin, .. } = &row.head;
        let QuoteRow { reset, restart, clock } = row.quote;
        let values = params![
            node_id,
            number(*at),
            purpose,
            outcome,
            code,
            message,
            twin.map(number),
            row.authentic,
            row.evidence,
            row.event_log,
            row.systemd_log,
            row.ima_log,
            reset,
            restart,
            clock.map(u64::cast_signed),
            row.expected_fence,
            row.findings,
            row.tpm_firmware,
        ];
        let mut insert = self.0.prepare_cached(SQL).map_err(broken)?;
        insert.insert(values).map(as_u64).map_err(broken)
    }

    fn evidence(&self, id: u64) -> Result<Option<EvidenceRow>> {
        let sql = format!(
            "SELECT {HEAD}, authentic, evidence, event_log, systemd_log, ima_log, reset_count, restart_count,
                    clock, expected_fence, findings, tpm_firmware
             FROM evidence WHERE id = ?1"
        );
        self.first(&sql, [number(id)], |row| {
            Ok(EvidenceRow {
                head: head(row)?,
                authentic: row.get(8)?,
                evidence: row.get(9)?,
                event_log: row.get(10)?,
                systemd_log: row.get(11)?,
                ima_log: row.get(12)?,
                quote: QuoteRow { reset: row.get(13)?, restart: row.get(14)?, clock: clock_at(row, 15)? },
                expected_fence: row.get(16)?,
                findings: row.get(17)?,
                tpm_firmware: row.get(18)?,
            })
        })
    }

    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceHead>> {
        let sql = format!("SELECT {HEAD} FROM evidence WHERE node_id = ?1 ORDER BY id DESC LIMIT ?2");
        self.all(&sql, params![id_text(node), number(limit)], head)
    }

    fn trim_evidence(
        &self,
        node: NodeId,
        authentic: bool,
        outcome: &str,
        keep: u64,
        except: &[u64],
    ) -> Result<()> {
        const SQL: &str = "DELETE FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
            AND id <= (SELECT id FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
                       ORDER BY id DESC LIMIT 1 OFFSET ?4)
            AND id NOT IN (SELECT value FROM json_each(?5))";
        let except = format!("[{}]", except.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
        self.change(SQL, params![id_text(node), authentic, outcome, number(keep), except]).map(drop)
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        const SQL: &str =
            "UPDATE evidence SET event_log = NULL, systemd_log = NULL, ima_log = NULL WHERE id IN
                (SELECT id FROM (SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS total FROM
                     (SELECT id, coalesce(length(event_log), 0) + coalesce(length(systemd_log), 0)
                                 + coalesce(length(ima_log), 0) AS bytes
                      FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3))
                 WHERE bytes > 0 AND total > ?4)";
        self.change(SQL, params![id_text(node), authentic, outcome, number(bytes)]).map(drop)
    }
}

fn head(row: &Row<'_>) -> rusqlite::Result<EvidenceHead> {
    Ok(EvidenceHead {
        id: u64_at(row, 0)?,
        node_id: row.get(1)?,
        at: u64_at(row, 2)?,
        purpose: row.get(3)?,
        outcome: row.get(4)?,
        code: row.get(5)?,
        message: row.get(6)?,
        twin: some_u64_at(row, 7)?,
    })
}
