//! Waiting for the database on the thread of a request. What waits is woken by a thread of its own: it may be one that runs
//! other async work, too.

use crate::store::{Result, StoreError};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// The thread that speaks to the database. With one, what comes at the same time on several connections is a single change of threads.
pub struct Background(Option<Runtime>);

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// When the operating system gives none.
    pub fn start() -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("postgres").enable_all().build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|e| StoreError::Unavailable(format!("threads: {e}")))
    }

    /// Has it run there, until it is over or this is dropped.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(work);
        }
    }

    /// What has it run something.
    ///
    /// # Errors
    /// When it has ended.
    pub fn handle(&self) -> Result<Handle> {
        let runtime =
            self.0.as_ref().ok_or_else(|| StoreError::Unavailable("our bug: no thread".to_owned()))?;
        Ok(runtime.handle().clone())
    }

    /// Waits; none if it takes longer than that.
    pub fn wait<T>(&self, longest: Duration, work: impl Future<Output = T>) -> Option<T> {
        let _context = self.0.as_ref()?.enter();
        let mut work = pin!(tokio::time::timeout(longest, work));
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match work.as_mut().poll(&mut context) {
                Poll::Ready(done) => return done.ok(),
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Drop for Background {
    /// Waits for nothing: a runtime may not be waited for where async work runs.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
