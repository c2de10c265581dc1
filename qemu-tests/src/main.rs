//! `halfkey-qemu-tests`: the scenarios and the demo.

use halfkey_qemu_tests::image::Images;
use halfkey_qemu_tests::image::distribution::{self, Distribution};
use halfkey_qemu_tests::paths::Paths;
use halfkey_qemu_tests::report::Options;
use halfkey_qemu_tests::scenarios::catalogue::ALL;
use halfkey_qemu_tests::scenarios::list;
use halfkey_qemu_tests::scenarios::scenario::{Scenario, Tier};
use halfkey_qemu_tests::{Error, Result, demo, matrix, record, report};
use lexopt::prelude::*;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
usage: halfkey-qemu-tests list [--markdown]
       halfkey-qemu-tests run [--on DISTRIBUTION] [--jobs N] [--console] [--keep] [--shell]
                              [NAME | NUMBER | test | all]...
       halfkey-qemu-tests matrix [--on DISTRIBUTION] [--jobs N]
       halfkey-qemu-tests demo [--on DISTRIBUTION]
       halfkey-qemu-tests images [--on DISTRIBUTION]
       halfkey-qemu-tests record [--on DISTRIBUTION] [--jobs N] FOLDER [BOOTPATH]...

Boots real images under OVMF with swtpm and LUKS2. `list` names the scenarios; with --markdown it prints
docs/scenarios.md. `run` prints one line per scenario; scenarios about different machines run at the same
time, as many as there are processors or N. `run test` is what `make test` runs. --console shows the
consoles live, --keep leaves disks, TPMs and logs and says where, --shell lets you at the machine of one
scenario at its end or when it fails: `exit` goes on. `matrix` runs every scenario on every distribution,
goes on where it stopped as long as commit and programs are the same, and writes docs/matrix.md, where
the columns of distributions stay that it was not asked for. `demo` tells enroll, unattended, cmdline and
revoked step by step. `images` builds what machines start from, and says how many seconds each layer took;
every other word does so as well, if the cache does not hold it. `record` boots each boot path once and
writes what was measured to FOLDER: NAME.bin (the firmware's log), NAME.pcrs (SHA-256 bank, at the
attestation), NAME.cmdline.

Machines run what --on says: debian12, debian13, debian13nm (NetworkManager) or testing. Without it, `run`
takes for each scenario what docs/scenarios.md says, `matrix` all but debian13nm, and the others debian12.

environment: HALFKEY_AGENT, HALFKEY_VERIFIER, HALFKEY_TENANT (programs, else those of `make dist`),
HALFKEY_QEMU_ACCEL=kvm|tcg, HALFKEY_QEMU_CACHE, HALFKEY_QEMU_RUN (folders)
";

/// What `demo` tells.
const DEMO: &[&str] = &["enroll", "unattended", "cmdline", "revoked"];

/// The command line.
struct Arguments {
    words: Vec<String>,
    help: bool,
    markdown: bool,
    /// What machines run.
    on: Option<&'static Distribution>,
    options: Options,
}

fn main() -> ExitCode {
    match parse().and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Arguments> {
    let mut parser = lexopt::Parser::from_env();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { jobs, ..Options::default() };
    let mut asked = Arguments { words: Vec::new(), help: false, markdown: false, on: None, options };
    let wrong = |error: lexopt::Error| Error::new(error.to_string());
    while let Some(argument) = parser.next().map_err(wrong)? {
        match argument {
            Short('h') | Long("help") => asked.help = true,
            Short('j') | Long("jobs") => {
                asked.options.jobs = parser.value().and_then(|value| value.parse()).map_err(wrong)?;
            }
            Long("on") => {
                let name = parser.value().map_err(wrong)?;
                asked.on = Some(distribution::find(&name.to_string_lossy())?);
            }
            Long("console") => asked.options.console = true,
            Long("keep") => asked.options.keep = true,
            Long("shell") => asked.options.shell = true,
            Long("markdown") => asked.markdown = true,
            Value(word) => asked.words.push(word.to_string_lossy().into_owned()),
            other => return Err(Error::new(other.unexpected().to_string())),
        }
    }
    if asked.options.jobs == 0 {
        return Err(Error::new("expected at least one job, found 0"));
    }
    Ok(asked)
}

/// `false` if a scenario failed.
fn run(asked: &Arguments) -> Result<bool> {
    let options = asked.options;
    let on = asked.on.unwrap_or(&distribution::ALL[0]);
    let words: Vec<&str> = asked.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        _ if asked.help => print!("{HELP}"),
        ["list"] if asked.markdown => print!("{}", list::page()),
        ["list"] => list(),
        ["demo"] => return demo::run(Paths::find()?, on, &named(DEMO)?),
        ["images"] => images(on)?,
        ["record", folder, names @ ..] => {
            record::run(Paths::find()?, on, folder.as_ref(), record::groups(names)?, options.jobs)?;
        }
        ["matrix"] => {
            let on = asked.on.map_or_else(|| distribution::ALL.iter().collect(), |on| vec![on]);
            return matrix::run(&Paths::find()?, &on, options);
        }
        ["run"] => return report::run(Paths::find()?, asked.on, &named(&["all"])?, options),
        ["run", names @ ..] => return report::run(Paths::find()?, asked.on, &named(names)?, options),
        _ => print!("{HELP}"),
    }
    Ok(true)
}

/// Builds the images of a distribution.
fn images(on: &'static Distribution) -> Result<()> {
    let began = Instant::now();
    let mut step = began;
    let mut doing: Option<String> = None;
    let mut heard = |text: Option<&str>| {
        if let Some(done) = doing.take() {
            println!("{:6.1} s  {done}", step.elapsed().as_secs_f64());
        }
        (doing, step) = (text.map(str::to_owned), Instant::now());
    };
    Images::build(&Paths::find()?, on, &mut |text| heard(Some(text)))?;
    heard(None);
    println!("{:6.1} s  {}", began.elapsed().as_secs_f64(), on.title);
    Ok(())
}

fn list() {
    for Scenario { number, name, title, expects, tier, .. } in ALL {
        let tier = if *tier == Tier::Test { "test" } else { "" };
        println!("{number:>2} {name:<13} {tier:<4} {title}: {expects}");
    }
}

/// The scenarios of these names and tiers, each once, in their order.
fn named(names: &[&str]) -> Result<Vec<&'static Scenario>> {
    let mut asked = Vec::new();
    for name in names {
        let one = || list::find(name).map(|scenario| vec![scenario]);
        let hint = "hint: halfkey-qemu-tests list";
        let found = list::tier(name).or_else(one);
        asked.extend(found.ok_or_else(|| Error::new(format!("there is no scenario {name:?}\n{hint}")))?);
    }
    Ok(ALL.iter().filter(|known| asked.iter().any(|one| one.number == known.number)).collect())
}
