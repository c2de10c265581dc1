//! [`Records`] from async code.

use super::{Error, Records, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};
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

/// A call that has not ended.
struct Call {
    /// First: when all turns are free nothing is counted.
    _counted: Counted,
    _turn: Option<OwnedSemaphorePermit>,
}

/// The same, or one that has not begun.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(calls: &Arc<AtomicUsize>) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(calls.clone())
    }
}

impl Drop for Counted {
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
        let call = self.call().await;
        on_a_thread(self.records.clone(), call, work).await
    }

    /// The same, first without a thread: `first` does not block, and gives none if it can't be done so and has changed nothing. It is
    /// polled once its turn has come, and both are one call: the other way is gone as well when the caller has gone away.
    ///
    /// # Errors
    /// Those of either.
    pub async fn run_at_once<T: Send + 'static>(
        &self,
        first: impl Future<Output = Result<Option<T>>> + Send + 'static,
        otherwise: impl FnOnce(&Records) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let call = self.call().await;
        let records = self.records.clone();
        let work = async move {
            match first.await? {
                Some(done) => {
                    drop(call);
                    Ok(done)
                }
                None => on_a_thread(records, call, otherwise).await,
            }
        };
        joined(tokio::spawn(work.instrument(tracing::Span::current()))).await
    }

    /// When no call runs of those without a certificate.
    pub async fn ended(&self) {
        if let Some(turns) = &self.turns {
            // It is never closed.
            drop(turns.acquire_many(PUBLIC_CALLS as u32).await);
        }
    }

    async fn call(&self) -> Call {
        let counted = Counted::new(&self.calls);
        let turn = match &self.turns {
            // It is never closed.
            Some(turns) => turns.clone().acquire_owned().await.ok(),
            None => None,
        };
        Call { _counted: counted, _turn: turn }
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

async fn on_a_thread<T: Send + 'static>(
    records: Arc<Records>,
    call: Call,
    work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
) -> Result<T> {
    // What is logged there is of the same request.
    let span = tracing::Span::current();
    joined(spawn_blocking(move || {
        let _call = call;
        span.in_scope(|| work(&records))
    }))
    .await
}

async fn joined<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    work.await.unwrap_or_else(|e| Err(Error::unavailable(format!("our bug: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ClusterKey;
    use crate::store::memory::Memory;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Waker};
    use tokio::sync::oneshot;

    fn public_db() -> Db {
        let records = Records::over(Arc::new(Memory::default()), ClusterKey::from_bytes(&[1; 32])).unwrap();
        Db::new(Arc::new(records)).for_anybody()
    }

    fn begins<T>(call: &mut Pin<Box<impl Future<Output = T>>>) {
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    /// A client that hangs up does not get its evidence past the count and the audit trail, which the other way would have made.
    #[tokio::test]
    async fn both_ways_are_gone_without_the_caller() {
        let db = public_db();
        let (go, told) = oneshot::channel();
        let said = Arc::new(Mutex::new(None));
        let says = said.clone();
        let first = async {
            told.await.unwrap();
            Ok(None)
        };
        let mut call = Box::pin(db.run_at_once(first, move |_| {
            *says.lock().unwrap() = Some("done");
            Ok(())
        }));
        begins(&mut call);
        drop(call);
        let mut ended = Box::pin(db.ended());
        begins(&mut ended);
        go.send(()).unwrap();
        ended.await;
        assert_eq!(*said.lock().unwrap(), Some("done"));
        assert_eq!(db.calls(), 0);
    }

    /// What it takes it would take for nothing: who waits for its turn may go away.
    #[tokio::test]
    async fn nothing_is_begun_before_its_turn() {
        let db = public_db();
        let all = db.turns.clone().unwrap().acquire_many_owned(PUBLIC_CALLS as u32).await.unwrap();
        let mut gone = Box::pin(db.run_at_once::<()>(async { unreachable!("no turn") }, |_| unreachable!()));
        begins(&mut gone);
        drop(gone);
        drop(all);
        let first = async { Ok(Some("first")) };
        assert_eq!(db.run_at_once(first, |_| Ok("otherwise")).await.unwrap(), "first");
        assert_eq!(db.run_at_once(async { Ok(None) }, |_| Ok("otherwise")).await.unwrap(), "otherwise");
    }

    #[tokio::test]
    async fn a_panic_of_either_way_is_an_answer() {
        let db = public_db();
        let first = async { panic!("on purpose") };
        let said = db.run_at_once::<()>(first, |_| Ok(())).await.unwrap_err().to_string();
        assert!(said.contains("our bug"), "{said}");
        let said = db.run_at_once::<()>(async { Ok(None) }, |_| panic!("on purpose")).await.unwrap_err();
        assert!(said.to_string().contains("our bug"), "{said}");
        db.ended().await;
    }
}
