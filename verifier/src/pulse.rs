//! Keeps a runtime awake whose threads may block.
//!
//! One thread of tokio's waits for all sockets, timers and signals, and the others sleep until it wakes one. When it leaves that wait with a
//! single task, nobody takes its place; if that task then waits for a disk that hangs, the server is deaf, however many threads sleep.
//! Whatever comes from outside wakes one of them, and it takes the place.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::warn;

/// For so long at most nobody listens. Four times a second costs nothing that could be measured.
const BEAT: Duration = Duration::from_millis(250);

/// Beats until it is dropped.
pub struct Pulse {
    _stop: Option<Sender<()>>,
}

impl Pulse {
    /// For the runtime that this is called in.
    pub fn start() -> Self {
        let (stop, stopped) = channel();
        let runtime = Handle::current();
        let beat = move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                drop(runtime.spawn(async {}));
            }
        };
        match Builder::new().name("pulse".into()).spawn(beat) {
            Ok(_) => Self { _stop: Some(stop) },
            Err(e) => {
                warn!(error = %e, "no thread can be made: a disk that hangs may make this server deaf");
                Self { _stop: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const WORKERS: usize = 3;

    /// Who sends an `x` holds the thread that reads it until told; all else comes back.
    #[test]
    fn a_thread_that_blocks_makes_nobody_wait() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (go, told) = channel::<()>();
        let (holds, held) = channel();
        let told = Arc::new(Mutex::new(told));
        let pulse = runtime.block_on(async {
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (told, holds) = (told.clone(), holds.clone());
                    tokio::spawn(async move {
                        while let Ok(byte) = stream.read_u8().await {
                            if byte == b'x' {
                                holds.send(()).unwrap();
                                told.lock().unwrap().recv().unwrap();
                            }
                            stream.write_u8(byte).await.unwrap();
                        }
                    });
                }
            });
            Pulse::start()
        });
        let mut first = TcpStream::connect(address).unwrap();
        let mut byte = [0];
        first.write_all(b"a").unwrap();
        first.read_exact(&mut byte).unwrap();
        // All sleep: a thread that was still looking for work would take the place.
        let sleeps = |worker| runtime.metrics().worker_park_unpark_count(worker) % 2 == 1;
        while !(0..WORKERS).all(sleeps) {
            std::thread::yield_now();
        }
        first.write_all(b"x").unwrap();
        held.recv().unwrap();
        let mut second = TcpStream::connect(address).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        second.write_all(b"b").unwrap();
        let answered = second.read_exact(&mut byte).map(|()| byte);
        go.send(()).unwrap();
        assert_eq!(answered.unwrap(), *b"b");
        first.read_exact(&mut byte).unwrap();
        drop(pulse);
    }
}
