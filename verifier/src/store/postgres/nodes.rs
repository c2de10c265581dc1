//! Nodes.

use super::registrations::{NODE_ID, condition};
use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{NodeLineRow, NodeRow, Nodes, Result, Which};
use halfkey_protocol::NodeId;

impl Nodes for PgTx<'_> {
    fn node(&self, node: NodeId) -> Result<Option<NodeRow>> {
        const SQL: &str =
            "SELECT label, revoked_because, group_name, group_number, held_by, held_because, tpm_firmware,
                    tpm_firmware_before, tpm_firmware_since, last_seen, last_outcome, last_code
             FROM nodes WHERE node_id = $1";
        self.hold(node)?;
        self.first(SQL, &[&node.to_string()], |row| {
            Ok(NodeRow {
                id: node,
                label: row.get(0)?,
                revoked_because: row.get(1)?,
                group_name: row.get(2)?,
                group_number: row.some_u64(3)?,
                held_by: row.get(4)?,
                held_because: row.get(5)?,
                tpm_firmware: row.get(6)?,
                tpm_firmware_before: row.get(7)?,
                tpm_firmware_since: row.some_u64(8)?,
                last_seen: row.u64(9)?,
                last_outcome: row.get(10)?,
                last_code: row.get(11)?,
            })
        })
    }

    fn put_node(&self, row: &NodeRow) -> Result<()> {
        const SQL: &str = "INSERT INTO nodes
                (node_id, label, revoked_because, group_name, group_number, held_by, held_because,
                 tpm_firmware, tpm_firmware_before, tpm_firmware_since, last_seen, last_outcome, last_code)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            ON CONFLICT (node_id) DO UPDATE SET
                label = $2, revoked_because = $3, group_name = $4, group_number = $5, held_by = $6,
                held_because = $7, tpm_firmware = $8, tpm_firmware_before = $9, tpm_firmware_since = $10,
                last_seen = $11, last_outcome = $12, last_code = $13";
        self.hold(row.id)?;
        self.change_later(
            SQL,
            &[
                &row.id.to_string(),
                &row.label,
                &row.revoked_because,
                &row.group_name,
                &stored_some(row.group_number)?,
                &row.held_by,
                &row.held_because,
                &row.tpm_firmware,
                &row.tpm_firmware_before,
                &stored_some(row.tpm_firmware_since)?,
                &stored(row.last_seen)?,
                &row.last_outcome,
                &row.last_code,
            ],
        )
    }

    fn set_seen(&self, node: NodeId, at: u64, outcome: &str, code: Option<&str>) -> Result<()> {
        const SQL: &str =
            "UPDATE nodes SET last_seen = $2, last_outcome = $3, last_code = $4 WHERE node_id = $1";
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string(), &stored(at)?, &outcome, &code])
    }

    fn node_lines(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLineRow>> {
        let (condition, first, second) = condition(which);
        let sql = format!(
            "SELECT node_id, label, revoked_because IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'open'),
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'current'),
                    EXISTS (SELECT 1 FROM boots b WHERE b.node_id = n.node_id AND b.decision IS NULL AND b.expires > $4),
                    last_seen, last_outcome, last_code, held_by IS NOT NULL,
                    EXISTS (SELECT 1 FROM enrollments e WHERE e.node_id = n.node_id AND e.state = 'current'
                                AND e.released_twin IS NOT NULL)
             FROM nodes n WHERE {condition} AND node_id ~ '{NODE_ID}' ORDER BY node_id LIMIT $3"
        );
        let line = |row: &Found| {
            let id: String = row.get(0)?;
            let Some(id) = NodeId::parse(&id) else { return Ok(None) };
            Ok(Some(NodeLineRow {
                id,
                label: row.get(1)?,
                revoked: row.get(2)?,
                open: row.get(3)?,
                current: row.get(4)?,
                pending: row.get(5)?,
                last_seen: row.u64(6)?,
                last_outcome: row.get(7)?,
                last_code: row.get(8)?,
                held: row.get(9)?,
                cloned: row.get(10)?,
            }))
        };
        let found = self.all(&sql, &[&first, &second, &bound(limit), &bound(now)], line)?;
        Ok(found.into_iter().flatten().collect())
    }
}
