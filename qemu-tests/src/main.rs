//! `halfkey-qemu-tests`: the scenarios and the demo.

use halfkey_qemu_tests::image::distribution::{self, Distribution};
use halfkey_qemu_tests::paths::Paths;
use halfkey_qemu_tests::scenarios::{self, Group, Scenario};
use halfkey_qemu_tests::{Error, Result, record, report};
use lexopt::prelude::*;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
usage: halfkey-qemu-tests list
       halfkey-qemu-tests run [--on DISTRIBUTION] [--jobs N] [NAME | NUMBER | all]...
       halfkey-qemu-tests demo [--on DISTRIBUTION]
       halfkey-qemu-tests record [--on DISTRIBUTION] [--jobs N] FOLDER [BOOTPATH]...

Boots real images under OVMF with swtpm and LUKS2. `run` prints one line per scenario; scenarios
about different machines run at the same time, as many as there are processors or N. `demo` tells
1, 2, 4 and 6 step by step. `record` boots each boot path once and writes what was measured to FOLDER:
NAME.bin (the firmware's log), NAME.pcrs (SHA-256 bank, at the attestation), NAME.cmdline.
Machines run debian12, or what --on says: debian13.

environment: HALFKEY_AGENT, HALFKEY_VERIFIER, HALFKEY_TENANT (programs, else those of `make dist`),
HALFKEY_QEMU_ACCEL=kvm|tcg, HALFKEY_QEMU_CACHE, HALFKEY_QEMU_RUN (folders)
";

/// What `demo` tells.
const DEMO: &[u32] = &[1, 2, 4, 6];

enum Command {
    Help,
    List,
    Run(Vec<&'static Scenario>, usize),
    Record(PathBuf, Vec<Group>, usize),
    Demo,
}

fn main() -> ExitCode {
    match parse().and_then(|(command, on)| run(command, on)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, on: &'static Distribution) -> Result<bool> {
    match command {
        Command::Help => print!("{HELP}"),
        Command::List => {
            for Scenario { number, name, title, .. } in scenarios::ALL {
                println!("{number:>2} {name:<13} {title}");
            }
        }
        Command::Run(scenarios, jobs) => return report::run(Paths::find()?, on, &scenarios, jobs),
        Command::Record(folder, groups, jobs) => record::run(Paths::find()?, on, &folder, groups, jobs)?,
        Command::Demo => {
            let told = scenarios::ALL.iter().filter(|scenario| DEMO.contains(&scenario.number));
            return report::demo(Paths::find()?, on, &told.collect::<Vec<_>>());
        }
    }
    Ok(true)
}

/// The command, and what its machines run.
fn parse() -> Result<(Command, &'static Distribution)> {
    let mut parser = lexopt::Parser::from_env();
    let mut words = Vec::new();
    let mut on = &distribution::ALL[0];
    let mut jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let wrong = |error: lexopt::Error| Error::new(error.to_string());
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Short('h') | Long("help") => return Ok((Command::Help, on)),
            Short('j') | Long("jobs") => {
                jobs = parser.value().and_then(|value| value.parse()).map_err(wrong)?;
            }
            Long("on") => {
                on = parser
                    .value()
                    .map_err(wrong)
                    .and_then(|name| distribution::find(&name.to_string_lossy()))?;
            }
            Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(Error::new(other.unexpected().to_string())),
        }
    }
    if jobs == 0 {
        return Err(Error::new("expected at least one job, found 0"));
    }
    command(&words, jobs).map(|command| (command, on))
}

fn command(words: &[String], jobs: usize) -> Result<Command> {
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => Ok(Command::List),
        ["demo"] => Ok(Command::Demo),
        ["record", folder, names @ ..] => {
            record::groups(names).map(|groups| Command::Record(folder.into(), groups, jobs))
        }
        ["run"] | ["run", "all"] => Ok(Command::Run(scenarios::ALL.iter().collect(), jobs)),
        ["run", names @ ..] => {
            let find = |name: &&str| {
                let hint = "hint: halfkey-qemu-tests list";
                scenarios::find(name)
                    .ok_or_else(|| Error::new(format!("there is no scenario {name:?}\n{hint}")))
            };
            names.iter().map(find).collect::<Result<_>>().map(|scenarios| Command::Run(scenarios, jobs))
        }
        _ => Ok(Command::Help),
    }
}
