//! What nodes proposed.

use super::{SqliteTx, as_u64, broken, id_text, number, shown_u64, some_u64_at, text, u64_at};
use crate::store::{ProposalChange, ProposalHead, ProposalRow, Proposals, Result};
use halfkey_protocol::NodeId;
use rusqlite::types::ValueRef;
use rusqlite::{Row, params};

const FIELDS: &str =
    "id, node_id, sha256, at, state, message, from_evidence, base_boot, by_trust, trusted_scope,
                      trusted_since, proposal, tag, made";

impl Proposals for SqliteTx<'_> {
    fn proposal(&self, id: u64) -> Result<Option<ProposalRow>> {
        self.first(&format!("SELECT {FIELDS} FROM proposals WHERE id = ?1"), [number(id)], read)
    }

    fn proposal_with(&self, node: NodeId, sha256: &[u8; 32]) -> Result<Option<ProposalRow>> {
        let sql = format!("SELECT {FIELDS} FROM proposals WHERE node_id = ?1 AND sha256 = ?2");
        self.first(&sql, params![id_text(node), sha256], read)
    }

    fn proposal_numbers(
        &self,
        node: Option<NodeId>,
        states: &[&str],
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u64>> {
        let of_node = if node.is_some() { "node_id = ?1" } else { "?1 IS NULL" };
        // Words of this program's own.
        let states = states.iter().map(|state| format!("'{state}'")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT id FROM proposals WHERE {of_node} AND state IN ({states}) AND id > 0 AND id < ?2
             ORDER BY id DESC LIMIT ?3"
        );
        let values = params![node.map(id_text), number(before.unwrap_or(u64::MAX)), number(limit)];
        self.all(&sql, values, |row| u64_at(row, 0))
    }

    fn proposal_heads(&self, node: NodeId) -> Result<Vec<ProposalHead>> {
        const SQL: &str = "SELECT id, at, state, from_evidence, by_trust
                           FROM proposals WHERE node_id = ?1 ORDER BY at, id";
        self.all(SQL, [id_text(node)], |row| {
            Ok(ProposalHead {
                id: u64_at(row, 0)?,
                at: shown_u64(row, 1)?,
                state: text(row, 2)?,
                from_evidence: shown_u64(row, 3)?,
                // Whether trust is there is read with its tag. What says neither may be superseded, and is not forgotten.
                by_trust: row.get_ref(4)? != ValueRef::Integer(0),
            })
        })
    }

    fn put_proposal(&self, row: &ProposalRow) -> Result<u64> {
        const SQL: &str = "INSERT INTO proposals
                (node_id, sha256, at, state, message, from_evidence, base_boot, by_trust, trusted_scope,
                 trusted_since, proposal, tag, made)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
            ON CONFLICT (node_id, sha256) DO UPDATE SET
                at = ?3, state = ?4, message = ?5, from_evidence = ?6, base_boot = ?7, by_trust = ?8,
                trusted_scope = ?9, trusted_since = ?10, proposal = ?11, tag = ?12, made = ?13
            RETURNING id";
        let values = params![
            row.node_id,
            row.sha256,
            number(row.at),
            row.state,
            row.message,
            number(row.from_evidence),
            row.base_boot,
            row.by_trust,
            row.trusted_scope,
            row.trusted_since.map(number),
            row.content,
            row.tag,
            row.made,
        ];
        let mut put = self.0.prepare_cached(SQL).map_err(broken)?;
        put.query_row(values, |row| row.get(0)).map(as_u64).map_err(broken)
    }

    fn set_proposal(&self, id: u64, change: &ProposalChange<'_>) -> Result<()> {
        const SQL: &str = "UPDATE proposals SET state = ?2, message = coalesce(?3, message), by_trust = ?4,
                               tag = ?5
                           WHERE id = ?1";
        let ProposalChange { state, message, by_trust, tag } = change;
        self.change(SQL, params![number(id), state, message, by_trust, tag]).map(drop)
    }

    fn delete_proposal(&self, id: u64) -> Result<()> {
        self.change("DELETE FROM proposals WHERE id = ?1", [number(id)]).map(drop)
    }

    fn delete_trust(&self, node: NodeId) -> Result<()> {
        const SQL: &str =
            "UPDATE proposals SET by_trust = 0, tag = NULL, trusted_scope = NULL, trusted_since = NULL
             WHERE node_id = ?1";
        self.change(SQL, [id_text(node)])?;
        self.change("DELETE FROM trust_given WHERE node_id = ?1", [id_text(node)]).map(drop)
    }

    fn times_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<u64> {
        const SQL: &str = "SELECT max(times, 0) FROM trust_given
            WHERE node_id = ?1 AND scope = ?2 AND since = ?3";
        Ok(self.first(SQL, params![id_text(node), scope, number(since)], |row| u64_at(row, 0))?.unwrap_or(0))
    }

    fn add_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<()> {
        const SQL: &str = "INSERT INTO trust_given (node_id, scope, since, times) VALUES (?1, ?2, ?3, 1)
            ON CONFLICT DO UPDATE SET times = min(max(times, 0), 1000000) + 1";
        self.change(SQL, params![id_text(node), scope, number(since)]).map(drop)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ProposalRow> {
    Ok(ProposalRow {
        id: u64_at(row, 0)?,
        node_id: row.get(1)?,
        // It finds a proposal. What was found is its content, which is compared with what was looked for.
        sha256: row.get_ref(2)?.as_blob().ok().and_then(|sum| sum.try_into().ok()).unwrap_or_default(),
        at: u64_at(row, 3)?,
        state: row.get(4)?,
        message: row.get(5)?,
        from_evidence: u64_at(row, 6)?,
        base_boot: row.get(7)?,
        by_trust: row.get(8)?,
        trusted_scope: row.get(9)?,
        trusted_since: some_u64_at(row, 10)?,
        content: row.get(11)?,
        tag: row.get(12)?,
        made: row.get(13)?,
    })
}
