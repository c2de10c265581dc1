//! `halfkey-agent`: the command line around [`halfkey_agent`].

use halfkey_agent::boot::cmdline::Settings;
use halfkey_agent::boot::{gate, unlock, way_out};
use halfkey_agent::cli::{self, Command};
use halfkey_agent::error::{Error, Kind, Result};
use halfkey_agent::fence::Unconfirmed;
use halfkey_agent::tpm::Location;
use halfkey_agent::{console, enroll, fence, hardening, propose, report, status};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    let result = cli::parse(args, std::env::var_os("HALFKEY_TPM")).and_then(run);
    match result {
        Ok(code) => code,
        Err(error) => {
            console::complain(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Print(text) => console::print(text),
        Command::Enroll(options) => {
            harden();
            enroll::run(&options)?;
        }
        Command::Unlock { options, json } => {
            harden();
            return Ok(run_unlock(options, json));
        }
        Command::Fence { tpm, passphrase, exec } => run_fence(&tpm, passphrase.as_deref(), &exec)?,
        Command::Gate { tpm, exec } => run_gate(&tpm, &exec)?,
        Command::FirstLook { tpm } => gate::first_look(&tpm, &Settings::of_this_boot())?,
        Command::Status { tpm, devices, json } => {
            let status = status::collect(&tpm, &devices);
            if json { status.print_json() } else { status.print() }
        }
        Command::Propose { options, json, quiet } => return run_propose(&options, json, quiet),
        Command::Unbind { devices, key_file } => {
            harden();
            for device in &devices {
                enroll::bind::unbind(device, key_file.as_deref())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn harden() {
    if let Some(warning) = hardening::harden() {
        console::say(&warning);
    }
}

fn run_unlock(options: unlock::Options, json: bool) -> ExitCode {
    let settings = Settings::of_this_boot();
    let dry_run = options.dry_run;
    if settings.off && !dry_run {
        console::say("rd.halfkey=off: the volumes ask for their passphrases");
        if let Err(error) = fence::ensure_closed(&options.tpm) {
            console::complain(&error);
        }
        return ExitCode::SUCCESS;
    }
    let mut unlock = unlock::Unlock::new(options, settings);
    let result = unlock.run();
    if json {
        report::print_json(&unlock, &result);
    } else if dry_run {
        report::print(&unlock, &result);
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Unless dry, the unlocking said it before it closed the fence.
            if dry_run {
                console::complain(&error);
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn run_propose(options: &propose::Options, json: bool, quiet: bool) -> Result<ExitCode> {
    match propose::run(options) {
        Ok(report) => {
            if json {
                report.print_json()
            } else {
                report.print()
            }
            Ok(ExitCode::from(report.exit_code()))
        }
        Err(error) if quiet && error.kind == Kind::NotEnrolled => Ok(ExitCode::SUCCESS),
        Err(error) => {
            if error.kind != Kind::NotEnrolled {
                console::say(propose::CONSEQUENCE);
            }
            Err(error)
        }
    }
}

/// Checks the mounted root. With `exec`, the boot window ends here, also where nothing was enrolled.
fn run_gate(tpm: &Location, exec: &[OsString]) -> Result<()> {
    let settings = Settings::of_this_boot();
    if !exec.is_empty() {
        or_power_off(fence::ensure_closed(tpm).map(drop), &settings, true)?;
    }
    gate::run(tpm, &settings)?;
    exec_into(exec)
}

/// Closes the fence, and what was opened if somebody is about to get a prompt or, as `exec`, a shell;
/// then becomes `exec`. A machine without a TPM has nothing to close, and a shell that someone needs
/// must come.
fn run_fence(tpm: &Location, passphrase: Option<&str>, exec: &[OsString]) -> Result<()> {
    let settings = Settings::of_this_boot();
    let closed = match passphrase {
        Some(mapping) => way_out::before_passphrase(tpm, &settings, mapping),
        None if exec.is_empty() => {
            let _alone = way_out::alone();
            fence::ensure_closed(tpm).map(drop)
        }
        None => way_out::before_shell(tpm, &settings),
    };
    or_power_off(closed, &settings, !exec.is_empty())?;
    exec_into(exec)
}

fn or_power_off(closed: Result<()>, settings: &Settings, shell: bool) -> Result<()> {
    let Err(error) = closed else { return Ok(()) };
    match Unconfirmed::of(settings, fence::must_power_off(settings), shell) {
        Unconfirmed::PowerOff => return Err(fence::power_off(&error)),
        Unconfirmed::Fail => return Err(error),
        Unconfirmed::GoOn => console::complain(&error),
    }
    Ok(())
}

fn exec_into(exec: &[OsString]) -> Result<()> {
    match exec.split_first() {
        None => Ok(()),
        Some((program, args)) => {
            let failed = std::process::Command::new(program).args(args).exec();
            Err(Error::system(program.to_string_lossy(), failed))
        }
    }
}
