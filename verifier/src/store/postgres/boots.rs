//! Boots that wait for an operator.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{BootRow, Boots, Each, Result};
use halfkey_protocol::NodeId;

const FIELDS: &str = "ticket, evidence_id, code, message, approvable, findings, since, expires, decision,
                      decided_by, because, approved_until, used_at, approval_tag";

impl Boots for PgTx<'_> {
    fn boot(&self, node: NodeId, ticket: &str) -> Result<Option<BootRow>> {
        self.hold(node)?;
        let sql = format!("SELECT {FIELDS} FROM boots WHERE node_id = $1 AND ticket = $2");
        self.first(&sql, &[&node.to_string(), &ticket], |row| read(node, row))
    }

    fn undecided_boots(&self, node: NodeId) -> Result<Each<BootRow>> {
        self.hold(node)?;
        let sql = format!(
            "SELECT {FIELDS} FROM boots WHERE node_id = $1 AND decision IS NULL ORDER BY evidence_id DESC"
        );
        let rows = self.rows(&sql, &[&node.to_string()])?;
        Ok(rows.iter().map(|row| read(node, row)).collect())
    }

    fn put_boot(&self, row: &BootRow) -> Result<()> {
        const SQL: &str = "INSERT INTO boots
                (node_id, ticket, evidence_id, code, message, approvable, findings, since, expires, decision,
                 decided_by, because, approved_until, used_at, approval_tag)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
            ON CONFLICT (node_id, ticket) DO UPDATE SET
                evidence_id = $3, code = $4, message = $5, approvable = $6, findings = $7, since = $8,
                expires = $9, decision = $10, decided_by = $11, because = $12, approved_until = $13,
                used_at = $14, approval_tag = $15";
        self.hold(row.node)?;
        self.change_later(
            SQL,
            &[
                &row.node.to_string(),
                &row.ticket,
                &stored(row.evidence_id)?,
                &row.code,
                &row.message,
                &row.approvable,
                &row.findings,
                &stored(row.since)?,
                &stored(row.expires)?,
                &row.decision,
                &row.decided_by,
                &row.because,
                &stored_some(row.approved_until)?,
                &stored_some(row.used_at)?,
                &row.approval_tag,
            ],
        )
    }

    fn delete_boot(&self, node: NodeId, ticket: &str) -> Result<()> {
        self.hold(node)?;
        let sql = "DELETE FROM boots WHERE node_id = $1 AND ticket = $2";
        self.change_later(sql, &[&node.to_string(), &ticket])
    }

    fn delete_boots(&self, node: NodeId) -> Result<()> {
        self.hold(node)?;
        self.change_later("DELETE FROM boots WHERE node_id = $1", &[&node.to_string()])
    }

    fn trim_boots(&self, node: NodeId, keep: u64) -> Result<()> {
        const SQL: &str = "DELETE FROM boots WHERE node_id = $1 AND evidence_id <=
            (SELECT evidence_id FROM boots WHERE node_id = $1 ORDER BY evidence_id DESC LIMIT 1 OFFSET $2)";
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string(), &bound(keep)])
    }

    fn delete_expired_boots(&self, now: u64) -> Result<()> {
        self.change_later("DELETE FROM boots WHERE expires <= $1", &[&bound(now)])
    }

    fn evidence_of_boots(&self, node: NodeId) -> Result<Vec<u64>> {
        self.hold(node)?;
        let sql = "SELECT evidence_id FROM boots WHERE node_id = $1";
        self.all(sql, &[&node.to_string()], |row| row.u64(0))
    }
}

fn read(node: NodeId, row: &Found) -> Result<BootRow> {
    Ok(BootRow {
        node,
        ticket: row.get(0)?,
        evidence_id: row.u64(1)?,
        code: row.get(2)?,
        message: row.get(3)?,
        approvable: row.get(4)?,
        findings: row.get(5)?,
        since: row.u64(6)?,
        expires: row.u64(7)?,
        decision: row.get(8)?,
        decided_by: row.get(9)?,
        because: row.get(10)?,
        approved_until: row.some_u64(11)?,
        used_at: row.some_u64(12)?,
        approval_tag: row.get(13)?,
    })
}
