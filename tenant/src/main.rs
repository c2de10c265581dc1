//! `halfkey`

use anstream::eprintln;
use clap::Parser;
use halfkey::cli::Cli;
use halfkey::commands;
use halfkey::error::Exit;
use halfkey::render::text::clean_lines;
use owo_colors::OwoColorize;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(error) = commands::run(Cli::parse()) else { return ExitCode::SUCCESS };
    if error.exit != Exit::Done {
        // Parts of it come from a server, a node or a file, whoever put them together.
        eprintln!("{} {}", "error:".red().bold(), clean_lines(&error.message));
        if let Some(hint) = &error.hint {
            eprintln!("{} {}", "hint:".cyan(), clean_lines(hint));
        }
    }
    ExitCode::from(error.exit as u8)
}
