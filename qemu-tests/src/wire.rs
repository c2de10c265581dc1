//! A byte stream from the guest: read by a thread of its own, kept whole in a log, and waited on with deadlines.

use crate::error::{Context, Error, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rung whenever something arrived on any wire that shares it.
#[derive(Clone, Default)]
pub struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    fn ring(&self) {
        *lock(&self.0.0) += 1;
        self.0.1.notify_all();
    }

    /// Waits until `ready` says something, looking again each time the bell rings.
    /// `None` if the deadline passed.
    pub fn wait<T>(&self, deadline: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let end = Instant::now() + deadline;
        let mut count = lock(&self.0.0);
        loop {
            // Nothing is missed: what rings waits for this lock.
            if let Some(value) = ready() {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now())?;
            count = self.0.1.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Hears every line as it comes.
pub type Tap = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Default)]
struct Heard {
    text: String,
    closed: bool,
}

/// One of the guest's serial lines.
pub struct Wire {
    name: &'static str,
    stream: UnixStream,
    heard: Arc<Mutex<Heard>>,
    bell: Bell,
    cursor: usize,
    log: PathBuf,
}

impl Wire {
    /// Starts to read. All that comes is appended to `log`; `tap` hears the lines without colours.
    ///
    /// # Errors
    /// If the log can't be written.
    pub fn new(
        name: &'static str,
        stream: UnixStream,
        log: &Path,
        bell: &Bell,
        tap: Option<Tap>,
    ) -> Result<Self> {
        let mut file = File::options().create(true).append(true).open(log).context("can't open a log")?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut reader = stream.try_clone().context("can't duplicate a socket")?;
        let (shared, ringing) = (Arc::clone(&heard), bell.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut line = String::new();
            let mut bytes = Vec::new();
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                // A log that can't be written must not stop the test.
                let _ = file.write_all(&buffer[..count]);
                bytes.extend_from_slice(&buffer[..count]);
                let text = take_text(&mut bytes);
                if let Some(tap) = &tap {
                    line.push_str(&text);
                    while let Some(end) = line.find('\n') {
                        let rest = line.split_off(end + 1);
                        tap(plain(&line).trim_end());
                        line = rest;
                    }
                }
                lock(&shared).text.push_str(&text);
                ringing.ring();
            }
            lock(&shared).closed = true;
            ringing.ring();
        });
        Ok(Self { name, stream, heard, bell: bell.clone(), cursor: 0, log: log.to_path_buf() })
    }

    /// Whether the other end is gone: the machine is off.
    pub fn is_closed(&self) -> bool {
        lock(&self.heard).closed
    }

    /// All that came so far, without colours.
    pub fn text(&self) -> String {
        plain(&lock(&self.heard).text)
    }

    /// Looks for one of the texts behind the last match, and moves behind it. Does not wait.
    pub fn find(&mut self, texts: &[&str]) -> Option<usize> {
        let heard = lock(&self.heard);
        let rest = &heard.text[self.cursor..];
        let (at, which) =
            texts.iter().enumerate().filter_map(|(i, text)| Some((rest.find(text)?, i))).min()?;
        self.cursor += at + texts[which].len();
        Some(which)
    }

    /// Waits for one of the texts and says which it was.
    ///
    /// # Errors
    /// If none came before the deadline, or the machine went off.
    pub fn expect(&mut self, texts: &[&str], deadline: Duration) -> Result<usize> {
        let bell = self.bell.clone();
        let found = bell.wait(deadline, || {
            let closed = self.is_closed();
            match self.find(texts) {
                Some(which) => Some(Ok(which)),
                None => closed.then_some(Err("the machine went off")),
            }
        });
        let why = match found {
            Some(Ok(which)) => return Ok(which),
            Some(Err(why)) => why.to_string(),
            None => format!("nothing of it within {} s", deadline.as_secs()),
        };
        Err(Error::new(format!("{}: expected {texts:?}, but {why} (log: {})", self.name, self.log.display())))
    }

    /// Waits for the rest of the line behind the last match.
    ///
    /// # Errors
    /// As [`Wire::expect`].
    pub fn rest_of_line(&mut self, deadline: Duration) -> Result<String> {
        let from = self.cursor;
        self.expect(&["\n"], deadline)?;
        Ok(lock(&self.heard).text[from..self.cursor].trim().to_string())
    }

    /// Sends these, one after the other, from a thread of its own, until there are no more or the machine is off.
    ///
    /// # Errors
    /// If the socket can't be duplicated.
    pub fn send_slowly(
        &self,
        mut messages: impl Iterator<Item = String> + Send + 'static,
        pause: Duration,
    ) -> Result<()> {
        let mut stream = self.stream.try_clone().context("can't duplicate a socket")?;
        std::thread::spawn(move || {
            while let Some(message) = messages.next()
                && stream.write_all(message.as_bytes()).is_ok()
            {
                std::thread::sleep(pause);
            }
        });
        Ok(())
    }

    /// Sends what is typed and shows what comes: until `leave` is typed, a login ends, or the machine is off; or until nothing more
    /// is typed and the machine has been silent for a while.
    ///
    /// # Errors
    /// If what came can't be shown.
    pub fn converse(
        &mut self,
        mut typed: impl Read + Send + 'static,
        leave: u8,
        shown: &mut impl Write,
    ) -> Result<()> {
        const SILENCE: Duration = Duration::from_secs(5);
        const ALWAYS: Duration = Duration::from_secs(7 * 24 * 3600);
        let mut at = lock(&self.heard).text.len();
        let (ended, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (bell, ends, leaves) = (self.bell.clone(), Arc::clone(&ended), Arc::clone(&left));
        let mut stream = self.stream.try_clone().context("can't duplicate a socket")?;
        // It may wait for a key when all is over; it ends with the program.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = typed.read(&mut buffer) {
                let end = buffer[..count].iter().position(|byte| *byte == leave);
                leaves.store(end.is_some(), Ordering::SeqCst);
                if stream.write_all(&buffer[..end.unwrap_or(count)]).is_err() || end.is_some() {
                    break;
                }
            }
            ends.store(true, Ordering::SeqCst);
            bell.ring();
        });
        while !left.load(Ordering::SeqCst) {
            let over = ended.load(Ordering::SeqCst);
            let news = self.bell.wait(if over { SILENCE } else { ALWAYS }, || {
                let heard = lock(&self.heard);
                let text = heard.text[at..].to_owned();
                let changed = !text.is_empty() || heard.closed || over != ended.load(Ordering::SeqCst);
                changed.then_some((text, heard.closed))
            });
            let Some((text, closed)) = news else { break };
            at += text.len();
            shown.write_all(text.as_bytes()).and_then(|()| shown.flush()).context("can't show a console")?;
            if closed || plain(&text).lines().any(|line| line == "logout") {
                break;
            }
        }
        self.cursor = at;
        Ok(())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context(format_args!("{}: can't write", self.name))
    }
}

