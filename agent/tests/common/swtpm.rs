//! A real swtpm with certificates from a local CA, and tss-esapi on the same one.
//!
//! swtpm serves one connection at a time: drop the agent's [`Tpm`] before you ask
//! the oracle or a tpm2-tools program, and the other way round.
#![allow(dead_code)] // each test file uses a part

use halfkey_agent::tpm::{Location, Tpm};
use halfkey_protocol::kdf::Hash;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};
use tempfile::TempDir;
use tss_esapi::Context;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Digest, Public, Signature};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::UnMarshall;

/// One running swtpm. Killed on drop.
pub struct Swtpm {
    pub state: TempDir,
    /// swtpm's server port; the control port is the next one.
    pub port: u16,
    process: Option<i32>,
}

/// Which machine's TPM: each has its own seeds, EKs and certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    First,
    Second,
}

impl Swtpm {
    /// A fresh, started TPM with banks SHA-1, SHA-256 and SHA-384.
    pub fn start() -> Self {
        Self::of(Machine::First)
    }

    pub fn of(machine: Machine) -> Self {
        let state = folder("state");
        let manufactured = manufactured(machine).join("tpm2-00.permall");
        fs::copy(manufactured, state.path().join("tpm2-00.permall")).expect("copy the TPM's state");
        let mut swtpm = Self { state, port: 0, process: None };
        swtpm.power_on("startup-clear");
        swtpm
    }

    /// A TPM that nobody has started (TPM2_Startup).
    pub fn not_started() -> Self {
        let mut swtpm = Self::start();
        swtpm.power_off();
        swtpm.power_on("");
        swtpm
    }

    /// TPM reset: PCRs are zero again, resetCount grows.
    pub fn reboot(&mut self) {
        self.power_off();
        self.power_on("startup-clear");
    }

    pub fn power_off(&mut self) {
        if let Some(process) = self.process.take() {
            // It may have died already.
            let _ = nix::sys::signal::kill(Pid::from_raw(process), Signal::SIGKILL);
            // swtpm holds a lock on its state until it is gone.
            let lock = fs::File::options().read(true).write(true).open(self.state.path().join(".lock"));
            let lock = lock.expect("open swtpm's lock");
            let wait = nix::libc::flock {
                l_type: nix::libc::F_WRLCK as i16,
                l_whence: nix::libc::SEEK_SET as i16,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLKW(&wait)).expect("wait for swtpm to end");
        }
    }

    /// The same TPM, started anew, behind a socket in the file system.
    pub fn restart_on_unix_socket(&mut self) -> Location {
        self.power_off();
        let path = self.state.path().join("server");
        let server = format!("type=unixio,path={}", path.display());
        let control = format!("type=unixio,path={}.ctrl", path.display());
        assert!(self.launch(&server, &control, "startup-clear"), "swtpm does not start");
        Location::Unix(path)
    }

    fn power_on(&mut self, startup: &str) {
        // Two ports in a row; others may be faster, so try again with other ports.
        static PORTS: Mutex<()> = Mutex::new(());
        let _one_at_a_time = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..20 {
            self.port = free_pair();
            let (server, control) = (self.port, self.port + 1);
            if self.launch(&format!("type=tcp,port={server}"), &format!("type=tcp,port={control}"), startup) {
                return;
            }
        }
        panic!("swtpm does not start");
    }

    fn launch(&mut self, server: &str, control: &str, startup: &str) -> bool {
        let pid = self.state.path().join("pid");
        let output = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", self.state.path().display()))
            .args(["--server", server, "--ctrl", control])
            .args(["--flags", format!("not-need-init,{startup}").trim_end_matches(',')])
            .args(["--pid", &format!("file={}", pid.display()), "--daemon"])
            .output()
            .expect("run swtpm (package swtpm)");
        // With --daemon it returns when the sockets are there.
        if output.status.success() {
            let text = fs::read_to_string(&pid).expect("swtpm writes its pid");
            self.process = Some(text.trim().parse().expect("a pid"));
        }
        output.status.success()
    }

