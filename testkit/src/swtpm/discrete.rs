//! swtpm as slow as a chip: what stands between a program and it waits for each command as long as a discrete TPM takes.
//!
//! [`MEASURED`] is what has been published of an Infineon SLB 9670 behind SPI at 43 MHz, by the bench of wolfTPM
//! (<https://github.com/wolfSSL/wolfTPM>, README, "TPM2 Benchmarks"), and [`time`] says which part of it each command is made of.
//! Of the common chips it is neither the slowest (Nuvoton NPCT650: 190 ms for a signature, 265 for its verification) nor the
//! fastest (NPCT750: 56 and 39).
//!
//! Programs reach a chip through the kernel's resource manager, /dev/tpmrm0. For each command it loads all transient objects and
//! sessions of that open file into the TPM, and afterwards saves and flushes them (`tpm2_prepare_space` and `tpm2_commit_space` in
//! drivers/char/tpm/tpm2-space.c): a TPM is asked for that, too, and so it counts. swtpm itself sees nothing of it.

use super::Swtpm;
use crate::error::{Context, Result};
use nix::sys::socket::{getsockopt, sockopt};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the chip was measured with, in milliseconds: for the table that is printed with the results.
pub const MEASURED: &[(&str, f64)] = &[
    ("a command that computes nothing (32 random bytes)", PLAIN),
    ("a P-256 primary key from its seed", PRIMARY),
    ("a P-256 signature", SIGN),
    ("its verification", VERIFY),
    ("one multiplication on P-256 (half of ECDH_KeyGen)", MULTIPLY),
    ("SHA-256 of 1 KiB", HASH_KIB),
    ("AES-CFB over 1 KiB (ST33TP; this chip does not offer it)", CIPHER_KIB),
];

const PLAIN: f64 = 2.3;
const PRIMARY: f64 = 231.4;
const SIGN: f64 = 68.9;
const VERIFY: f64 = 113.5;
const MULTIPLY: f64 = 116.1;
const HASH_KIB: f64 = 7.3;
const CIPHER_KIB: f64 = 24.9;

/// What protects so many KiB that leave the TPM or come back: encrypted, and an HMAC over it.
const fn protected(kib: f64) -> f64 {
    kib * (CIPHER_KIB + HASH_KIB)
}

/// A context of an object has about 1 KiB in the reference code, one of a session a quarter of that.
const OBJECT_CONTEXT: f64 = PLAIN + protected(1.0);
const SESSION_CONTEXT: f64 = PLAIN + protected(0.25);

/// Milliseconds of one command, given its code and itself, without what the resource manager does around it.
fn time(code: u32, command: &[u8]) -> f64 {
    match code {
        CREATE_PRIMARY | CREATE => PRIMARY,
        QUOTE | CERTIFY | SIGN_DIGEST => SIGN,
        POLICY_SIGNED | VERIFY_SIGNATURE => VERIFY,
        // Who is named by the public key that a credential or a salt comes with, multiplies once.
        ACTIVATE_CREDENTIAL => MULTIPLY + protected(0.1),
        START_AUTH_SESSION if command.get(HEADER..HEADER + 4) != Some(&NULL.to_be_bytes()) => MULTIPLY,
        // A private part has about 0.2 KiB.
        LOAD | UNSEAL => PLAIN + protected(0.2),
        CONTEXT_SAVE | CONTEXT_LOAD => OBJECT_CONTEXT,
        _ => PLAIN,
    }
}

const HEADER: usize = 10;
const NULL: u32 = 0x4000_0007;
const SESSIONS: [u8; 2] = [0x80, 2];

