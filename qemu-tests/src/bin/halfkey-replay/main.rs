//! `halfkey-replay`: what the real agent and a real verifier make of a boot of which somebody has the firmware's log.
//!
//! The log is extended into a fresh software TPM and shown to the agent in a mount namespace; see `halfkey_testkit::local_lab`.

mod captured;

use captured::Captured;
use halfkey_testkit::error::Context as _;
use halfkey_testkit::local_lab::LocalLab;
use halfkey_testkit::process::{self, Guard};
use halfkey_testkit::programs::Programs;
use halfkey_testkit::{Error, Result};
use lexopt::prelude::*;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
usage: halfkey-replay [--policy FILE] LOG [-- FLAG OF halfkey policy learn]...

Shows what agent and verifier make of a boot, without that machine: LOG is a copy of
/sys/kernel/security/tpm0/binary_bios_measurements. Where they are beside it, NAME.cmdline (a copy of
/proc/cmdline) and NAME.tpm2-measure.log (of /run/log/systemd/tpm2-measure.log) are used, too.

A software TPM is extended with what LOG says and enrolled; the agent unlocks a volume in a file. Without
--policy, a policy is learned from this boot, shown, and applied. With --policy, that one decides. Last comes
how each event was judged. The exit code is 0 if the boot was released, 1 if not.

environment: HALFKEY_AGENT, HALFKEY_VERIFIER, HALFKEY_TENANT (programs, else cargo builds them)
";

struct Arguments {
    log: PathBuf,
    policy: Option<PathBuf>,
    /// For `halfkey policy learn`.
    learn: Vec<String>,
}

fn main() -> ExitCode {
    match parse().and_then(|asked| asked.map_or(Ok(true), |asked| replay(&asked))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// None if help was asked for, and given.
fn parse() -> Result<Option<Arguments>> {
    let wrong = |error: lexopt::Error| Error::new(format!("{error}\nhint: halfkey-replay --help"));
    let mut parser = lexopt::Parser::from_env();
    let (mut log, mut policy, mut learn) = (None, None, Vec::new());
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Long("policy") => policy = Some(PathBuf::from(parser.value().map_err(wrong)?)),
            Value(path) if log.is_none() => log = Some(PathBuf::from(path)),
            Value(flag) => learn.push(flag.to_string_lossy().into_owned()),
            other => return Err(wrong(other.unexpected())),
        }
    }
    let log = log.ok_or("expected a firmware event log, found none\nhint: halfkey-replay --help")?;
    Ok(Some(Arguments { log, policy, learn }))
}

/// Whether it was released.
fn replay(asked: &Arguments) -> Result<bool> {
    let boot = Captured::read(&asked.log)?;
    println!("boot: {}, {} events", asked.log.display(), boot.events);
    boot.notes.iter().for_each(|note| println!("note: {note}"));
    let folder = tempfile::tempdir().context("no folder for the lab")?;
    let mut lab = LocalLab::new(Programs::find()?, folder.path())?;
    let node = lab.enroll(&["root"])?;
    boot.replay(&mut lab)?;

    let (said, released) = match &asked.policy {
        Some(policy) => {
            if !halfkey(&lab, &["policy", "apply", named(policy)?, "--node", &node, "--yes"])? {
                return Ok(false);
            }
            ended(unlock(&lab)?, &lab)?
        }
        None => {
            let agent = waiting(&lab, &node)?;
            let policy = folder.path().join("learned.toml");
            let flags: Vec<&str> = asked.learn.iter().map(String::as_str).collect();
            if !halfkey(&lab, &[&["policy", "learn", &node, "-o", named(&policy)?], &flags[..]].concat())? {
                return Ok(false);
            }
            shown("the policy", &std::fs::read_to_string(&policy).context("can't read what was learned")?);
            if !halfkey(&lab, &["policy", "apply", named(&policy)?, "--node", &node, "--yes"])? {
                return Ok(false);
            }
            ended(agent, &lab)?
        }
    };
    shown("halfkey-agent unlock", &said);
    halfkey(&lab, &["policy", "explain", &node])?;
    println!("\n{}", if released { "released" } else { "not released" });
    Ok(released)
}

/// The agent, which unlocks.
fn unlock(lab: &LocalLab) -> Result<Guard> {
    let mut agent = lab.agent(&["unlock", "--dry-run", "--timeout", "60", "--device"]);
    Guard::start("halfkey-agent", agent.arg(lab.device("root")), &said(lab))
}

/// The same, once the verifier has this boot and waits for an operator.
fn waiting(lab: &LocalLab, node: &str) -> Result<Guard> {
    let mut agent = unlock(lab)?;
    while lab.tenant.node(node)?.pending.is_none() {
        if agent.exited()?.is_some() {
            let said = process::tail_of(&said(lab), 15);
            return Err(format!("the agent does not wait for an operator:\n{said}").into());
        }
    }
    Ok(agent)
}

/// What the agent said, and whether it would have opened the volume.
fn ended(mut agent: Guard, lab: &LocalLab) -> Result<(String, bool)> {
    let status = agent.wait(Duration::from_secs(90))?;
    Ok((std::fs::read_to_string(said(lab)).context("can't read what the agent said")?, status.success()))
}

/// Where the agent's words go.
fn said(lab: &LocalLab) -> PathBuf {
    lab.folder.join("agent.log")
}

/// Runs the operator's command and shows what it says; false if it fails.
fn halfkey(lab: &LocalLab, args: &[&str]) -> Result<bool> {
    let (code, said) = lab.tenant.try_run(args)?;
    shown(&format!("halfkey {}", args[..2].join(" ")), &said);
    Ok(code == 0)
}

fn named(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::new(format!("{} is no text", path.display())))
}

fn shown(who: &str, said: &str) {
    println!("\n{who}:");
    said.trim_end().lines().for_each(|line| println!("    {line}"));
}
