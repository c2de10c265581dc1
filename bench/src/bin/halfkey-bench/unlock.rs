//! From "the program starts" to "the key is there": one unlocking without opening the volume,
//! next to Clevis with its two pins, each against the same TPM or a server on loopback.

use crate::discrete;
use crate::run::{self, Cost, Result};
use halfkey_qemu_tests::local_lab::{LocalLab, text};
use halfkey_qemu_tests::paths::Paths;
use halfkey_qemu_tests::process::{Guard, run_with_input};
use halfkey_testkit::port::HeldPort;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What was measured.
pub struct Costs {
    /// `halfkey-agent unlock --dry-run`
    pub halfkey: Cost,
    /// `clevis decrypt`, pin tpm2
    pub clevis_tpm2: Cost,
    /// `clevis decrypt`, pin tang
    pub clevis_tang: Cost,
    /// With a discrete TPM.
    pub discrete: discrete::Costs,
    /// Resident memory of the agent at its highest, in KiB.
    pub agent_rss: u64,
    /// Resident memory of the verifier after all this, in KiB.
    pub verifier_rss: u64,
}

/// Enrolls a node in `dir` and measures.
pub fn measure(dir: &Path, paths: Paths) -> Result<Costs> {
    let mut node = LocalLab::new(paths.programs, &dir.join("node"))?;
    approved(&mut node)?;
    let tcti = node.tpm.tcti();

    let secret = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let tang = Tang::start(dir)?;
    let encrypt = |pin: &str, config: &str| -> Result<PathBuf> {
        let mut clevis = Command::new("clevis");
        clevis.args(["encrypt", pin, config, "-y"]).env("TPM2TOOLS_TCTI", &tcti);
        let jwe = run_with_input(&mut clevis, secret)?;
        let path = dir.join(format!("{pin}.jwe"));
        std::fs::write(&path, jwe)?;
        Ok(path)
    };
    let tpm2_jwe = encrypt("tpm2", "{}")?;
    let tang_jwe = encrypt("tang", &format!("{{\"url\":\"{}\"}}", tang.url))?;
    let decrypt = |jwe: &Path, tcti: &str| {
        // The shell opens the file: the command runs many times, a standard input only once.
        let mut clevis = Command::new("sh");
        clevis.args(["-c", "exec clevis decrypt < \"$0\""]).arg(jwe).env("TPM2TOOLS_TCTI", tcti);
        clevis
    };
    let costs = run::compare(&mut [
        ("unlock --dry-run", Box::new(|| node.unlock(&["root"]))),
        ("clevis decrypt tpm2", Box::new(|| decrypt(&tpm2_jwe, &tcti))),
        ("clevis decrypt tang", Box::new(|| decrypt(&tang_jwe, &tcti))),
    ])?;
    Ok(Costs {
        halfkey: costs[0],
        clevis_tpm2: costs[1],
        clevis_tang: costs[2],
        discrete: discrete::measure(&node, |tcti| decrypt(&tpm2_jwe, tcti))?,
        agent_rss: peak_rss(&mut node.unlock(&["root"]))?,
        verifier_rss: rss(node.verifier.pid().ok_or("the verifier does not run")?)?,
    })
}

/// Enrolls, and approves the boot that is measured.
fn approved(node: &mut LocalLab) -> Result<()> {
    let id = node.enroll(&["root"])?;
    let pending = node.unlock(&["root"]).args(["--timeout", "1"]).output()?;
    if node.tenant.node(&id)?.pending.is_none() {
        return Err(format!("the first boot was expected to be pending:\n{}", text(&pending)).into());
    }
    node.tenant.run(&["approve", &id, "--yes"])?;
    let output = node.unlock_now(&["root"])?;
    if !output.status.success() {
        return Err(format!("the approved boot was expected to unlock:\n{}", text(&output)).into());
    }
    Ok(())
}

/// A tang server on loopback.
struct Tang {
    url: String,
    _server: Guard,
    _port: HeldPort,
}

impl Tang {
    fn start(dir: &Path) -> Result<Self> {
        let keys = dir.join("tang");
        std::fs::create_dir_all(&keys)?;
        run::quiet(Command::new("/usr/libexec/tangd-keygen").arg(&keys))?;
        let held = HeldPort::new();
        let port = held.number();
        // As its socket unit does: a process for each connection.
        let mut socat = Command::new("socat");
        socat.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"));
        socat.arg(format!("EXEC:/usr/libexec/tangd {}", keys.display()));
        let server = Guard::start("socat", &mut socat, &dir.join("tang.log"))?;
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                return Err("tang does not listen".into());
            }
            // Nothing tells when socat listens.
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _server: server, _port: held })
    }
}

/// Highest resident set of one run, in KiB, as the kernel accounts it. The agent's own
/// children (cryptsetup) are processes of their own and not counted.
fn peak_rss(command: &mut Command) -> Result<u64> {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    let mut child = timed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().ok_or("stderr is piped")?;
    let last = BufReader::new(stderr).lines().map_while(std::result::Result::ok).last();
    child.wait()?;
    Ok(last.ok_or("time printed nothing")?.trim().parse()?)
}

fn rss(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