const CERTIFY: u32 = 0x148;
const CREATE_PRIMARY: u32 = 0x131;
const PCR_EVENT: u32 = 0x13c;
const ACTIVATE_CREDENTIAL: u32 = 0x147;
const NV_READ: u32 = 0x14e;
const POLICY_SECRET: u32 = 0x151;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const QUOTE: u32 = 0x158;
const SIGN_DIGEST: u32 = 0x15d;
const UNSEAL: u32 = 0x15e;
const POLICY_SIGNED: u32 = 0x160;
const CONTEXT_LOAD: u32 = 0x161;
const CONTEXT_SAVE: u32 = 0x162;
const FLUSH_CONTEXT: u32 = 0x165;
const LOAD_EXTERNAL: u32 = 0x167;
const READ_PUBLIC: u32 = 0x173;
const START_AUTH_SESSION: u32 = 0x176;
const VERIFY_SIGNATURE: u32 = 0x177;
const GET_CAPABILITY: u32 = 0x17a;
const PCR_READ: u32 = 0x17e;
const POLICY_PCR: u32 = 0x17f;

/// As in TPM 2.0 Part 3, without `TPM2_`; of a command that nobody here sends, nothing.
pub fn name(code: u32) -> &'static str {
    match code {
        CERTIFY => "Certify",
        CREATE_PRIMARY => "CreatePrimary",
        PCR_EVENT => "PCR_Event",
        ACTIVATE_CREDENTIAL => "ActivateCredential",
        NV_READ => "NV_Read",
        POLICY_SECRET => "PolicySecret",
        CREATE => "Create",
        LOAD => "Load",
        QUOTE => "Quote",
        SIGN_DIGEST => "Sign",
        UNSEAL => "Unseal",
        POLICY_SIGNED => "PolicySigned",
        CONTEXT_LOAD => "ContextLoad",
        CONTEXT_SAVE => "ContextSave",
        FLUSH_CONTEXT => "FlushContext",
        LOAD_EXTERNAL => "LoadExternal",
        READ_PUBLIC => "ReadPublic",
        START_AUTH_SESSION => "StartAuthSession",
        VERIFY_SIGNATURE => "VerifySignature",
        GET_CAPABILITY => "GetCapability",
        PCR_READ => "PCR_Read",
        POLICY_PCR => "PolicyPCR",
        _ => "another",
    }
}

/// A command that was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Its code.
    pub code: u32,
    /// Since [`DiscreteTpm::take`], until it came.
    pub at: Duration,
    /// What the chip takes for it.
    pub own: Duration,
    /// What it takes for the resource manager's commands before and after it.
    pub swapping: Duration,
}

/// Stands in front of a [`Swtpm`] behind a socket in the file system.
pub struct DiscreteTpm {
    folder: TempDir,
    target: PathBuf,
    record: Arc<Mutex<Record>>,
    file: Arc<Mutex<OpenFile>>,
}

/// Names say what they are: whatever is left in the TPM goes when the file is closed.
const SOCKET: &str = "tpmrm.sock";

struct Record {
    since: Instant,
    commands: Vec<Timed>,
}

impl DiscreteTpm {
    /// In front of this TPM; ends with this program.
    ///
    /// # Errors
    /// If there can be no socket.
    pub fn in_front_of(tpm: &Swtpm) -> Result<Self> {
        let folder = super::folder();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).context("can't make a socket")?;
        // tpm2-tools look for it there. It is asked for nothing that takes time.
        let control = folder.path().join(format!("{SOCKET}.ctrl"));
        std::os::unix::fs::symlink(tpm.path("tpm.sock.ctrl"), control)
            .context("can't link to the control channel")?;
        let record = Arc::new(Mutex::new(Record { since: Instant::now(), commands: Vec::new() }));
        let (target, file) = (tpm.path("tpm.sock"), Arc::default());
        let (behind, seen, opened) = (target.clone(), Arc::clone(&record), Arc::clone(&file));
        thread::spawn(move || {
            // A TPM serves one after the other.
            for client in listener.incoming().flatten() {
                // Who breaks off is not heard of any more.
                let _ = serve(client, &behind, &mut lock(&opened), &seen);
            }
        });
        Ok(Self { folder, target, record, file })
    }

    /// For the agent: `HALFKEY_TPM` or `--tpm`.
    pub fn location(&self) -> String {
        format!("swtpm:unix:{}", self.socket().display())
    }

    /// For tpm2-tools: `TPM2TOOLS_TCTI`.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket().display())
    }

    /// The commands since the last time this was asked, in order.
    pub fn take(&self) -> Vec<Timed> {
        let mut record = lock(&self.record);
        record.since = Instant::now();
        std::mem::take(&mut record.commands)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }
}

