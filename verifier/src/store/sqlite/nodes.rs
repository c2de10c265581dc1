//! Nodes.

use super::registrations::condition;
use super::{SqliteTx, id_text, node_id_glob, number, shown, shown_u64, some_u64_at, text, u64_at};
use crate::store::{NodeLineRow, NodeRow, Nodes, Result, Which};
use halfkey_protocol::NodeId;
use rusqlite::params;

impl Nodes for SqliteTx<'_> {
    fn node(&self, node: NodeId) -> Result<Option<NodeRow>> {
        const SQL: &str =
            "SELECT label, revoked_because, group_name, group_number, held_by, held_because, tpm_firmware,
                    tpm_firmware_before, tpm_firmware_since, last_seen, last_outcome, last_code
             FROM nodes WHERE node_id = ?1";
        self.first(SQL, [id_text(node)], |row| {
            Ok(NodeRow {
                id: node,
                label: text(row, 0)?,
                revoked_because: shown(row, 1)?,
                group_name: shown(row, 2)?,
                group_number: some_u64_at(row, 3)?,
                held_by: shown(row, 4)?,
                held_because: shown(row, 5)?,
                tpm_firmware: shown(row, 6)?,
                tpm_firmware_before: shown(row, 7)?,
                tpm_firmware_since: some_u64_at(row, 8)?,
                last_seen: u64_at(row, 9)?,
                last_outcome: shown(row, 10)?,
                last_code: shown(row, 11)?,
            })
        })
    }

    fn put_node(&self, row: &NodeRow) -> Result<()> {
        const SQL: &str = "INSERT INTO nodes
                (node_id, label, revoked_because, group_name, group_number, held_by, held_because,
                 tpm_firmware, tpm_firmware_before, tpm_firmware_since, last_seen, last_outcome, last_code)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
            ON CONFLICT (node_id) DO UPDATE SET
                label = ?2, revoked_because = ?3, group_name = ?4, group_number = ?5, held_by = ?6,
                held_because = ?7, tpm_firmware = ?8, tpm_firmware_before = ?9, tpm_firmware_since = ?10,
                last_seen = ?11, last_outcome = ?12, last_code = ?13";
        let values = params![
            id_text(row.id),
            row.label,
            row.revoked_because,
            row.group_name,
            row.group_number.map(number),
            row.held_by,
            row.held_because,
            row.tpm_firmware,
            row.tpm_firmware_before,
            row.tpm_firmware_since.map(number),
            number(row.last_seen),
            row.last_outcome,
            row.last_code,
        ];
        self.change(SQL, values).map(drop)
    }

    fn set_seen(&self, node: NodeId, at: u64, outcome: &str, code: Option<&str>) -> Result<()> {
        const SQL: &str =
            "UPDATE nodes SET last_seen = ?2, last_outcome = ?3, last_code = ?4 WHERE node_id = ?1";
        self.change(SQL, params![id_text(node), number(at), outcome, code]).map(drop)
    }

    fn node_lines(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLineRow>> {
        let (condition, first, second) = condition(which);
        let sql = format!(
            "SELECT node_id, label, revoked_because IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'open'),
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'current'),
                    EXISTS (SELECT 1 FROM boots b WHERE b.node_id = n.node_id AND b.decision IS NULL AND b.expires > ?4),
                    last_seen, last_outcome, last_code, held_by IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e INDEXED BY enrollments_cloned
                            WHERE e.node_id = n.node_id AND e.state = 'current' AND e.released_twin IS NOT NULL)
             FROM nodes n WHERE {condition} AND node_id GLOB '{}' ORDER BY node_id LIMIT ?3",
            node_id_glob()
        );
        let found = self.all(&sql, params![first, second, number(limit), number(now)], |row| {
            let line = |id| -> rusqlite::Result<NodeLineRow> {
                Ok(NodeLineRow {
                    id,
                    label: text(row, 1)?,
                    revoked: row.get(2)?,
                    open: row.get(3)?,
                    current: row.get(4)?,
                    pending: row.get(5)?,
                    last_seen: shown_u64(row, 6)?,
                    last_outcome: shown(row, 7)?,
                    last_code: shown(row, 8)?,
                    held: row.get(9)?,
                    cloned: row.get(10)?,
                })
            };
            NodeId::parse(&shown(row, 0)?.unwrap_or_default()).map(line).transpose()
        });
        Ok(found?.into_iter().flatten().collect())
    }
}
