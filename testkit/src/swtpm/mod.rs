//! TPMs: swtpm, each with an identity of its own and EK certificates (RSA-2048 and ECC P-384) of a CA of its own.
//!
//! A TPM serves one connection at a time. [`Swtpm::command`] and tpm2-tools connect anew for each command, so they can take
//! turns with each other and with the agent.

pub mod discrete;
mod manufacturer;

pub use manufacturer::Manufacturer;

use crate::error::{Context, Result};
use crate::log::{NO_ACTION, Record};
use crate::process::{Guard, run};
use crate::programs;
use crate::reaper;
use halfkey_protocol::tpm::bank::PcrBank;
use manufacturer::Identity;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A TPM; it may be on or off. Goes off when this is dropped.
pub struct Swtpm {
    /// Its state, sockets, and what tpm2-tools write.
    folder: TempDir,
    /// The TCP port, if it is not behind a socket in the file system. Its control channel is the port after it.
    port: Option<u16>,
    running: Option<Pid>,
    identity: Option<Identity>,
}

impl Swtpm {
    /// A TPM with banks SHA-1, SHA-256 and SHA-384, powered on and started, behind a socket in the file system. No other TPM of
    /// this test program has its identity while it lives.
    pub fn start() -> Self {
        let mut tpm = Self::off();
        tpm.power_on().unwrap();
        tpm
    }

    /// The same behind a TCP port.
    pub fn on_port() -> Self {
        let mut tpm = Self::off();
        tpm.port = Some(0);
        tpm.power_on().unwrap();
        tpm
    }

    /// One that is not powered on yet.
    pub fn off() -> Self {
        let identity = Identity::take();
        let folder = folder();
        fs::create_dir(folder.path().join("state")).unwrap();
        let state = folder.path().join("state").join(STATE);
        fs::copy(identity.folder().join(STATE), state).unwrap();
        std::os::unix::fs::symlink(identity.folder().join("ca"), folder.path().join("ca")).unwrap();
        Self { folder, port: None, running: None, identity: Some(identity) }
    }

    /// Another machine's TPM with a copy of what this one has in its NV memory, powered on.
    pub fn copied(&self) -> Self {
        let folder = folder();
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::copy(self.path("state").join(STATE), folder.path().join("state").join(STATE)).unwrap();
        std::os::unix::fs::symlink(self.path("ca"), folder.path().join("ca")).unwrap();
        let mut tpm = Self { folder, port: self.port, running: None, identity: None };
        tpm.power_on().unwrap();
        tpm
    }

    /// Switches it on, as firmware does: PCRs are zero, resetCount has grown.
    ///
    /// # Errors
    /// If swtpm does not start.
    pub fn power_on(&mut self) -> Result<()> {
        self.switch_on("not-need-init,startup-clear")
    }

    /// The same without TPM2_Startup.
    ///
    /// # Errors
    /// If swtpm does not start.
    pub fn power_on_unstarted(&mut self) -> Result<()> {
        self.switch_on("not-need-init")
    }

