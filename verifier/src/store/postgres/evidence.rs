//! Evidence. A log is kept as bytes, and once for all evidence of a node that came with the same.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, LOG_COLUMNS, QuoteRow, Result, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_protocol::NodeId;
use std::collections::BTreeSet;

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for PgTx<'_> {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log_id,
                 systemd_log_id, ima_log_id, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
            RETURNING id";
        let EvidenceHead { node_id, at, purpose, outcome, code, message, twin, .. } = &row.head;
        let QuoteRow { reset, restart, clock } = row.quote;
        let logs = [&row.event_log, &row.systemd_log, &row.ima_log];
        let [event_log, systemd_log, ima_log] = self.keep_logs(node_id, logs)?;
        let id = self.first(
            SQL,
            &[
                node_id,
                &stored(*at)?,
                purpose,
                outcome,
                code,
                message,
                &stored_some(*twin)?,
                &row.authentic,
                &row.evidence,
                &event_log,
                &systemd_log,
                &ima_log,
                &reset.map(i64::from),
                &restart.map(i64::from),
                &clock.map(u64::cast_signed),
                &row.expected_fence,
                &row.findings,
                &row.tpm_firmware,
            ],
            |row| row.u64(0),
        )?;
        id.ok_or_else(|| StoreError::Unavailable("an insert that gave no row".to_owned()))
    }

    fn evidence(&self, id: u64) -> Result<Option<EvidenceRow>> {
        let sql = format!(
            "SELECT {HEAD}, authentic, evidence,
                    coalesce((SELECT log FROM logs WHERE logs.id = event_log_id), event_log),
                    coalesce((SELECT log FROM logs WHERE logs.id = systemd_log_id), systemd_log),
                    coalesce((SELECT log FROM logs WHERE logs.id = ima_log_id), ima_log), reset_count, restart_count,
                    clock, expected_fence, findings, tpm_firmware
             FROM evidence WHERE id = $1"
        );
        self.first(&sql, &[&bound(id)], |row| {
            Ok(EvidenceRow {
                head: head(row)?,
                authentic: row.get(8)?,
                evidence: row.get(9)?,
                event_log: row.get(10)?,
                systemd_log: row.get(11)?,
                ima_log: row.get(12)?,
                quote: QuoteRow {
                    reset: row.some_u32(13)?,
                    restart: row.some_u32(14)?,
                    clock: row.clock(15)?,
                },
                expected_fence: row.get(16)?,
                findings: row.get(17)?,
                tpm_firmware: row.get(18)?,
            })
        })
    }

    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceHead>> {
        let sql = format!(
            "SELECT {HEAD} FROM evidence WHERE id IN
                 (SELECT id FROM evidence WHERE node_id = $1 ORDER BY id DESC LIMIT $2) ORDER BY id DESC"
        );
        self.hold(node)?;
        self.all(&sql, &[&node.to_string(), &bound(limit)], head)
    }

    fn trim_evidence(
        &self,
        node: NodeId,
        authentic: bool,
        outcome: &str,
        keep: u64,
        except: &[u64],
    ) -> Result<()> {
        const SQL: &str = "DELETE FROM evidence WHERE node_id = $1 AND authentic = $2 AND outcome = $3
            AND id <= (SELECT id FROM evidence WHERE node_id = $1 AND authentic = $2 AND outcome = $3
                       ORDER BY id DESC LIMIT 1 OFFSET $4)
            AND id <> ALL ($5::TEXT::BIGINT[])
            RETURNING event_log_id, systemd_log_id, ima_log_id";
        let except = except.iter().map(|id| bound(*id).to_string()).collect::<Vec<_>>().join(",");
        let except = format!("{{{except}}}");
        self.hold(node)?;
        let of_row = |row: &Found| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
        let node = node.to_string();
        let freed: Vec<[Option<i64>; 3]> =
            self.all(SQL, &[&node, &authentic, &outcome, &bound(keep), &except], of_row)?;
        self.drop_logs(&node, freed.into_iter().flatten().flatten())
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        // Nearly always they are fewer than any bound, and the node's other evidence is not looked at.
        const OLD: &str = "WITH kind AS
                (SELECT id, event_log_id, systemd_log_id, ima_log_id FROM evidence
                 WHERE node_id = $1 AND authentic = $2 AND outcome = $3
                   AND (SELECT sum(bytes) FROM logs WHERE node_id = $1) > $4::BIGINT),
            used AS
                (SELECT event_log_id AS kept, id FROM kind UNION ALL SELECT systemd_log_id, id FROM kind
                 UNION ALL SELECT ima_log_id, id FROM kind),
            newest AS (SELECT kept, max(id) AS at FROM used WHERE kept IS NOT NULL GROUP BY kept)
            SELECT kept FROM
                (SELECT kept, sum(bytes) OVER (ORDER BY at DESC, kept DESC) AS total
                 FROM newest JOIN logs ON logs.id = kept) AS sums
            WHERE total > $4::BIGINT";
        self.hold(node)?;
        let node = node.to_string();
        let old: Vec<i64> = self.all(OLD, &[&node, &authentic, &outcome, &bound(bytes)], |row| row.get(0))?;
        for log in &old {
            for column in LOG_COLUMNS {
                let sql = format!(
                    "UPDATE evidence SET {column} = NULL
                     WHERE node_id = $1 AND authentic = $2 AND outcome = $3 AND {column} = $4"
                );
                self.change(&sql, &[&node, &authentic, &outcome, log])?;
            }
        }
        self.drop_logs(&node, old.into_iter())
    }
}

