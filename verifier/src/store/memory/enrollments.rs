//! Enrollments, in memory.

use super::MemoryTx;
use crate::store::{EnrollmentRow, EnrollmentState, Enrollments, QuoteRow, ReleasedRow, Result};
use halfkey_protocol::NodeId;

impl MemoryTx {
    fn with_enrollment(&self, id: &str, change: impl FnOnce(&mut EnrollmentRow)) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().enrollments.get_mut(id) {
            change(row);
        }
        Ok(())
    }
}

impl Enrollments for MemoryTx {
    fn enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<Option<EnrollmentRow>> {
        let tables = self.0.borrow();
        Ok(tables.enrollments.values().find(|row| row.node == node && row.state == state).cloned())
    }

    fn enrollment_state(&self, node: NodeId, id: &str) -> Result<Option<(EnrollmentState, u64)>> {
        let tables = self.0.borrow();
        let found = tables.enrollments.get(id).filter(|row| row.node == node);
        Ok(found.map(|row| (row.state, row.number)))
    }

    fn insert_enrollment(&self, row: &EnrollmentRow) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let taken = tables.enrollments.values().any(|known| {
            known.id == row.id
                || row.state != EnrollmentState::Replaced
                    && (known.node, known.state) == (row.node, row.state)
        });
        if !taken {
            tables.enrollments.insert(row.id.clone(), row.clone());
        }
        Ok(!taken)
    }

    fn replace_enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<()> {
        let mut tables = self.0.borrow_mut();
        for row in tables.enrollments.values_mut().filter(|row| row.node == node && row.state == state) {
            row.state = EnrollmentState::Replaced;
            row.c_v = (None, None);
            row.c_u = None;
        }
        Ok(())
    }

    fn prove_enrollment(&self, id: &str, _at: u64) -> Result<()> {
        self.with_enrollment(id, |row| {
            row.state = EnrollmentState::Current;
            row.c_u = None;
        })
    }

    fn set_fetched(&self, id: &str, ticket: &str, c_u: Option<&[u8]>) -> Result<()> {
        self.with_enrollment(id, |row| {
            row.fetched_by = Some(ticket.to_owned());
            row.c_u = c_u.map(<[u8]>::to_vec);
        })
    }

    fn set_c_u(&self, id: &str, c_u: &[u8]) -> Result<()> {
        self.with_enrollment(id, |row| row.c_u = Some(c_u.to_vec()))
    }

    fn set_quoted(&self, id: &str, quote: &QuoteRow) -> Result<()> {
        self.with_enrollment(id, |row| row.quote = *quote)
    }

    fn set_released(&self, id: &str, released: &ReleasedRow) -> Result<()> {
        self.with_enrollment(id, |row| row.released = Some(released.clone()))
    }

    fn delete_every_c_u(&self) -> Result<()> {
        self.0.borrow_mut().enrollments.values_mut().for_each(|row| row.c_u = None);
        Ok(())
    }

    fn insert_tenant_key(&self, operator: &str, key: &[u8], _now: u64) -> Result<bool> {
        Ok(self.0.borrow_mut().tenant_keys.insert((operator.to_owned(), key.to_vec())))
    }
}
