//! Notices, in memory.

use super::MemoryTx;
use crate::store::{NoticeRow, Notices, Result};

impl Notices for MemoryTx {
    fn insert_notice(&self, row: &NoticeRow) -> Result<()> {
        let tables = &mut *self.0.borrow_mut();
        tables.last_notice += 1;
        tables.notices.insert(tables.last_notice, NoticeRow { id: tables.last_notice, ..row.clone() });
        Ok(())
    }

    fn take_notices(&self, endpoint: &str, now: u64, until: u64, limit: u64) -> Result<Vec<NoticeRow>> {
        let tables = &mut *self.0.borrow_mut();
        let due = tables.notices.values_mut().filter(|row| row.endpoint == endpoint && row.due <= now);
        let take = |row: &mut NoticeRow| {
            row.due = until;
            row.attempts += 1;
            row.clone()
        };
        Ok(due.take(limit as usize).map(take).collect())
    }

    fn put_off_notice(&self, id: u64, until: u64) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().notices.get_mut(&id) {
            row.due = until;
        }
        Ok(())
    }

    fn delete_notice(&self, id: u64) -> Result<()> {
        self.0.borrow_mut().notices.remove(&id);
        Ok(())
    }

    fn trim_notices(&self, endpoint: &str, keep: u64) -> Result<u64> {
        let notices = &mut self.0.borrow_mut().notices;
        let of_it = notices.values().rev().filter(|row| row.endpoint == endpoint).map(|row| row.id);
        let old: Vec<_> = of_it.skip(keep as usize).collect();
        old.iter().for_each(|id| drop(notices.remove(id)));
        Ok(old.len() as u64)
    }

    fn delete_notices_before(&self, at: u64) -> Result<u64> {
        let notices = &mut self.0.borrow_mut().notices;
        let before = notices.len();
        notices.retain(|_, row| row.at >= at);
        Ok((before - notices.len()) as u64)
    }

    fn count_notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)> {
        let tables = self.0.borrow();
        let of_it = || tables.notices.values().filter(|row| row.endpoint == endpoint);
        Ok((of_it().count() as u64, of_it().filter(|row| row.due <= now).count() as u64))
    }
}