    pub fn location(&self) -> Location {
        Location::Tcp(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    pub fn open(&self) -> Tpm {
        Tpm::open(&self.location()).expect("open swtpm")
    }

    /// The oracle.
    pub fn oracle(&self) -> Context {
        let conf = format!("swtpm:host=127.0.0.1,port={}", self.port);
        Context::new(conf.parse::<TctiNameConf>().expect("a TCTI")).expect("tss-esapi connects")
    }

    /// Whether the oracle accepts this signature of the AK.
    pub fn oracle_accepts(&self, ak: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let mut oracle = self.oracle();
        let ak = Public::unmarshall(ak).expect("TPMT_PUBLIC");
        let ak = oracle.load_external_public(ak, Hierarchy::Null).expect("load the AK");
        let digest = Digest::try_from(Hash::Sha256.digest(&[message])).expect("a digest");
        let signature = Signature::unmarshall(signature).expect("TPMT_SIGNATURE");
        let accepted = oracle.verify_signature(ak, digest, signature);
        oracle.flush_context(ak.into()).expect("flush");
        accepted.is_ok()
    }

    /// Runs a program of tpm2-tools on this TPM; arguments split at spaces.
    pub fn tool(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let output = Command::new(words.next().expect("a program"))
            .args(words)
            .env("TPM2TOOLS_TCTI", format!("swtpm:host=127.0.0.1,port={}", self.port))
            .current_dir(self.state.path())
            .output()
            .expect("run tpm2-tools");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// What a tool prints.
    pub fn told(&self, line: &str) -> String {
        String::from_utf8(self.tool(line).stdout).expect("text")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
    }
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

/// swtpm wants an absolute path that nothing else touches.
fn folder(name: &str) -> TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(base).expect("cargo's folder for tests");
    let folder = tempfile::Builder::new().prefix(name).tempdir_in(base).expect("a folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("mode 0700");
    folder
}

/// The state of a TPM as it leaves the factory, made once for each test program.
fn manufactured(machine: Machine) -> PathBuf {
    static FIRST: OnceLock<PathBuf> = OnceLock::new();
    static SECOND: OnceLock<PathBuf> = OnceLock::new();
    let (cell, name) = match machine {
        Machine::First => (&FIRST, "first"),
        Machine::Second => (&SECOND, "second"),
    };
    cell.get_or_init(|| manufacture(name)).clone()
}

/// `swtpm_setup` with a CA of its own, so that no rights on /var/lib are needed.
/// Kept between runs: making the keys takes seconds.
fn manufacture(name: &str) -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("swtpm-{name}"));
    if kept.join("tpm2-00.permall").exists() {
        return kept;
    }
    let making = folder("making");
    let at = making.path().display().to_string();
    let ca = making.path().join("ca");
    fs::DirBuilder::new().mode(0o700).create(&ca).expect("a folder for the CA");
    let ca = ca.display();
    let write = |file: &str, text: String| fs::write(making.path().join(file), text).expect("write");
    write(
        "setup.conf",
        format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {at}/ca.conf\n\
             create_certs_tool_options = {at}/ca.options\nactive_pcr_banks = sha1,sha256,sha384\n"
        ),
    );
    write(
        "ca.conf",
        format!(
            "statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n\
             certserial = {ca}/certserial\n"
        ),
    );
    write(
        "ca.options",
        "--platform-manufacturer Halfkey\n--platform-version 1\n--platform-model test\n".to_owned(),
    );
    let output = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha1,sha256,sha384"])
        .args(["--tpmstate", &at, "--config", &format!("{at}/setup.conf")])
        .output()
        .expect("run swtpm_setup (package swtpm-tools)");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    // Another test program may have been faster; then its folder stays.
    match fs::rename(making.keep(), &kept) {
        Ok(()) => kept,
        Err(_) if kept.join("tpm2-00.permall").exists() => kept,
        Err(error) => panic!("keep the TPM's state: {error}"),
    }
}

/// The CA certificates (issuer, root) of [`Machine`], PEM.
pub fn roots(machine: Machine) -> Vec<Vec<u8>> {
    let ca = manufactured(machine).join("ca");
    ["issuercert.pem", "swtpm-localca-rootca-cert.pem"]
        .iter()
        .filter_map(|file| fs::read(ca.join(file)).ok())
        .collect()
}
