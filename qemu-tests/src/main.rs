//! `halfkey-qemu-tests`: the scenarios and the demo.

use halfkey_qemu_tests::paths::Paths;
use halfkey_qemu_tests::scenarios::{self, Scenario};
use halfkey_qemu_tests::{Error, Result, report};
use lexopt::prelude::*;
use std::process::ExitCode;

const HELP: &str = "\
usage: halfkey-qemu-tests list
       halfkey-qemu-tests run [NAME | NUMBER | all]...
       halfkey-qemu-tests demo

Boots real images under OVMF with swtpm and LUKS2. `run` prints one line per scenario; `demo`
tells 1, 2, 4 and 6 step by step.

environment: HALFKEY_AGENT, HALFKEY_VERIFIER, HALFKEY_TENANT (programs, else those of `make dist`),
HALFKEY_QEMU_ACCEL=kvm|tcg, HALFKEY_QEMU_CACHE, HALFKEY_QEMU_RUN (folders)
";

/// What `demo` tells.
const DEMO: &[u32] = &[1, 2, 4, 6];

enum Command {
    Help,
    List,
    Run(Vec<&'static Scenario>),
    Demo,
}

fn main() -> ExitCode {
    match parse().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Help => print!("{HELP}"),
        Command::List => {
            for Scenario { number, name, title, .. } in scenarios::ALL {
                println!("{number:>2} {name:<13} {title}");
            }
        }
        Command::Run(scenarios) => return report::run(Paths::find()?, &scenarios),
        Command::Demo => {
            let told = scenarios::ALL.iter().filter(|scenario| DEMO.contains(&scenario.number));
            return report::demo(Paths::find()?, &told.collect::<Vec<_>>());
        }
    }
    Ok(true)
}

fn parse() -> Result<Command> {
    let mut parser = lexopt::Parser::from_env();
    let mut words = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| Error::new(error.to_string()))? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(Error::new(other.unexpected().to_string())),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => Ok(Command::List),
        ["demo"] => Ok(Command::Demo),
        ["run"] | ["run", "all"] => Ok(Command::Run(scenarios::ALL.iter().collect())),
        ["run", names @ ..] => {
            let find = |name: &&str| {
                let hint = "hint: halfkey-qemu-tests list";
                scenarios::find(name)
                    .ok_or_else(|| Error::new(format!("there is no scenario {name:?}\n{hint}")))
            };
            names.iter().map(find).collect::<Result<_>>().map(Command::Run)
        }
        _ => Ok(Command::Help),
    }
}
