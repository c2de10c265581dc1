//! [`Records`] from async code.

use super::{Error, Records, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

/// Calls of those without a certificate that run at the same time; the others wait for their turn. So many share a commit.
pub const PUBLIC_CALLS: usize = 32;
/// Threads for all: of these, some are left for operators, other verifiers, and the server's own work, whatever anybody else asks.
pub const THREADS: usize = PUBLIC_CALLS + 16;

/// Runs [`Records`] methods from async code.
#[derive(Clone)]
pub struct Db {
    records: Arc<Records>,
    calls: Arc<AtomicUsize>,
    /// None: for who has a certificate, and for the server itself.
    turns: Option<Arc<Semaphore>>,
}

/// A call that has not ended, or has not begun.
struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Db {
    /// Over these records.
    pub fn new(records: Arc<Records>) -> Self {
        Self { records, calls: Arc::default(), turns: None }
    }

    /// The same for what anybody may ask. Its calls are counted with the others.
    #[must_use]
    pub fn for_anybody(&self) -> Self {
        Self { turns: Some(Arc::new(Semaphore::new(PUBLIC_CALLS))), ..self.clone() }
    }

    /// Reads or changes something. The caller may go away in the middle: a change and its events still go together.
    ///
    /// # Errors
    /// Those of the method.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let records = self.records.clone();
        let held = self.call().await;
        // What is logged there is of the same request.
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || {
            let _held = held;
            span.in_scope(|| work(&records))
        });
        done.await.unwrap_or_else(|e| Err(Error::unavailable(format!("our bug: {e}"))))
    }

    /// The same with work that does not block. The caller may go away as well.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run_at_once<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let held = self.call().await;
        let work = async move {
            let _held = held;
            work.await
        };
        let done = tokio::spawn(work.instrument(tracing::Span::current()));
        done.await.unwrap_or_else(|e| Err(Error::unavailable(format!("our bug: {e}"))))
    }

    async fn call(&self) -> (Call, Option<OwnedSemaphorePermit>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let call = Call(self.calls.clone());
        let turn = match &self.turns {
            // It is never closed.
            Some(turns) => turns.clone().acquire_owned().await.ok(),
            None => None,
        };
        (call, turn)
    }

    /// Calls that have not ended, those that wait for their turn or for a thread included.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// For what waits for nothing.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }
}
