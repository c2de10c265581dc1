//! A future that a thread waits for: one that may block, inside of a runtime or without any.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What it comes to.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    // Inside of a task that has done much, tokio's own futures are pending until that task lets others run: it never would.
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wait;
    use std::sync::mpsc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    #[test]
    fn a_task_that_has_done_much_waits_no_longer() {
        let (done, waited) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut context = Context::from_waker(Waker::noop());
                let mut budget = Box::pin(tokio::task::consume_budget());
                while budget.as_mut().poll(&mut context).is_ready() {
                    budget = Box::pin(tokio::task::consume_budget());
                }
                drop(wait(tokio::sync::Mutex::new(()).lock()));
            });
            done.send(()).unwrap();
        });
        waited.recv_timeout(Duration::from_secs(60)).expect("it waits for ever");
    }
}
