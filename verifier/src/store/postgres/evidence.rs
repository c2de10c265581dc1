//! Evidence. A log is kept as bytes, and once for all evidence of a node that came with the same.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, LOG_COLUMNS, QuoteRow, Result, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_protocol::NodeId;

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for PgTx<'_> {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        // The number of a log that the node has come with before is looked up on the way.
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log_id,
                 systemd_log_id, ima_log_id, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $10),
                    (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $11),
                    (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $12), $13, $14, $15, $16, $17, $18)
            RETURNING id, event_log_id, systemd_log_id, ima_log_id";
        let EvidenceHead { node_id, at, purpose, outcome, code, message, twin, .. } = &row.head;
        let QuoteRow { reset, restart, clock } = row.quote;
        let logs = [&row.event_log, &row.systemd_log, &row.ima_log];
        let sums = logs.map(|log| log.as_ref().map(|log| digest(&SHA256, log).as_ref().to_vec()));
        let [event_log, systemd_log, ima_log] = &sums;
        let added = self.first(
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
                event_log,
                systemd_log,
                ima_log,
                &reset.map(i64::from),
                &restart.map(i64::from),
                &clock.map(u64::cast_signed),
                &row.expected_fence,
                &row.findings,
                &row.tpm_firmware,
            ],
            |row| Ok((row.u64(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])),
        )?;
        let (id, kept): (u64, [Option<i64>; 3]) =
            added.ok_or_else(|| StoreError::Unavailable("an insert that gave no row".to_owned()))?;
        for (place, (log, sum)) in logs.into_iter().zip(&sums).enumerate() {
            if let (Some(log), Some(sum), None) = (log, sum, kept[place]) {
                self.keep_log(node_id, id, LOG_COLUMNS[place], log, sum)?;
            }
        }
        Ok(id)
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
        // What a part of a statement has changed, the others don't see.
        const SQL: &str = "WITH freed AS
                (DELETE FROM evidence WHERE node_id = $1 AND authentic = $2 AND outcome = $3
                 AND id <= (SELECT id FROM evidence WHERE node_id = $1 AND authentic = $2 AND outcome = $3
                            ORDER BY id DESC LIMIT 1 OFFSET $4)
                 AND id <> ALL ($5::TEXT::BIGINT[])
                 RETURNING id, event_log_id, systemd_log_id, ima_log_id)
            DELETE FROM logs WHERE id IN
                (SELECT event_log_id FROM freed UNION SELECT systemd_log_id FROM freed UNION SELECT ima_log_id FROM freed)
            AND NOT EXISTS
                (SELECT FROM evidence WHERE node_id = $1 AND evidence.id NOT IN (SELECT id FROM freed)
                 AND (event_log_id = logs.id OR systemd_log_id = logs.id OR ima_log_id = logs.id))";
        let except = except.iter().map(|id| bound(*id).to_string()).collect::<Vec<_>>().join(",");
        let except = format!("{{{except}}}");
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string(), &authentic, &outcome, &bound(keep), &except])
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        // Nearly always they are fewer than any bound, and the node's other evidence is not looked at.
        const SQL: &str = "WITH kind AS
                (SELECT id, event_log_id, systemd_log_id, ima_log_id FROM evidence
                 WHERE node_id = $1 AND authentic = $2 AND outcome = $3
                   AND (SELECT sum(bytes) FROM logs WHERE node_id = $1) > $4::BIGINT),
            used AS
                (SELECT event_log_id AS kept, id FROM kind UNION ALL SELECT systemd_log_id, id FROM kind
                 UNION ALL SELECT ima_log_id, id FROM kind),
            newest AS (SELECT kept, max(id) AS at FROM used WHERE kept IS NOT NULL GROUP BY kept),
            old AS
                (SELECT kept FROM
                    (SELECT kept, sum(bytes) OVER (ORDER BY at DESC, kept DESC) AS total
                     FROM newest JOIN logs ON logs.id = kept) AS sums
                 WHERE total > $4::BIGINT),
            without AS
                (UPDATE evidence SET
                     event_log_id = (SELECT event_log_id WHERE event_log_id NOT IN (SELECT kept FROM old)),
                     systemd_log_id = (SELECT systemd_log_id WHERE systemd_log_id NOT IN (SELECT kept FROM old)),
                     ima_log_id = (SELECT ima_log_id WHERE ima_log_id NOT IN (SELECT kept FROM old))
                 WHERE EXISTS (SELECT FROM old) AND id IN (SELECT id FROM used JOIN old ON used.kept = old.kept))
            DELETE FROM logs WHERE id IN (SELECT kept FROM old) AND NOT EXISTS
                (SELECT FROM evidence WHERE node_id = $1 AND NOT (authentic = $2 AND outcome = $3)
                 AND (event_log_id = logs.id OR systemd_log_id = logs.id OR ima_log_id = logs.id))";
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string(), &authentic, &outcome, &bound(bytes)])
    }
}

impl PgTx<'_> {
    /// Keeps a log of a node once, for this evidence.
    fn keep_log(&self, node: &str, evidence: u64, column: &str, log: &[u8], sum: &[u8]) -> Result<()> {
        const SQL: &str = "INSERT INTO logs (node_id, sha256, bytes, log) VALUES ($1, $2, $3, $4)
                           ON CONFLICT (node_id, sha256) DO UPDATE SET bytes = excluded.bytes RETURNING id";
        let kept: Option<i64> =
            self.first(SQL, &[&node, &sum, &stored(log.len() as u64)?, &log], |row| row.get(0))?;
        self.change_later(
            &format!("UPDATE evidence SET {column} = $2 WHERE id = $1"),
            &[&bound(evidence), &kept],
        )
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
