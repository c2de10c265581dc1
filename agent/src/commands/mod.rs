//! The commands: what each does with the rest of the agent, and how it is shown.
//!
//! | module | what |
//! | --- | --- |
//! | [`unlock`], [`report`] | the unlocking, and its report |
//! | [`fence`], [`gate`] | the ends of the boot window |
//! | [`status`] | what there is |
//! | [`propose`] | the next boot |
//!
//! `enroll` and `unbind` say all there is to say themselves.

pub mod fence;
pub mod gate;
pub mod propose;
pub mod report;
pub mod status;
pub mod unlock;

use crate::boot::cmdline::Settings;
use crate::cli::Command;
use crate::error::{Error, Result};
use crate::fence::Unconfirmed;
use crate::{boot, console, enroll, hardening, initramfs};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command line asks for.
///
/// # Errors
/// Each with its exit code ([`crate::error::Kind`]).
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Print(text) => console::print(&text),
        Command::Enroll(options) => {
            harden();
            enroll::run(&options)?;
        }
        Command::Unlock { options, json } => {
            harden();
            return Ok(unlock::run(options, json));
        }
        Command::Look => boot::looker::serve(),
        Command::Fence { tpm, passphrase, shell: None, exec } => {
            fence::run(&tpm, passphrase.as_deref(), &exec)?
        }
        Command::Fence { tpm, passphrase, shell: Some(unit), .. } => {
            fence::run(&tpm, passphrase.as_deref(), &boot::shell::command(Path::new("/"), &unit))?;
        }
        Command::Gate { tpm, exec } => gate::run(&tpm, &exec)?,
        Command::FirstLook { tpm } => gate::first_look(&tpm)?,
        Command::Status { tpm, devices, json } => {
            let status = status::collect(&tpm, &devices);
            if json { status.print_json() } else { status.print() }
        }
        Command::Image { file, json } => {
            let image = initramfs::look::look(
                &file,
                &initramfs::look::Drivers::here(),
                &initramfs::alone::Root::here(),
            )?;
            let text = if json { miniserde::json::to_string(&image) } else { image.lines().join("\n") };
            console::print(&format!("{text}\n"));
            return Ok(if image.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Removable { devices } => status::removable(&devices)?,
        Command::Propose { options, json, quiet } => return propose::run(&options, json, quiet),
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

fn or_power_off(closed: Result<()>, settings: &Settings, shell: bool) -> Result<()> {
    let Err(error) = closed else { return Ok(()) };
    match Unconfirmed::of(settings, crate::fence::must_power_off(settings), shell) {
        Unconfirmed::PowerOff => return Err(crate::fence::power_off(&error)),
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
