//! [`Records`] from async code.

use super::{Error, Records, Result};
use std::sync::Arc;

/// Runs [`Records`] methods from async code.
#[derive(Clone)]
pub struct Db(Arc<Records>);

impl Db {
    /// Over these records.
    pub fn new(records: Arc<Records>) -> Self {
        Self(records)
    }

    /// Reads or changes something. The caller may go away in the middle: a change and its events still go together.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&records)).await;
        done.unwrap_or_else(|e| Err(Error::unavailable(format!("our bug: {e}"))))
    }
}
