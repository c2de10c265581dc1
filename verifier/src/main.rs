//! `halfkey-verifier`: see the crate's documentation and `--help`.

use clap::Parser as _;
use halfkey_verifier::cli::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("halfkey-verifier: {e}");
            ExitCode::FAILURE
        }
    }
}
