//! `halfkey-agent`: the command line around [`halfkey_agent`].

use halfkey_agent::{cli, commands, console};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    let result = cli::parse(args, std::env::var_os("HALFKEY_TPM")).and_then(commands::run);
    match result {
        Ok(code) => code,
        Err(error) => {
            console::complain(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}
