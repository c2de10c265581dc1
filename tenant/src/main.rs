//! `halfkey`

use anstream::eprintln;
use clap::Parser;
use halfkey::cli::Cli;
use halfkey::commands;
use halfkey::error::Exit;
use owo_colors::OwoColorize;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(error) = commands::run(Cli::parse()) else { return ExitCode::SUCCESS };
    if error.exit != Exit::Done {
        eprintln!("{} {error}", "error:".red().bold());
        if let Some(hint) = &error.hint {
            eprintln!("{} {hint}", "hint:".cyan());
        }
    }
    ExitCode::from(error.exit as u8)
}
