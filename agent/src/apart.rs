//! Work that may never return, in a thread of its own. A disk that does not answer holds whoever opens, reads or unmounts it in the
//! kernel, where no signal reaches.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// What `work` returns; none if that takes longer than `limit`. The thread, `name`, is then left to itself: a process that has one in the
/// kernel does not end before it, however it ends. What must be able to end opens devices in another process ([`crate::boot::looker`]).
///
/// # Errors
/// When there is no thread to be had.
pub fn run<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    // Whatever it returns, the channel is one of the same type: each type has its own code.
    let (done, ended) = mpsc::channel::<()>();
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    let in_thread = move || {
        let result = work();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        let _ = done.send(());
    };
    thread::Builder::new().name(name.into()).spawn(in_thread)?;
    let _ = ended.recv_timeout(limit);
    Ok(result.lock().unwrap_or_else(PoisonError::into_inner).take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_return_is_left() {
        let (never, waits) = mpsc::channel::<()>();
        assert_eq!(run("test", Duration::ZERO, move || waits.recv()).unwrap(), None);
        drop(never);
        assert_eq!(run("test", Duration::from_secs(60), || 7).unwrap(), Some(7));
    }
}
