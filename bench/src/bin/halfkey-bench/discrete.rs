//! The same unlockings on a TPM that takes as long as a chip does: there it is the TPM that decides how long a boot waits.
//!
//! A machine's network comes up while its initramfs runs already. What the agent has the TPM do until then costs nothing; what
//! counts is the time from the network's being up to the key. Clevis's pin needs no network: all of it counts.

use crate::run::{Result, quiet};
use halfkey_testkit::local_lab::{LocalLab, text};
use halfkey_testkit::swtpm::discrete::{DiscreteTpm, MEASURED, Timed, name};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// From the agent's start to an address by DHCP, as systemd-networkd takes in the virtual machines and on hardware at least.
const NETWORK: Duration = Duration::from_secs(3);
/// The chip's time is the same in each; the machine's is less than a tenth of it.
const ROUNDS: usize = 5;

/// What was measured of one of them, the median of several rounds.
#[derive(Clone)]
pub struct Cost {
    /// Wall time that a boot waits.
    pub waits: Duration,
    /// The TPM's commands in that time.
    pub commands: Vec<Timed>,
}

/// What was measured.
pub struct Costs {
    /// `unlock --dry-run`, from the network's being up.
    pub halfkey: Cost,
    /// What it had the TPM do before that.
    pub prepared: Vec<Timed>,
    /// The same where the network is up when the agent starts: all of it.
    pub at_once: Cost,
    /// `clevis decrypt`, pin tpm2.
    pub clevis: Cost,
}

impl Cost {
    /// What the chip takes of it.
    pub fn chip(&self) -> Duration {
        busy(&self.commands)
    }
}

/// The time of these commands.
fn busy(commands: &[Timed]) -> Duration {
    commands.iter().map(|command| command.own + command.swapping).sum()
}

/// `node` is enrolled and its boot approved; `clevis` makes the command that decrypts, given `TPM2TOOLS_TCTI`.
pub fn measure(node: &LocalLab, clevis: impl Fn(&str) -> Command) -> Result<Costs> {
    let chip = DiscreteTpm::in_front_of(&node.tpm)?;
    let (mut late, mut at_once, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    let mut prepared = Vec::new();
    for _ in 0..ROUNDS {
        let (before, cost) = with_late_network(node, &chip)?;
        prepared = before;
        late.push(cost);
        at_once.push(timed(&chip, &mut node.unlock_on(&chip.location(), &["root"]))?);
        peer.push(timed(&chip, &mut clevis(&chip.tcti()))?);
    }
    Ok(Costs { halfkey: median(late), prepared, at_once: median(at_once), clevis: median(peer) })
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.waits);
    costs.swap_remove(costs.len() / 2)
}

fn timed(chip: &DiscreteTpm, command: &mut Command) -> Result<Cost> {
    chip.take();
    let start = Instant::now();
    quiet(command)?;
    Ok(Cost { waits: start.elapsed(), commands: chip.take() })
}

/// The verifier stands still until the network is up: connections to it are made, and nobody answers.
fn with_late_network(node: &LocalLab, chip: &DiscreteTpm) -> Result<(Vec<Timed>, Cost)> {
    let verifier = Stopped::new(node)?;
    chip.take();
    let mut agent = node.unlock_on(&chip.location(), &["root"]);
    let agent = agent.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(NETWORK);
    let prepared = chip.take();
    let start = Instant::now();
    drop(verifier);
    let output = agent.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the agent was expected to unlock:\n{}", text(&output)).into());
    }
    Ok((prepared, Cost { waits: start.elapsed(), commands: chip.take() }))
}

/// A verifier that does nothing as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(node: &LocalLab) -> Result<Self> {
        let pid = node.verifier.pid().ok_or("the verifier does not run")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // If it has ended, whoever needs it says so.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Milliseconds with one digit.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// For people: the table of the chip, and what each of them has it do.
pub fn print(costs: &Costs) {
    println!("a discrete TPM, as slow as an Infineon SLB 9670 (wolfTPM's published bench)   milliseconds");
    for (what, takes) in MEASURED {
        println!("  {what:<62} {takes:>23.1}");
    }
    println!();
    println!("to the key with it (median of {ROUNDS})         milliseconds   commands   of that the chip");
    for (what, cost) in [
        ("halfkey unlock --dry-run, from network up", &costs.halfkey),
        ("the same, network up at its start", &costs.at_once),
        ("clevis decrypt, tpm2", &costs.clevis),
    ] {
        let (waits, chip) = (ms(cost.waits), ms(cost.chip()));
        println!("  {what:<41} {waits:>12.1} {:>10} {chip:>18.1}", cost.commands.len());
    }
    println!("  before the network: {}", said(&costs.prepared));
    println!("  from then on:       {}", said(&costs.halfkey.commands));
    println!("  clevis:             {}", said(&costs.clevis.commands));
}

/// Each command with its time and, behind a plus, the resource manager's.
fn said(commands: &[Timed]) -> String {
    let one = |command: &Timed| {
        let (own, swapping) = (command.own.as_millis(), command.swapping.as_millis());
        format!("{} {own}+{swapping}", name(command.code))
    };
    commands.iter().map(one).collect::<Vec<_>>().join(", ")
}
