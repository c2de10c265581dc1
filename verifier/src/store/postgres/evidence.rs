//! Evidence. A log is kept as bytes, and once for all evidence of a node that came with the same.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, QuoteRow, Result};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_protocol::NodeId;

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for PgTx<'_> {
    fn expect_evidence(&self, node: NodeId) -> Result<()> {
        self.hold(node)?;
        self.expect_number();
        self.logs_of(&node.to_string()).map(drop)
    }

    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log_id,
                 systemd_log_id, ima_log_id, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware, id)
            OVERRIDING SYSTEM VALUE
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $10),
                    (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $11),
                    (SELECT id FROM logs WHERE node_id = $1 AND sha256 = $12), $13, $14, $15, $16, $17, $18, $19)";
        let EvidenceHead { node_id, at, purpose, outcome, code, message, twin, .. } = &row.head;
        let QuoteRow { reset, restart, clock } = row.quote;
        let logs = [&row.event_log, &row.systemd_log, &row.ima_log];
        let sums = logs.map(|log| log.as_ref().map(|log| digest(&SHA256, log).as_ref().to_vec()));
        if sums.iter().any(Option::is_some) {
            let mut kept = self.logs_of(node_id)?;
            for (log, sum) in logs.into_iter().zip(&sums) {
                if let (Some(log), Some(sum)) = (log, sum)
                    && !kept.iter().any(|(kept, _)| kept == sum)
                {
                    self.keep_log(node_id, log, sum)?;
                    kept.push((sum.clone(), log.len() as u64));
                }
            }
            self.has_logs(node_id, kept.iter().fold(0, |all, (_, bytes)| all.saturating_add(*bytes)));
        }
        let [event_log, systemd_log, ima_log] = &sums;
        let id = self.number()?;
        self.change_later(
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
                &stored(id)?,
            ],
        )?;
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
        // Nor need the server be asked, nearly always.
        if self.logs_at_most(&node.to_string()).is_some_and(|all| all <= bytes) {
            return Ok(());
        }
        self.change_later(SQL, &[&node.to_string(), &authentic, &outcome, &bound(bytes)])
    }
}

impl PgTx<'_> {
    /// SHA-256 and length of each log that is kept of a node.
    fn logs_of(&self, node: &str) -> Result<Vec<(Vec<u8>, u64)>> {
        const SQL: &str = "SELECT sha256, bytes FROM logs WHERE node_id = $1";
        self.all(SQL, &[&node], |row| Ok((row.get(0)?, row.u64(1)?)))
    }

    /// Keeps a log of a node once, before the evidence that came with it.
    fn keep_log(&self, node: &str, log: &[u8], sum: &[u8]) -> Result<()> {
        const SQL: &str = "INSERT INTO logs (node_id, sha256, bytes, log) VALUES ($1, $2, $3, $4)
                           ON CONFLICT (node_id, sha256) DO UPDATE SET bytes = excluded.bytes";
        self.change_later(SQL, &[&node, &sum, &stored(log.len() as u64)?, &log])
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
