//! Enrollments.

use super::{SqliteTx, clock_at, id_text, number, some_u64_at, u64_at};
use crate::store::{EnrollmentRow, EnrollmentState, Enrollments, QuoteRow, ReleasedRow, Result, StoreError};
use halfkey_protocol::NodeId;
use rusqlite::{Row, params};

const SELECT: &str = "SELECT enrollment_id, number, tenant_key, registration, bank, c_v_id, c_v_secret, c_u,
            enrolled_at, enrolled_by, fetched_by, reset_count, restart_count, clock,
            released_evidence, released_reset, released_restart, released_fence, released_boot,
            released_proposal, released_twin, released_tag, released_base
     FROM enrollments";

/// The state stands in the statement, as it does in the indexes of open and current ones: for a state that is bound there is no index.
fn of_node_in(statement: &str, state: EnrollmentState) -> String {
    format!("{statement} WHERE node_id = ?1 AND state = '{}'", state.as_str())
}

impl Enrollments for SqliteTx<'_> {
    fn enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<Option<EnrollmentRow>> {
        let sql = of_node_in(SELECT, state);
        let read = |row: &Row<'_>| {
            Ok(EnrollmentRow {
                id: row.get(0)?,
                node,
                state,
                number: u64_at(row, 1)?,
                tenant_key: row.get(2)?,
                registration: row.get(3)?,
                bank: row.get(4)?,
                c_v: (row.get(5)?, row.get(6)?),
                c_u: row.get(7)?,
                enrolled_at: u64_at(row, 8)?,
                enrolled_by: row.get(9)?,
                fetched_by: row.get(10)?,
                quote: QuoteRow { reset: row.get(11)?, restart: row.get(12)?, clock: clock_at(row, 13)? },
                // What can't be read was no release: the next one mends it.
                released: released(row).unwrap_or_default(),
            })
        };
        self.first(&sql, [id_text(node)], read)
    }

    fn enrollment_state(&self, node: NodeId, id: &str) -> Result<Option<(EnrollmentState, u64)>> {
        const SQL: &str = "SELECT state, number FROM enrollments
                           WHERE enrollment_id = ?1 AND node_id = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, u64_at(row, 1)?));
        let Some((state, number)) = self.first(SQL, [id, &id_text(node)], read)? else {
            return Ok(None);
        };
        let state = EnrollmentState::parse(&state)
            .ok_or_else(|| StoreError::Damaged(format!("table enrollments, {id:.64}: state {state:.32?}")))?;
        Ok(Some((state, number)))
    }

    fn insert_enrollment(&self, row: &EnrollmentRow) -> Result<bool> {
        const SQL: &str = "INSERT OR IGNORE INTO enrollments
                (enrollment_id, node_id, state, number, tenant_key, registration, bank, c_v_id, c_v_secret, c_u,
                 enrolled_at, enrolled_by)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let values = params![
            row.id,
            id_text(row.node),
            row.state.as_str(),
            number(row.number),
            row.tenant_key,
            row.registration,
            row.bank,
            row.c_v.0,
            row.c_v.1,
            row.c_u,
            number(row.enrolled_at),
            row.enrolled_by,
        ];
        Ok(self.change(SQL, values)? > 0)
    }

    fn replace_enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<()> {
        const SQL: &str =
            "UPDATE enrollments SET state = 'replaced', c_v_id = NULL, c_v_secret = NULL, c_u = NULL";
        self.change(&of_node_in(SQL, state), [id_text(node)]).map(drop)
    }

    fn prove_enrollment(&self, id: &str, at: u64) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET state = 'current', c_u = NULL, proved_at = ?2
                           WHERE enrollment_id = ?1";
        self.change(SQL, params![id, number(at)]).map(drop)
    }

    fn set_fetched(&self, id: &str, ticket: &str, c_u: Option<&[u8]>) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET fetched_by = ?2, c_u = ?3 WHERE enrollment_id = ?1";
        self.change(SQL, params![id, ticket, c_u]).map(drop)
    }

    fn set_c_u(&self, id: &str, c_u: &[u8]) -> Result<()> {
        self.change("UPDATE enrollments SET c_u = ?2 WHERE enrollment_id = ?1", params![id, c_u]).map(drop)
    }

    fn set_quoted(&self, id: &str, quote: &QuoteRow) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET reset_count = ?2, restart_count = ?3, clock = ?4
                           WHERE enrollment_id = ?1";
        let QuoteRow { reset, restart, clock } = quote;
        self.change(SQL, params![id, reset, restart, clock.map(u64::cast_signed)]).map(drop)
    }

    fn set_released(&self, id: &str, released: &ReleasedRow) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET
                released_evidence = ?2, released_reset = ?3, released_restart = ?4, released_fence = ?5,
                released_boot = ?6, released_proposal = ?7, released_twin = ?8, released_tag = ?9, released_base = ?10
            WHERE enrollment_id = ?1";
        let ReleasedRow { evidence, reset, restart, fence, boot, proposal, base, twin, tag } = released;
        let (evidence, proposal, twin) = (number(*evidence), proposal.map(number), twin.map(number));
        self.change(SQL, params![id, evidence, reset, restart, fence, boot, proposal, twin, tag, base])
            .map(drop)
    }

    fn delete_every_c_u(&self) -> Result<()> {
        self.change("UPDATE enrollments SET c_u = NULL WHERE c_u IS NOT NULL", []).map(drop)
    }

    fn insert_tenant_key(&self, operator: &str, key: &[u8], now: u64) -> Result<bool> {
        const SQL: &str =
            "INSERT OR IGNORE INTO tenant_keys (operator, tenant_key, first_used) VALUES (?1, ?2, ?3)";
        Ok(self.change(SQL, params![operator, key, number(now)])? > 0)
    }
}

fn released(row: &Row<'_>) -> rusqlite::Result<Option<ReleasedRow>> {
    let Some(evidence) = some_u64_at(row, 14)? else { return Ok(None) };
    Ok(Some(ReleasedRow {
        evidence,
        reset: row.get(15)?,
        restart: row.get(16)?,
        fence: row.get(17)?,
        boot: row.get(18)?,
        proposal: some_u64_at(row, 19)?,
        twin: some_u64_at(row, 20)?,
        tag: row.get(21)?,
        base: row.get(22)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;
    use rusqlite::StatementStatus;

    #[test]
    fn a_node_is_looked_up_by_an_index_and_by_a_statement_that_is_prepared_once() {
        let dir = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&dir.path().join("db")).unwrap();
        let reader = database.reader.lock().unwrap();
        for state in [EnrollmentState::Open, EnrollmentState::Current] {
            let tx = SqliteTx(&reader);
            for node in 0..5 {
                assert!(tx.enrollment(NodeId([node; 16]), state).unwrap().is_none());
            }
            let sql = of_node_in(SELECT, state);
            let statement = reader.prepare_cached(&sql).unwrap();
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
            let plan =
                reader.query_row(&format!("EXPLAIN QUERY PLAN {sql}"), ["x"], |row| row.get::<_, String>(3));
            let expected = format!("USING INDEX enrollments_one_{}", state.as_str());
            assert!(plan.as_ref().is_ok_and(|plan| plan.contains(&expected)), "{plan:?}");
        }
    }
}