    fn switch_on(&mut self, flags: &str) -> Result<()> {
        self.power_off();
        if self.port.is_none() {
            // tpm2-tools look for the control channel there.
            let (socket, control) = (self.path("tpm.sock"), self.path("tpm.sock.ctrl"));
            for path in [&socket, &control] {
                // Left by the last time it was on.
                let _ = fs::remove_file(path);
            }
            let server = format!("type=unixio,path={}", socket.display());
            let control = format!("type=unixio,path={}", control.display());
            return self.launch(&server, &control, flags);
        }
        // Two ports in a row; others may be faster, so try again with other ports.
        static PORTS: Mutex<()> = Mutex::new(());
        let _one_at_a_time = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = Ok(());
        for _ in 0..20 {
            let port = free_pair();
            self.port = Some(port);
            let (server, control) = (format!("type=tcp,port={port}"), format!("type=tcp,port={}", port + 1));
            last = self.launch(&server, &control, flags);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn launch(&mut self, server: &str, control: &str, flags: &str) -> Result<()> {
        let pid = self.path("pid");
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--server", server, "--ctrl", control, "--flags", flags]);
        command.args(["--tpmstate", &format!("dir={},mode=0600", self.path("state").display())]);
        // The TSS of another test leaves its sockets open over an exec: held by this TPM, a connection to that one would never end.
        // SAFETY: close_range is a system call and nothing else, as it must be between fork and exec; it takes no memory of ours.
        unsafe {
            command.pre_exec(|| {
                match libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        // With --daemon it returns when the sockets are there.
        run(command.args(["--daemon", "--pid", &format!("file={}", pid.display())]))?;
        let text = fs::read_to_string(&pid).context("swtpm has not written its pid")?;
        self.running = Some(Pid::from_raw(text.trim().parse().context("swtpm's pid")?));
        Ok(())
    }

    /// A power cut, if it is on.
    pub fn power_off(&mut self) {
        let Some(process) = self.running.take() else { return };
        // It may have died already.
        let _ = kill(process, Signal::SIGKILL);
        // swtpm holds a lock on its state until it is gone.
        let Ok(lock) = fs::File::options().read(true).write(true).open(self.path("state/.lock")) else {
            return;
        };
        let wait = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        let _ = nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLKW(&wait));
    }

    /// A power cut, and on again.
    pub fn reboot(&mut self) {
        self.power_on().unwrap();
    }

    /// An orderly reboot: TPM2_Shutdown, reset, TPM2_Startup.
    pub fn reset(&self) {
        const CLEAR: u8 = 0;
        self.started_after(CLEAR);
    }

    /// The power was cut while the machine was suspended, and is there again: TPM2_Shutdown(STATE), reset, TPM2_Startup(CLEAR). PCRs are
    /// zero, resetCount stays.
    pub fn restart(&self) {
        const STATE: u8 = 1;
        self.started_after(STATE);
    }

    fn started_after(&self, shutdown: u8) {
        let shutdown: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, shutdown];
        const STARTUP: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
        /// CMD_INIT of the control channel, without flags.
        const INIT: [u8; 8] = [0, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(self.command(&shutdown)[6..], [0; 4]);
        let mut answer = [0xff; 4];
        match self.port {
            None => {
                let mut control = UnixStream::connect(self.path("tpm.sock.ctrl")).unwrap();
                control.write_all(&INIT).unwrap();
                control.read_exact(&mut answer).unwrap();
            }
            Some(port) => {
                let mut control = TcpStream::connect(("127.0.0.1", port + 1)).unwrap();
                control.write_all(&INIT).unwrap();
                control.read_exact(&mut answer).unwrap();
            }
        }
        assert_eq!(answer, [0; 4], "swtpm does not reset");
        assert_eq!(self.command(&STARTUP)[6..], [0; 4]);
    }

    /// One command, whole, as it crosses the bus; gives the answer.
    pub fn command(&self, command: &[u8]) -> Vec<u8> {
        fn exchange(mut stream: impl Read + Write, command: &[u8]) -> std::io::Result<Vec<u8>> {
            stream.write_all(command)?;
            let mut answer = vec![0; 10];
            stream.read_exact(&mut answer)?;
            let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
            answer.resize(size, 0);
            stream.read_exact(&mut answer[10..])?;
            Ok(answer)
        }
        match self.port {
            None => exchange(UnixStream::connect(self.path("tpm.sock")).unwrap(), command).unwrap(),
            Some(port) => exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), command).unwrap(),
        }
    }

    /// From the next time it is powered on it has these banks, as tpm2_pcrallocate names them.
    pub fn allocate_banks(&self, banks: &str) {
        self.tool("tpm2_pcrallocate", &[banks]);
    }

    /// Extends a PCR of each of these banks.
    pub fn extend(&self, pcr: u8, digests: &[(PcrBank, Vec<u8>)]) {
        let mut extend = vec![0x80, 2, 0, 0, 0, 0, 0, 0, 1, 0x82, 0, 0, 0, pcr];
        // An empty password.
        extend.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
        extend.extend((digests.len() as u32).to_be_bytes());
        for (bank, digest) in digests {
            extend.extend(bank.alg().to_be_bytes());
            extend.extend(digest);
        }
        let size = (extend.len() as u32).to_be_bytes();
        extend[2..6].copy_from_slice(&size);
        assert_eq!(self.command(&extend)[6..10], [0; 4], "TPM2_PCR_Extend");
    }

    /// Extends a PCR of the banks SHA-256 and SHA-384 with the digests of `data`.
    pub fn measure(&self, pcr: u8, data: &[u8]) {
        self.extend(pcr, &PcrBank::ALL.map(|bank| (bank, bank.digest(&[data]))));
    }

    /// Extends these banks with what a log says.
    pub fn replay(&self, records: &[Record], banks: &[PcrBank]) {
        for record in records.iter().filter(|record| record.kind != NO_ACTION) {
            let digests: Vec<_> =
                banks.iter().filter_map(|bank| Some((*bank, record.digest_in(*bank)?))).collect();
            self.extend(record.pcr as u8, &digests);
        }
    }

    /// The TCP port.
    ///
    /// # Panics
    /// If it is behind a socket in the file system.
    pub fn port(&self) -> u16 {
        self.port.expect("a TPM behind a port")
    }

    /// Moves it behind a socket in the file system, which takes a power cut; gives the socket.
    pub fn move_to_socket(&mut self) -> PathBuf {
        self.power_off();
        self.port = None;
        self.power_on().unwrap();
        self.path("tpm.sock")
    }

    /// For the agent: `HALFKEY_TPM` or `--tpm`.
    pub fn location(&self) -> String {
        match self.port {
            None => format!("swtpm:unix:{}", self.path("tpm.sock").display()),
            Some(port) => format!("swtpm:127.0.0.1:{port}"),
        }
    }

    /// For tpm2-tools: `TPM2TOOLS_TCTI`.
    pub fn tcti(&self) -> String {
        match self.port {
            None => format!("swtpm:path={}", self.path("tpm.sock").display()),
            Some(port) => format!("swtpm:host=127.0.0.1,port={port}"),
        }
    }

    /// One of tpm2-tools on this TPM, ready to run in its folder.
    pub fn tool_command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(name);
        command.args(args).current_dir(self.folder.path()).env("TPM2TOOLS_TCTI", self.tcti());
        command
    }

    /// Runs one of tpm2-tools; gives what it prints.
    pub fn tool(&self, name: &str, args: &[&str]) -> String {
        run(&mut self.tool_command(name, args)).unwrap()
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What one of tpm2-tools wrote there.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The folder of the CA that certified its EKs: `issuercert.pem`, `swtpm-localca-rootca-cert.pem`, and private keys.
    pub fn ca(&self) -> PathBuf {
        self.path("ca")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
        // Not before it is off: then another may have its identity.
        self.identity = None;
    }
}

/// What swtpm keeps.
const STATE: &str = "tpm2-00.permall";

/// swtpm wants an absolute path that nothing else touches.
fn folder() -> TempDir {
    let base = programs::target().join("tmp");
    fs::create_dir_all(&base).unwrap();
    let folder = tempfile::Builder::new().prefix("tpm").tempdir_in(base).unwrap();
    reaper::remove_with_me(folder.path());
    folder
}

/// Two free ports in a row.
fn free_pair() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// Starts the TPM whose state is `state` for QEMU. It ends with the machine.
///
/// # Errors
/// If swtpm does not come up.
pub fn for_machine(state: &Path, socket: &Path, log: &Path) -> Result<Guard> {
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
    command.arg(format!("dir={},mode=0600", state.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
    command.arg("--log").arg(format!("file={},level=1", log.display()));
    let mut guard = Guard::start("swtpm", &mut command, log)?;
    let end = Instant::now() + Duration::from_secs(60);
    while !socket.exists() {
        if let Some(status) = guard.exited()? {
            let tail = crate::process::tail_of(log, 5);
            return Err(format!("swtpm ended at once ({status}):\n{tail}").into());
        }
        if Instant::now() > end {
            return Err(format!("swtpm made no socket {}", socket.display()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(guard)
}