/// Takes what is text from the front; a character whose last bytes have not come yet stays.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
    bytes.drain(..whole);
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is text: a panicking thread can't have left it inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without the escape sequences of terminals and without carriage returns.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if chars.next() == Some('[') {
                    // Parameters, then one final letter.
                    for c in chars.by_ref() {
                        if ('@'..='~').contains(&c) {
                            break;
                        }
                    }
                }
            }
            '\r' | '\0' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go() {
        assert_eq!(plain("[\x1b[0;32m  OK  \x1b[0m] up\r\n"), "[  OK  ] up\n");
    }

    #[test]
    fn a_character_in_two_pieces_stays_one() {
        let mut bytes = b"a\xe2\x80".to_vec();
        assert_eq!(take_text(&mut bytes), "a");
        bytes.extend(b"\xa6\xffb");
        assert_eq!(take_text(&mut bytes), "\u{2026}\u{fffd}b");
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_person_talks_to_the_machine_until_the_login_ends() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut wire = Wire::new("test", here, &folder.path().join("log"), &Bell::default(), None).unwrap();
        let guest = std::thread::spawn(move || {
            let mut typed = [0; 5];
            there.read_exact(&mut typed).unwrap();
            there.write_all(b"$ exit\r\nlogout\r\n").unwrap();
            (typed, there)
        });
        let mut shown = Vec::new();
        wire.converse(&b"exit\n"[..], 0x1d, &mut shown).unwrap();
        assert_eq!(shown, b"$ exit\r\nlogout\r\n");
        let (typed, _there) = guest.join().unwrap();
        assert_eq!(&typed, b"exit\n");
        // Who leaves is not waited for.
        wire.converse(&b"\x1dmore"[..], 0x1d, &mut shown).unwrap();
    }

    #[test]
    fn what_was_matched_is_not_matched_again() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut wire = Wire::new("test", here, &folder.path().join("log"), &Bell::default(), None).unwrap();
        there.write_all(b"login: a\nlogin: b\n").unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(wire.expect(&["login: "], patience).unwrap(), 0);
        assert_eq!(wire.rest_of_line(patience).unwrap(), "a");
        assert_eq!(wire.expect(&["no", "login: "], patience).unwrap(), 1);
        assert_eq!(wire.rest_of_line(patience).unwrap(), "b");
        drop(there);
        assert!(wire.expect(&["login: "], patience).is_err());
    }
}
