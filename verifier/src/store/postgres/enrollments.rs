//! Enrollments. Those that are named by their own ids were read before, and their node is held.

use super::row::Found;
use super::{PgTx, stored, stored_some};
use crate::store::{EnrollmentRow, EnrollmentState, Enrollments, QuoteRow, ReleasedRow, Result, StoreError};
use halfkey_protocol::NodeId;

/// The state stands in the statement, as it does in the indexes of open and current ones: a plan that has to do for any state could not
/// use them.
fn of_node_in(statement: &str, state: EnrollmentState) -> String {
    format!("{statement} WHERE node_id = $1 AND state = '{}'", state.as_str())
}

impl Enrollments for PgTx<'_> {
    fn enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<Option<EnrollmentRow>> {
        const SQL: &str =
            "SELECT enrollment_id, number, tenant_key, registration, bank, c_v_id, c_v_secret, c_u,
                    enrolled_at, enrolled_by, fetched_by, reset_count, restart_count, clock,
                    released_evidence, released_reset, released_restart, released_fence, released_boot,
                    released_proposal, released_twin, released_tag, released_base
             FROM enrollments";
        self.hold(node)?;
        self.first(&of_node_in(SQL, state), &[&node.to_string()], |row| {
            Ok(EnrollmentRow {
                id: row.get(0)?,
                node,
                state,
                number: row.u64(1)?,
                tenant_key: row.get(2)?,
                registration: row.get(3)?,
                bank: row.get(4)?,
                c_v: (row.get(5)?, row.get(6)?),
                c_u: row.get(7)?,
                enrolled_at: row.u64(8)?,
                enrolled_by: row.get(9)?,
                fetched_by: row.get(10)?,
                quote: QuoteRow {
                    reset: row.some_u32(11)?,
                    restart: row.some_u32(12)?,
                    clock: row.clock(13)?,
                },
                // What can't be read was no release: the next one mends it.
                released: released(row).unwrap_or_default(),
            })
        })
    }

    fn enrollment_state(&self, node: NodeId, id: &str) -> Result<Option<(EnrollmentState, u64)>> {
        const SQL: &str = "SELECT state, number FROM enrollments
                           WHERE enrollment_id = $1 AND node_id = $2";
        self.hold(node)?;
        let read = |row: &Found| Ok((row.get::<String>(0)?, row.u64(1)?));
        let Some((state, number)) = self.first(SQL, &[&id, &node.to_string()], read)? else {
            return Ok(None);
        };
        let state = EnrollmentState::parse(&state)
            .ok_or_else(|| StoreError::Damaged(format!("table enrollments, {id:.64}: state {state:.32?}")))?;
        Ok(Some((state, number)))
    }

    fn insert_enrollment(&self, row: &EnrollmentRow) -> Result<bool> {
        const SQL: &str = "INSERT INTO enrollments
                (enrollment_id, node_id, state, number, tenant_key, registration, bank, c_v_id, c_v_secret, c_u,
                 enrolled_at, enrolled_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING";
        self.hold(row.node)?;
        let change = self.change(
            SQL,
            &[
                &row.id,
                &row.node.to_string(),
                &row.state.as_str(),
                &stored(row.number)?,
                &row.tenant_key,
                &row.registration,
                &row.bank,
                &row.c_v.0,
                &row.c_v.1,
                &row.c_u,
                &stored(row.enrolled_at)?,
                &row.enrolled_by,
            ],
        );
        Ok(change? > 0)
    }

    fn replace_enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<()> {
        const SQL: &str =
            "UPDATE enrollments SET state = 'replaced', c_v_id = NULL, c_v_secret = NULL, c_u = NULL";
        self.hold(node)?;
        self.change_later(&of_node_in(SQL, state), &[&node.to_string()])
    }

    fn prove_enrollment(&self, id: &str, at: u64) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET state = 'current', c_u = NULL, proved_at = $2
                           WHERE enrollment_id = $1";
        self.change_later(SQL, &[&id, &stored(at)?])
    }

    fn set_fetched(&self, id: &str, ticket: &str, c_u: Option<&[u8]>) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET fetched_by = $2, c_u = $3 WHERE enrollment_id = $1";
        self.change_later(SQL, &[&id, &ticket, &c_u])
    }

    fn set_c_u(&self, id: &str, c_u: &[u8]) -> Result<()> {
        self.change_later("UPDATE enrollments SET c_u = $2 WHERE enrollment_id = $1", &[&id, &c_u])
    }

    fn set_quoted(&self, id: &str, quote: &QuoteRow) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET reset_count = $2, restart_count = $3, clock = $4
                           WHERE enrollment_id = $1";
        let QuoteRow { reset, restart, clock } = quote;
        let (reset, restart) = (reset.map(i64::from), restart.map(i64::from));
        self.change_later(SQL, &[&id, &reset, &restart, &clock.map(u64::cast_signed)])
    }

    fn set_released(&self, id: &str, released: &ReleasedRow) -> Result<()> {
        const SQL: &str = "UPDATE enrollments SET
                released_evidence = $2, released_reset = $3, released_restart = $4, released_fence = $5,
                released_boot = $6, released_proposal = $7, released_twin = $8, released_tag = $9, released_base = $10
            WHERE enrollment_id = $1";
        let ReleasedRow { evidence, reset, restart, fence, boot, proposal, base, twin, tag } = released;
        self.change_later(
            SQL,
            &[
                &id,
                &stored(*evidence)?,
                &i64::from(*reset),
                &i64::from(*restart),
                &fence.as_slice(),
                boot,
                &stored_some(*proposal)?,
                &stored_some(*twin)?,
                tag,
                base,
            ],
        )
    }

    fn delete_every_c_u(&self) -> Result<()> {
        self.change_later("UPDATE enrollments SET c_u = NULL WHERE c_u IS NOT NULL", &[])
    }

    fn insert_tenant_key(&self, operator: &str, key: &[u8], now: u64) -> Result<bool> {
        const SQL: &str = "INSERT INTO tenant_keys (operator, tenant_key, first_used) VALUES ($1, $2, $3)
                           ON CONFLICT DO NOTHING";
        Ok(self.change(SQL, &[&operator, &key, &stored(now)?])? > 0)
    }
}

fn released(row: &Found) -> Result<Option<ReleasedRow>> {
    let Some(evidence) = row.some_u64(14)? else { return Ok(None) };
    Ok(Some(ReleasedRow {
        evidence,
        reset: row.u32(15)?,
        restart: row.u32(16)?,
        fence: row.sum(17)?,
        boot: row.get(18)?,
        proposal: row.some_u64(19)?,
        twin: row.some_u64(20)?,
        tag: row.get(21)?,
        base: row.get(22)?,
    }))
}
