//! Boots that wait for an operator.

use super::{SqliteTx, broken, id_text, number, shown_u64, some_u64_at, u64_at};
use crate::store::{BootRow, Boots, Each, Result};
use halfkey_protocol::NodeId;
use rusqlite::{Row, params};

const FIELDS: &str = "ticket, evidence_id, code, message, approvable, findings, since, expires, decision,
                      decided_by, because, approved_until, used_at, approval_tag";

impl Boots for SqliteTx<'_> {
    fn boot(&self, node: NodeId, ticket: &str) -> Result<Option<BootRow>> {
        let sql = format!("SELECT {FIELDS} FROM boots WHERE node_id = ?1 AND ticket = ?2");
        self.first(&sql, [&id_text(node), ticket], |row| read(node, row))
    }

    fn undecided_boots(&self, node: NodeId) -> Result<Each<BootRow>> {
        let sql = format!(
            "SELECT {FIELDS} FROM boots WHERE node_id = ?1 AND decision IS NULL ORDER BY evidence_id DESC"
        );
        self.each(&sql, [id_text(node)], |row| read(node, row).map_err(broken))
    }

    fn put_boot(&self, row: &BootRow) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO boots
                (node_id, ticket, evidence_id, code, message, approvable, findings, since, expires, decision,
                 decided_by, because, approved_until, used_at, approval_tag)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
        let values = params![
            id_text(row.node),
            row.ticket,
            number(row.evidence_id),
            row.code,
            row.message,
            row.approvable,
            row.findings,
            number(row.since),
            number(row.expires),
            row.decision,
            row.decided_by,
            row.because,
            row.approved_until.map(number),
            row.used_at.map(number),
            row.approval_tag,
        ];
        self.change(SQL, values).map(drop)
    }

    fn delete_boot(&self, node: NodeId, ticket: &str) -> Result<()> {
        self.change("DELETE FROM boots WHERE node_id = ?1 AND ticket = ?2", [&id_text(node), ticket])
            .map(drop)
    }

    fn delete_boots(&self, node: NodeId) -> Result<()> {
        self.change("DELETE FROM boots WHERE node_id = ?1", [id_text(node)]).map(drop)
    }

    fn trim_boots(&self, node: NodeId, keep: u64) -> Result<()> {
        const SQL: &str = "DELETE FROM boots WHERE node_id = ?1 AND evidence_id <=
            (SELECT evidence_id FROM boots WHERE node_id = ?1 ORDER BY evidence_id DESC LIMIT 1 OFFSET ?2)";
        self.change(SQL, params![id_text(node), number(keep)]).map(drop)
    }

    fn delete_expired_boots(&self, now: u64) -> Result<()> {
        self.change("DELETE FROM boots WHERE expires <= ?1", [number(now)]).map(drop)
    }

    fn evidence_of_boots(&self, node: NodeId) -> Result<Vec<u64>> {
        self.all("SELECT evidence_id FROM boots WHERE node_id = ?1", [id_text(node)], |row| shown_u64(row, 0))
    }
}

fn read(node: NodeId, row: &Row<'_>) -> rusqlite::Result<BootRow> {
    Ok(BootRow {
        node,
        ticket: row.get(0)?,
        evidence_id: u64_at(row, 1)?,
        code: row.get(2)?,
        message: row.get(3)?,
        approvable: row.get(4)?,
        findings: row.get(5)?,
        since: u64_at(row, 6)?,
        expires: u64_at(row, 7)?,
        decision: row.get(8)?,
        decided_by: row.get(9)?,
        because: row.get(10)?,
        approved_until: some_u64_at(row, 11)?,
        used_at: some_u64_at(row, 12)?,
        approval_tag: row.get(13)?,
    })
}
