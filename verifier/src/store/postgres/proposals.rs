//! What nodes proposed.

use super::row::Found;
use super::{PgTx, bound, stored, stored_some};
use crate::store::{ProposalChange, ProposalHead, ProposalRow, Proposals, Result, StoreError};
use halfkey_protocol::NodeId;

const FIELDS: &str =
    "id, node_id, sha256, at, state, message, from_evidence, base_boot, by_trust, trusted_scope,
                      trusted_since, proposal, tag, made";

impl Proposals for PgTx<'_> {
    fn proposal(&self, id: u64) -> Result<Option<ProposalRow>> {
        let sql = format!("SELECT {FIELDS} FROM proposals WHERE id = $1");
        let found = self.first(&sql, &[&bound(id)], read)?;
        let node = found.as_ref().and_then(|row| NodeId::parse(&row.node_id));
        match node {
            // It may have been changed before its node was held.
            Some(node) if self.hold(node)? => self.first(&sql, &[&bound(id)], read),
            Some(_) | None => Ok(found),
        }
    }

    fn proposal_with(&self, node: NodeId, sha256: &[u8; 32]) -> Result<Option<ProposalRow>> {
        let sql = format!("SELECT {FIELDS} FROM proposals WHERE node_id = $1 AND sha256 = $2");
        self.hold(node)?;
        self.first(&sql, &[&node.to_string(), &sha256.as_slice()], read)
    }

    fn proposal_numbers(
        &self,
        node: Option<NodeId>,
        states: &[&str],
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u64>> {
        let of_node = if node.is_some() { "node_id = $1" } else { "$1::TEXT IS NULL" };
        // Words of this program's own.
        let states = states.iter().map(|state| format!("'{state}'")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT id FROM proposals WHERE {of_node} AND state IN ({states}) AND id > 0 AND id < $2
             ORDER BY id DESC LIMIT $3"
        );
        if let Some(node) = node {
            self.hold(node)?;
        }
        let node = node.map(|node| node.to_string());
        self.all(&sql, &[&node, &bound(before.unwrap_or(u64::MAX)), &bound(limit)], |row| row.u64(0))
    }

    fn proposal_heads(&self, node: NodeId) -> Result<Vec<ProposalHead>> {
        const SQL: &str = "SELECT id, at, state, from_evidence, by_trust
                           FROM proposals WHERE node_id = $1 ORDER BY at, id";
        self.hold(node)?;
        self.all(SQL, &[&node.to_string()], |row| {
            Ok(ProposalHead {
                id: row.u64(0)?,
                at: row.u64(1)?,
                state: row.get(2)?,
                from_evidence: row.u64(3)?,
                by_trust: row.get(4)?,
            })
        })
    }

    fn put_proposal(&self, row: &ProposalRow) -> Result<u64> {
        // Numbers that are not used are none of a conflict: those of one node grow, and that is all that is needed of them.
        const SQL: &str = "INSERT INTO proposals
                (node_id, sha256, at, state, message, from_evidence, base_boot, by_trust, trusted_scope,
                 trusted_since, proposal, tag, made)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            ON CONFLICT (node_id, sha256) DO UPDATE SET
                at = $3, state = $4, message = $5, from_evidence = $6, base_boot = $7, by_trust = $8,
                trusted_scope = $9, trusted_since = $10, proposal = $11, tag = $12, made = $13
            RETURNING id";
        let id = self.first(
            SQL,
            &[
                &row.node_id,
                &row.sha256.as_slice(),
                &stored(row.at)?,
                &row.state,
                &row.message,
                &stored(row.from_evidence)?,
                &row.base_boot,
                &row.by_trust,
                &row.trusted_scope,
                &stored_some(row.trusted_since)?,
                &row.content,
                &row.tag,
                &row.made,
            ],
            |row| row.u64(0),
        )?;
        id.ok_or_else(|| StoreError::Unavailable("an insert that gave no row".to_owned()))
    }

    fn set_proposal(&self, id: u64, change: &ProposalChange<'_>) -> Result<()> {
        const SQL: &str = "UPDATE proposals SET state = $2, message = coalesce($3, message), by_trust = $4,
                               tag = $5
                           WHERE id = $1";
        let ProposalChange { state, message, by_trust, tag } = change;
        self.change_later(SQL, &[&bound(id), state, message, by_trust, tag])
    }

    fn delete_proposal(&self, id: u64) -> Result<()> {
        self.change_later("DELETE FROM proposals WHERE id = $1", &[&bound(id)])
    }

    fn delete_trust(&self, node: NodeId) -> Result<()> {
        const SQL: &str =
            "UPDATE proposals SET by_trust = FALSE, tag = NULL, trusted_scope = NULL, trusted_since = NULL
             WHERE node_id = $1";
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string()])?;
        self.change_later("DELETE FROM trust_given WHERE node_id = $1", &[&node.to_string()])
    }

    fn times_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<u64> {
        const SQL: &str = "SELECT greatest(times, 0) FROM trust_given
            WHERE node_id = $1 AND scope = $2 AND since = $3";
        self.hold(node)?;
        let times = self.first(SQL, &[&node.to_string(), &scope, &bound(since)], |row| row.u64(0))?;
        Ok(times.unwrap_or(0))
    }

    fn add_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<()> {
        const SQL: &str =
            "INSERT INTO trust_given AS given (node_id, scope, since, times) VALUES ($1, $2, $3, 1)
            ON CONFLICT (node_id, scope, since) DO UPDATE
            SET times = least(greatest(given.times, 0), 1000000) + 1";
        self.hold(node)?;
        self.change_later(SQL, &[&node.to_string(), &scope, &stored(since)?])
    }
}

fn read(row: &Found) -> Result<ProposalRow> {
    Ok(ProposalRow {
        id: row.u64(0)?,
        node_id: row.get(1)?,
        // It finds a proposal. What was found is its content, which is compared with what was looked for.
        sha256: row.sum(2).unwrap_or_default(),
        at: row.u64(3)?,
        state: row.get(4)?,
        message: row.get(5)?,
        from_evidence: row.u64(6)?,
        base_boot: row.get(7)?,
        by_trust: row.get(8)?,
        trusted_scope: row.get(9)?,
        trusted_since: row.some_u64(10)?,
        content: row.get(11)?,
        tag: row.get(12)?,
        made: row.get(13)?,
    })
}
