//! What TPMs registered.

use super::row::Found;
use super::{PgTx, bound, stored};
use crate::store::{RegistrationLine, RegistrationRow, Registrations, Result, SourceRow, Which};
use halfkey_protocol::NodeId;

/// What every node id matches: a row of nobody ends no list.
pub const NODE_ID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

impl Registrations for PgTx<'_> {
    fn registration(&self, node: NodeId) -> Result<Option<RegistrationRow>> {
        const SQL: &str =
            "SELECT ak_name, srk_name, label, source, challenge, registered_at, last_seen, kept,
                                  register, issued
                           FROM registrations WHERE node_id = $1";
        self.hold(node)?;
        self.first(SQL, &[&node.to_string()], |row| {
            Ok(RegistrationRow {
                node,
                ak_name: row.get(0)?,
                srk_name: row.get(1)?,
                label: row.get(2)?,
                source: row.get(3)?,
                challenge: row.get(4)?,
                registered_at: row.u64(5)?,
                last_seen: row.u64(6)?,
                kept: row.get(7)?,
                register: row.get(8)?,
                issued: row.u64(9)?,
            })
        })
    }

    fn registration_lines(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        // A page never reads what the nodes sent.
        let (condition, first, second) = condition(which);
        let sql = format!(
            "SELECT node_id, label, last_seen FROM registrations
             WHERE {condition} AND node_id ~ '{NODE_ID}' ORDER BY node_id LIMIT $3"
        );
        self.all(&sql, &[&first, &second, &bound(limit)], |row| {
            Ok(RegistrationLine { node_id: row.get(0)?, label: row.get(1)?, last_seen: row.u64(2)? })
        })
    }

    fn put_registration(&self, row: &RegistrationRow) -> Result<()> {
        const SQL: &str = "INSERT INTO registrations
                (node_id, ak_name, srk_name, label, source, challenge, registered_at, last_seen, kept, register,
                 issued)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (node_id) DO UPDATE SET
                ak_name = $2, srk_name = $3, label = $4, source = $5, challenge = $6, registered_at = $7,
                last_seen = $8, kept = $9, register = $10, issued = $11";
        self.hold(row.node)?;
        self.change_later(
            SQL,
            &[
                &row.node.to_string(),
                &row.ak_name,
                &row.srk_name,
                &row.label,
                &row.source,
                &row.challenge,
                &stored(row.registered_at)?,
                &stored(row.last_seen)?,
                &row.kept,
                &row.register,
                &stored(row.issued)?,
            ],
        )
    }

    fn keep_registration(&self, node: NodeId) -> Result<bool> {
        self.hold(node)?;
        let sql = "UPDATE registrations SET kept = TRUE WHERE node_id = $1";
        Ok(self.change(sql, &[&node.to_string()])? > 0)
    }

    fn delete_registrations(&self, before: u64) -> Result<Vec<String>> {
        const SQL: &str = "DELETE FROM registrations WHERE NOT kept AND last_seen < $1 RETURNING node_id";
        self.all(SQL, &[&bound(before)], |row| row.get(0))
    }

    fn unkept_registrations(&self) -> Result<u64> {
        // Who counts them makes room for one more.
        self.hold_registrations()?;
        let count = self.first("SELECT count(*) FROM registrations WHERE NOT kept", &[], |row| row.u64(0))?;
        Ok(count.unwrap_or(0))
    }

    fn unkept_by_source(&self) -> Result<Vec<SourceRow>> {
        const SQL: &str =
            "SELECT DISTINCT ON (source) source, count(*) OVER (PARTITION BY source), last_seen, id
                           FROM registrations WHERE NOT kept ORDER BY source, last_seen, id";
        self.hold_registrations()?;
        self.all(SQL, &[], |row: &Found| {
            Ok(SourceRow {
                source: row.get(0)?,
                count: row.u64(1)?,
                oldest: row.u64(2)?,
                oldest_row: row.get(3)?,
            })
        })
    }

    fn oldest_unkept(&self, source: &str, limit: u64) -> Result<Vec<(u64, i64)>> {
        const SQL: &str = "SELECT last_seen, id FROM registrations WHERE NOT kept AND source = $1
                           ORDER BY last_seen, id LIMIT $2";
        self.hold_registrations()?;
        self.all(SQL, &[&source, &bound(limit)], |row: &Found| Ok((row.u64(0)?, row.get(1)?)))
    }

    fn delete_unkept(&self, rows: &[i64]) -> Result<()> {
        self.change_later("DELETE FROM registrations WHERE NOT kept AND id = ANY($1)", &[&rows])
    }
}

/// A condition over `node_id` and `label`, and the values of its parameters 1 and 2.
pub fn condition(which: &Which) -> (&'static str, String, String) {
    match which {
        Which::After(id) => {
            ("node_id > $1 AND $2 = ''", id.map_or_else(String::new, |id| id.to_string()), String::new())
        }
        Which::Named(name) => {
            let prefix = which.id_prefix();
            // No id begins with this: an id has digits, a to f, and dashes.
            let prefix = prefix.unwrap_or_else(|| "z".to_owned());
            ("(label = $1 OR node_id >= $2 AND node_id < $2 || 'g')", name.clone(), prefix)
        }
        Which::One(id) => ("node_id = $1 AND $2 = ''", id.to_string(), String::new()),
    }
}