impl Drop for DiscreteTpm {
    fn drop(&mut self) {
        // What the last program left; the TPM may be off by now.
        let _ = UnixStream::connect(&self.target).and_then(|mut tpm| lock(&self.file).close(&mut tpm));
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection. The agent has one; tpm2-tools connect anew for each command of the one file that they have open.
fn serve(
    mut client: UnixStream,
    target: &Path,
    file: &mut OpenFile,
    record: &Mutex<Record>,
) -> std::io::Result<()> {
    let mut tpm = UnixStream::connect(target)?;
    let process = getsockopt(&client, sockopt::PeerCredentials)?.pid();
    if file.process != process {
        file.close(&mut tpm)?;
        file.process = process;
    }
    let space = &mut file.space;
    while let Ok(command) = read_frame(&mut client) {
        let start = Instant::now();
        let code = word(&command, 6);
        let before = space.load();
        let answer = ask(&mut tpm, &command)?;
        space.follow(code, &command, &answer);
        let (own, swapping) = (millis(time(code, &command)), millis(before + space.save()));
        {
            let mut record = lock(record);
            let at = start.saturating_duration_since(record.since);
            record.commands.push(Timed { code, at, own, swapping });
        }
        // What swtpm took is a part of it.
        thread::sleep((own + swapping).saturating_sub(start.elapsed()));
        client.write_all(&answer)?;
    }
    Ok(())
}

/// A process, and what it has in the TPM. Another's is gone when it comes.
#[derive(Default)]
struct OpenFile {
    process: i32,
    space: Space,
}

impl OpenFile {
    /// What the kernel does then.
    fn close(&mut self, tpm: &mut UnixStream) -> std::io::Result<()> {
        for handle in self.space.objects.iter().chain(&self.space.sessions) {
            ask(tpm, &[&FLUSH[..], &handle.to_be_bytes()].concat())?;
        }
        self.space = Space::default();
        Ok(())
    }
}

/// FlushContext, without the handle.
const FLUSH: [u8; 10] = [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65];

/// The transient objects and sessions of an open file.
#[derive(Default)]
struct Space {
    objects: BTreeSet<u32>,
    sessions: BTreeSet<u32>,
}

impl Space {
    /// What comes before a command, in milliseconds.
    fn load(&self) -> f64 {
        self.objects.len() as f64 * OBJECT_CONTEXT + self.sessions.len() as f64 * SESSION_CONTEXT
    }

    /// What comes after it. A session that is saved is flushed by that.
    fn save(&self) -> f64 {
        self.load() + self.objects.len() as f64 * PLAIN
    }

    /// What this command has made or ended.
    fn follow(&mut self, code: u32, command: &[u8], answer: &[u8]) {
        if word(answer, 6) != 0 {
            return;
        }
        match code {
            CREATE_PRIMARY | LOAD | LOAD_EXTERNAL | CONTEXT_LOAD | START_AUTH_SESSION => {
                let handle = word(answer, HEADER);
                if is_object(handle) {
                    self.objects.insert(handle)
                } else {
                    self.sessions.insert(handle)
                };
            }
            FLUSH_CONTEXT => self.forget(word(command, HEADER)),
            // That ends a session, and leaves an object where it is.
            CONTEXT_SAVE if !is_object(word(command, HEADER)) => self.forget(word(command, HEADER)),
            _ => ended(code, command).into_iter().for_each(|session| self.forget(session)),
        }
    }

    fn forget(&mut self, handle: u32) {
        self.objects.remove(&handle);
        self.sessions.remove(&handle);
    }
}

fn is_object(handle: u32) -> bool {
    handle >> 24 == 0x80
}

/// The sessions that a command is the last one of.
fn ended(code: u32, command: &[u8]) -> Vec<u32> {
    let handles = match code {
        CERTIFY | ACTIVATE_CREDENTIAL | NV_READ | POLICY_SECRET => 2,
        CREATE_PRIMARY | PCR_EVENT | CREATE | LOAD | QUOTE | SIGN_DIGEST | UNSEAL => 1,
        _ => return Vec::new(),
    };
    let area = HEADER + 4 * handles;
    if command[..2] != SESSIONS {
        return Vec::new();
    }
    let end = area + 4 + word(command, area) as usize;
    let (mut at, mut ended) = (area + 4, Vec::new());
    while at < end {
        let handle = word(command, at);
        let attributes = at + 6 + usize::from(half(command, at + 4));
        // continueSession
        if handle >> 24 <= 3 && command[attributes] & 1 == 0 {
            ended.push(handle);
        }
        at = attributes + 3 + usize::from(half(command, attributes + 1));
    }
    ended
}

fn ask(tpm: &mut UnixStream, command: &[u8]) -> std::io::Result<Vec<u8>> {
    tpm.write_all(command)?;
    read_frame(tpm)
}

fn read_frame(stream: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    stream.read_exact(&mut frame)?;
    frame.resize(word(&frame, 2) as usize, 0);
    stream.read_exact(&mut frame[HEADER..])?;
    Ok(frame)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn millis(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: u32 = 0x8000_0000;
    const SESSION: u32 = 0x0300_0000;

    /// A command with one session, which is used again or not.
    fn with_session(code: u32, again: bool) -> Vec<u8> {
        let session = [&SESSION.to_be_bytes()[..], &[0, 2, 7, 7, u8::from(again), 0, 1, 7]].concat();
        let size = (session.len() as u32).to_be_bytes();
        let head = [&[0x80, 2, 0, 0, 0, 0][..], &code.to_be_bytes(), &OBJECT.to_be_bytes()].concat();
        [head, size.to_vec(), session].concat()
    }

    fn answer(code: u32, handle: u32) -> Vec<u8> {
        [&[0x80, 1, 0, 0, 0, 14][..], &code.to_be_bytes(), &handle.to_be_bytes()].concat()
    }

    #[test]
    fn what_is_in_the_tpm_costs_time_around_each_command() {
        let mut space = Space::default();
        assert_eq!((space.load(), space.save()), (0.0, 0.0));
        space.follow(LOAD, &[], &answer(0x902, OBJECT));
        assert_eq!(space.load(), 0.0, "it was refused");
        space.follow(LOAD, &[], &answer(0, OBJECT));
        space.follow(START_AUTH_SESSION, &[], &answer(0, SESSION));
        assert_eq!(space.load(), OBJECT_CONTEXT + SESSION_CONTEXT);
        assert_eq!(space.save(), OBJECT_CONTEXT + PLAIN + SESSION_CONTEXT);
        space.follow(UNSEAL, &with_session(UNSEAL, true), &answer(0, 0));
        assert_eq!(space.load(), OBJECT_CONTEXT + SESSION_CONTEXT);
        space.follow(UNSEAL, &with_session(UNSEAL, false), &answer(0, 0));
        assert_eq!(space.load(), OBJECT_CONTEXT);
        space.follow(FLUSH_CONTEXT, &answer(FLUSH_CONTEXT, OBJECT), &answer(0, 0));
        assert_eq!(space.load(), 0.0);
    }

    #[test]
    fn a_program_waits_as_long_as_the_chip_takes() {
        let tpm = Swtpm::start();
        let chip = DiscreteTpm::in_front_of(&tpm).unwrap();
        let mut stream = UnixStream::connect(chip.socket()).unwrap();
        chip.take();
        // GetRandom, two bytes.
        ask(&mut stream, &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 2]).unwrap();
        let [only] = chip.take()[..] else { panic!("one command") };
        assert_eq!((only.code, only.own, only.swapping), (0x17b, millis(PLAIN), Duration::ZERO));
    }
}
