//! Evidence. Logs have columns of their own: as bytes, not as base64.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{Evidence, EvidenceHead, EvidenceRow, QuoteRow, Result, StoreError};
use halfkey_protocol::NodeId;

const HEAD: &str = "id, node_id, at, purpose, outcome, code, message, twin";

impl Evidence for PgTx<'_> {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO evidence
                (node_id, at, purpose, outcome, code, message, twin, authentic, evidence, event_log, systemd_log,
                 ima_log, reset_count, restart_count, clock, expected_fence, findings, tpm_firmware)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
            RETURNING id";
        let EvidenceHead { node_id, at, purpose, outcome, code, message, twin, .. } = &row.head;
        let QuoteRow { reset, restart, clock } = row.quote;
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
                &row.event_log,
                &row.systemd_log,
                &row.ima_log,
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
            "SELECT {HEAD}, authentic, evidence, event_log, systemd_log, ima_log, reset_count, restart_count,
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
        let sql = format!("SELECT {HEAD} FROM evidence WHERE node_id = $1 ORDER BY id DESC LIMIT $2");
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
            AND id <> ALL ($5::TEXT::BIGINT[])";
        let except = except.iter().map(|id| bound(*id).to_string()).collect::<Vec<_>>().join(",");
        let except = format!("{{{except}}}");
        self.hold(node)?;
        self.change(SQL, &[&node.to_string(), &authentic, &outcome, &bound(keep), &except]).map(drop)
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        const SQL: &str =
            "UPDATE evidence SET event_log = NULL, systemd_log = NULL, ima_log = NULL WHERE id IN
                (SELECT id FROM (SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS total FROM
                     (SELECT id, coalesce(length(event_log), 0)::BIGINT + coalesce(length(systemd_log), 0)
                                 + coalesce(length(ima_log), 0) AS bytes
                      FROM evidence WHERE node_id = $1 AND authentic = $2 AND outcome = $3) AS logs) AS sums
                 WHERE bytes > 0 AND total > $4::BIGINT)";
        self.hold(node)?;
        self.change(SQL, &[&node.to_string(), &authentic, &outcome, &bound(bytes)]).map(drop)
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
