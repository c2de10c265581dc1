//! `propose`: what is said of it.

use crate::console;
use crate::error::{Kind, Result};
use crate::propose;
use std::process::ExitCode;

/// Proposes; `quiet`: a machine that is not enrolled is nothing to speak of.
///
/// # Errors
/// As [`propose::run`].
pub fn run(options: &propose::Options, json: bool, quiet: bool) -> Result<ExitCode> {
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