impl PgTx<'_> {
    /// The numbers of logs of a node, which are kept if they were not yet.
    fn keep_logs(&self, node: &str, logs: [&Option<Vec<u8>>; 3]) -> Result<[Option<i64>; 3]> {
        const KEPT: &str = "SELECT (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $2),
                                   (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $3),
                                   (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $4)";
        const SQL: &str = "INSERT INTO logs (node_id, sha256, bytes, log) VALUES ($1, $2, $3, $4)
                           ON CONFLICT (node_id, sha256) DO UPDATE SET bytes = excluded.bytes RETURNING id";
        if logs.iter().all(|log| log.is_none()) {
            return Ok([None; 3]);
        }
        let sums = logs.map(|log| log.as_ref().map(|log| digest(&SHA256, log).as_ref().to_vec()));
        let [event_log, systemd_log, ima_log] = &sums;
        let of_row = |row: &Found| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
        let mut ids =
            self.first(KEPT, &[&node, event_log, systemd_log, ima_log], of_row)?.unwrap_or_default();
        for ((id, log), sum) in ids.iter_mut().zip(logs).zip(&sums) {
            let (None, Some(log)) = (&id, log) else { continue };
            let values: super::Values<'_> = &[&node, sum, &stored(log.len() as u64)?, log];
            *id = self.first(SQL, values, |row| row.get(0))?;
        }
        Ok(ids)
    }

    /// Deletes those of these logs of a node that no evidence came with.
    fn drop_logs(&self, node: &str, logs: impl Iterator<Item = i64>) -> Result<()> {
        const SQL: &str = "DELETE FROM logs WHERE id = $2 AND NOT EXISTS
            (SELECT FROM evidence WHERE node_id = $1
             AND (event_log_id = $2 OR systemd_log_id = $2 OR ima_log_id = $2))";
        for log in logs.collect::<BTreeSet<_>>() {
            self.change(SQL, &[&node, &log])?;
        }
        Ok(())
    }
}

fn head(row: &Found) -> Result<EvidenceHead> {
    Ok(EvidenceHead {
        id: row.u64(0)?,
        node_id: row.get(1)?,
        at: row.u64(2)?,
        purpose: row.get(3)?,
        outcome: row.get(4)?,
        code: row.get(5)?,
        message: row.get(6)?,
        twin: row.some_u64(7)?,
    })
}
