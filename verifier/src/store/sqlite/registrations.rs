//! What TPMs registered.

use super::{SqliteTx, as_u64, id_text, node_id_glob, number, shown, shown_u64, text, u64_at};
use crate::store::{RegistrationLine, RegistrationRow, Registrations, Result, SourceRow, Which};
use halfkey_protocol::NodeId;
use rusqlite::params;

impl Registrations for SqliteTx<'_> {
    fn registration(&self, node: NodeId) -> Result<Option<RegistrationRow>> {
        const SQL: &str =
            "SELECT ak_name, srk_name, label, source, challenge, registered_at, last_seen, kept,
                                  register, issued
                           FROM registrations WHERE node_id = ?1";
        self.first(SQL, [id_text(node)], |row| {
            Ok(RegistrationRow {
                node,
                ak_name: row.get(0)?,
                srk_name: row.get(1)?,
                label: text(row, 2)?,
                source: text(row, 3)?,
                challenge: row.get(4)?,
                registered_at: u64_at(row, 5)?,
                last_seen: u64_at(row, 6)?,
                kept: row.get(7)?,
                register: row.get(8)?,
                issued: u64_at(row, 9)?,
            })
        })
    }

    fn registration_lines(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        // A page never reads what the nodes sent.
        let (condition, first, second) = condition(which);
        let sql = format!(
            "SELECT node_id, label, last_seen FROM registrations
             WHERE {condition} AND node_id GLOB '{}' ORDER BY node_id LIMIT ?3",
            node_id_glob()
        );
        self.all(&sql, params![first, second, number(limit)], |row| {
            Ok(RegistrationLine {
                node_id: shown(row, 0)?.unwrap_or_default(),
                label: text(row, 1)?,
                last_seen: shown_u64(row, 2)?,
            })
        })
    }

    fn put_registration(&self, row: &RegistrationRow) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO registrations
                (node_id, ak_name, srk_name, label, source, challenge, registered_at, last_seen, kept, register,
                 issued)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let values = params![
            id_text(row.node),
            row.ak_name,
            row.srk_name,
            row.label,
            row.source,
            row.challenge,
            number(row.registered_at),
            number(row.last_seen),
            row.kept,
            row.register,
            number(row.issued),
        ];
        self.change(SQL, values).map(drop)
    }

    fn keep_registration(&self, node: NodeId) -> Result<bool> {
        Ok(self.change("UPDATE registrations SET kept = 1 WHERE node_id = ?1", [id_text(node)])? > 0)
    }

    fn delete_registrations(&self, before: u64) -> Result<Vec<String>> {
        const SQL: &str =
            "DELETE FROM registrations WHERE kept = 0 AND (typeof(last_seen) <> 'integer' OR last_seen < ?1)
                           RETURNING node_id";
        self.all(SQL, [number(before)], |row| text(row, 0))
    }

    fn unkept_registrations(&self) -> Result<u64> {
        let count = self
            .first("SELECT count(*) FROM registrations WHERE kept = 0", [], |row| row.get(0).map(as_u64))?;
        Ok(count.unwrap_or(0))
    }

    fn unkept_by_source(&self) -> Result<Vec<SourceRow>> {
        // A bare column beside min() is of the row that has the minimum.
        const SQL: &str = "SELECT source, count(*), min(last_seen), rowid FROM registrations WHERE kept = 0 GROUP BY source";
        self.all(SQL, [], |row| {
            Ok(SourceRow {
                source: text(row, 0)?,
                count: u64_at(row, 1)?,
                oldest: shown_u64(row, 2)?,
                oldest_row: row.get(3)?,
            })
        })
    }

    fn oldest_unkept(&self, source: &str, limit: u64) -> Result<Vec<(u64, i64)>> {
        const SQL: &str = "SELECT last_seen, rowid FROM registrations WHERE kept = 0 AND source = ?1
                           ORDER BY last_seen, rowid LIMIT ?2";
        self.all(SQL, params![source, number(limit)], |row| Ok((shown_u64(row, 0)?, row.get(1)?)))
    }

    fn delete_unkept(&self, rows: &[i64]) -> Result<()> {
        let one = |row: &i64| self.change("DELETE FROM registrations WHERE kept = 0 AND rowid = ?1", [*row]);
        rows.iter().try_for_each(|row| one(row).map(drop))
    }
}

/// A condition over `node_id` and `label`, and the values of its parameters 1 and 2.
pub fn condition(which: &Which) -> (&'static str, String, String) {
    match which {
        Which::After(id) => {
            ("node_id > ?1 AND ?2 = ''", id.map_or_else(String::new, |id| id.to_string()), String::new())
        }
        Which::Named(name) => {
            let prefix = which.id_prefix();
            // No id begins with this: an id has digits, a to f, and dashes.
            let prefix = prefix.unwrap_or_else(|| "z".to_owned());
            ("(label = ?1 OR node_id >= ?2 AND node_id < ?2 || 'g')", name.clone(), prefix)
        }
        Which::One(id) => ("node_id = ?1 AND ?2 = ''", id.to_string(), String::new()),
    }
}
