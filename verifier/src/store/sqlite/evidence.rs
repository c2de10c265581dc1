//! Evidence. A log is kept as bytes, and once for all evidence of a node that came with the same.

use super::{SqliteTx, as_u64, broken, clock_at, id_text, number, some_u64_at, u64_at};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, LOG_COLUMNS, QuoteRow, Result};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_protocol::NodeId;
use rusqlite::{Row, params};
use std::collections::BTreeSet;

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for SqliteTx<'_> {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log_id,
                 systemd_log_id, ima_log_id, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware)
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
            self.keep_log(node_id, row.event_log.as_deref())?,
            self.keep_log(node_id, row.systemd_log.as_deref())?,
            self.keep_log(node_id, row.ima_log.as_deref())?,
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
            "SELECT {HEAD}, authentic, evidence,
                    coalesce((SELECT log FROM logs WHERE logs.id = event_log_id), event_log),
                    coalesce((SELECT log FROM logs WHERE logs.id = systemd_log_id), systemd_log),
                    coalesce((SELECT log FROM logs WHERE logs.id = ima_log_id), ima_log), reset_count, restart_count,
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
        let sql = format!(
            "SELECT {HEAD} FROM evidence WHERE id IN
                 (SELECT id FROM evidence WHERE node_id = ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id DESC"
        );
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
        const OLD: &str = "SELECT id FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
            ORDER BY id DESC LIMIT 1 OFFSET ?4";
        const SQL: &str = "DELETE FROM evidence WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3
            AND id <= ?4 AND id NOT IN (SELECT value FROM json_each(?5))
            RETURNING event_log_id, systemd_log_id, ima_log_id";
        let node = id_text(node);
        let values = params![node, authentic, outcome, number(keep)];
        let Some(newest) = self.first(OLD, values, |row| row.get::<_, i64>(0))? else { return Ok(()) };
        let except = format!("[{}]", except.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
        let of_row = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
        let freed: Vec<[Option<i64>; 3]> =
            self.all(SQL, params![node, authentic, outcome, newest, except], of_row)?;
        self.drop_logs(&node, freed.into_iter().flatten().flatten())
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        const ALL: &str = "SELECT coalesce(sum(bytes), 0) FROM logs WHERE node_id = ?1";
        const OLD: &str = "WITH kind AS
                (SELECT id, event_log_id, systemd_log_id, ima_log_id FROM evidence
                 WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3),
            used AS
                (SELECT event_log_id AS kept, id FROM kind UNION ALL SELECT systemd_log_id, id FROM kind
                 UNION ALL SELECT ima_log_id, id FROM kind),
            newest AS (SELECT kept, max(id) AS at FROM used WHERE kept IS NOT NULL GROUP BY kept)
            SELECT kept FROM
                (SELECT kept, sum(bytes) OVER (ORDER BY at DESC, kept DESC) AS total
                 FROM newest JOIN logs ON logs.id = kept)
            WHERE total > ?4";
        let node = id_text(node);
        // Nearly always they are fewer than any bound, and the node's other evidence need not be looked at.
        if self.first(ALL, [&node], |row| u64_at(row, 0))?.unwrap_or(0) <= bytes {
            return Ok(());
        }
        let values = params![node, authentic, outcome, number(bytes)];
        let old: Vec<i64> = self.all(OLD, values, |row| row.get(0))?;
        for log in &old {
            for column in LOG_COLUMNS {
                let sql = format!(
                    "UPDATE evidence SET {column} = NULL
                     WHERE node_id = ?1 AND authentic = ?2 AND outcome = ?3 AND {column} = ?4"
                );
                self.change(&sql, params![node, authentic, outcome, log])?;
            }
        }
        self.drop_logs(&node, old.into_iter())
    }
}

impl SqliteTx<'_> {
    /// The number of a log of a node, which is kept if it was not yet.
    fn keep_log(&self, node: &str, log: Option<&[u8]>) -> Result<Option<i64>> {
        const KEPT: &str = "SELECT id FROM logs WHERE node_id = ?1 AND sha256 = ?2 AND bytes = ?3";
        const SQL: &str = "INSERT INTO logs (node_id, sha256, bytes, log) VALUES (?1, ?2, ?3, ?4)";
        let Some(log) = log else { return Ok(None) };
        let sum = digest(&SHA256, log);
        let kept = params![node, sum.as_ref(), number(log.len() as u64)];
        if let Some(id) = self.first(KEPT, kept, |row| row.get(0))? {
            return Ok(Some(id));
        }
        let mut insert = self.0.prepare_cached(SQL).map_err(broken)?;
        let values = params![node, sum.as_ref(), number(log.len() as u64), log];
        insert.insert(values).map(Some).map_err(broken)
    }

    /// Deletes those of these logs of a node that no evidence came with.
    fn drop_logs(&self, node: &str, logs: impl Iterator<Item = i64>) -> Result<()> {
        const SQL: &str = "DELETE FROM logs WHERE id = ?2 AND NOT EXISTS
            (SELECT 1 FROM evidence WHERE node_id = ?1
             AND (event_log_id = ?2 OR systemd_log_id = ?2 OR ima_log_id = ?2))";
        for log in logs.collect::<BTreeSet<_>>() {
            self.change(SQL, params![node, log])?;
        }
        Ok(())
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
