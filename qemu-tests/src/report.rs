//! What people read: one line per scenario, or the narrated demo.

use crate::error::Result;
use crate::image::distribution::Distribution;
use crate::jobs;
use crate::machine::PROMPT;
use crate::paths::Paths;
use crate::process::tail_of;
use crate::scenarios::scenario::Scenario;
use crate::scenarios::{Context, Group};
use crate::story::{Story, Told};
use crate::test_env::TestEnv;
use crate::wire::Tap;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 25;

struct Outcome {
    scenario: &'static Scenario,
    result: Result<()>,
    took: Duration,
    /// What a failure leaves to read.
    logs: Vec<PathBuf>,
}

impl Outcome {
    fn explain(&self) {
        let Err(error) = &self.result else { return };
        println!("   {}", error.to_string().replace('\n', "\n   "));
        for log in &self.logs {
            println!("   {}:\n{}", log.display(), tail_of(log, TAIL));
        }
    }
}

/// Runs scenarios on machines of a distribution, `jobs` groups of them at the same time; one line each, in the order in which they are given. `true` if all
/// passed.
///
/// # Errors
/// If the test can't be built.
pub fn run(
    paths: Paths,
    on: &'static Distribution,
    scenarios: &[&'static Scenario],
    jobs: usize,
) -> Result<bool> {
    let env = Arc::new(TestEnv::new(paths, on, &mut |text| eprintln!("{text} ..."), None)?);
    println!("machines: {}; logs: {}", on.title, env.folder.display());
    let began = Instant::now();
    let groups: Vec<(Group, Vec<&Scenario>)> = Group::ALL
        .iter()
        .map(|group| {
            (*group, scenarios.iter().filter(|scenario| scenario.needs.group == *group).copied().collect())
        })
        .filter(|(_, scenarios): &(Group, Vec<_>)| !scenarios.is_empty())
        .collect();
    let printer = Mutex::new(Printer::new(scenarios));
    jobs::each(jobs, groups, |(group, scenarios)| {
        let mut context = Context::new(Arc::clone(&env), log_of(&env, group, began), group);
        let heard = |outcome| printer.lock().unwrap_or_else(PoisonError::into_inner).hear(outcome);
        tell(&mut context, &scenarios, |_| (), heard);
    });
    let failed = printer.into_inner().unwrap_or_else(PoisonError::into_inner).failed();
    if failed == 0 {
        env.delete_disks()?;
    }
    let (passed, seconds) = (scenarios.len() - failed, began.elapsed().as_secs());
    println!("{passed} passed, {failed} failed, {seconds} s");
    Ok(failed == 0)
}

/// Prints outcomes in the order of their scenarios: each as soon as those before it are there.
struct Printer<'a> {
    expected: &'a [&'static Scenario],
    waiting: BTreeMap<u32, Outcome>,
    passed: usize,
    told: usize,
}

impl<'a> Printer<'a> {
    fn new(expected: &'a [&'static Scenario]) -> Self {
        Self { expected, waiting: BTreeMap::new(), passed: 0, told: 0 }
    }

    fn hear(&mut self, outcome: Outcome) {
        self.waiting.insert(outcome.scenario.number, outcome);
        while let Some(scenario) = self.expected.get(self.told)
            && let Some(outcome) = self.waiting.remove(&scenario.number)
        {
            let verdict = if outcome.result.is_ok() { "ok" } else { "FAILED" };
            let Scenario { number, name, title, expects, .. } = scenario;
            let seconds = outcome.took.as_secs();
            println!("{number:>2} {name:<13} {verdict:<6} {seconds:>4} s  {title}: {expects}");
            outcome.explain();
            self.passed += usize::from(outcome.result.is_ok());
            self.told += 1;
        }
    }

    /// What was never told is no success.
    fn failed(&self) -> usize {
        self.expected.len() - self.passed
    }
}

/// The story of a group goes to a file.
fn log_of(env: &TestEnv, group: Group, began: Instant) -> Story {
    let log = File::create(env.folder.join(format!("story-{group:?}.log").to_lowercase()));
    Story::new(Box::new(move |told| {
        let line = match told {
            Told::Does(who, what) => format!("{}: {what}", who.name()),
            Told::Proves(what) => format!("=> {what}"),
            Told::Prepares(what) => format!("({what})"),
        };
        // A log that can't be written must not stop the test.
        if let Ok(mut log) = log.as_ref() {
            let _ = writeln!(log, "{:7.1} {line}", began.elapsed().as_secs_f64());
        }
    }))
}

fn tell(
    context: &mut Context,
    scenarios: &[&'static Scenario],
    before: impl Fn(&Scenario),
    heard: impl Fn(Outcome),
) {
    let count = scenarios.len();
    for (index, scenario) in scenarios.iter().enumerate() {
        before(scenario);
        let began = Instant::now();
        let mut result = context.provide(&scenario.needs).and_then(|()| (scenario.run)(context));
        let mut logs = Vec::new();
        if result.is_err() {
            logs = context.logs();
            context.forget();
        }
        if index + 1 == count && result.is_ok() {
            result = context.end();
        }
        heard(Outcome { scenario, result, took: began.elapsed(), logs });
    }
}

/// Tells scenarios step by step. `true` if all passed.
///
/// # Errors
/// If the test can't be built.
pub fn demo(paths: Paths, on: &'static Distribution, scenarios: &[&'static Scenario]) -> Result<bool> {
    let began = Instant::now();
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = move |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    };
    let clock =
        move || format!("{:>3}:{:02}", began.elapsed().as_secs() / 60, began.elapsed().as_secs() % 60);
    let tap: Tap = Arc::new(move |line: &str| {
        if let Some(line) = worth_showing(line) {
            println!("{}   {} {line}", clock(), paint("2", "console |"));
        }
    });
    println!(
        "Halfkey: a {} with an encrypted root unlocks itself once its TPM has proved what it booted.",
        on.title
    );
    println!(
        "Everything is real: UEFI firmware, TPM (swtpm), dracut, LUKS2, verifier, operator's workstation.\n"
    );
    let env = TestEnv::new(paths, on, &mut |text| println!("{}   {text} ...", clock()), Some(tap))?;
    let accel = format!("{:?}", env.accel).to_uppercase();
    println!(
        "{}   the machine is ready (QEMU with {accel}); a boot takes a minute or more without KVM",
        clock()
    );
    println!("        logs: {}", env.folder.display());
    let story = Story::new(Box::new(move |told| match told {
        Told::Does(who, what) => println!("{} {} {what}", clock(), paint("1", &format!("{:<8}", who.name()))),
        Told::Proves(what) => println!("{} {} {what}", clock(), paint("1;32", "proved  ")),
        Told::Prepares(what) => println!("{} {what} ...", clock()),
    }));
    let env = Arc::new(env);
    let mut context = Context::new(Arc::clone(&env), story, Group::Uki);
    let heading = |scenario: &Scenario| {
        println!("\n{}", paint("1;4", &format!("{}. {}", scenario.number, scenario.title)));
    };
    let outcomes = RefCell::new(Vec::new());
    tell(&mut context, scenarios, heading, |outcome| {
        outcome.explain();
        outcomes.borrow_mut().push(outcome);
    });
    let outcomes = outcomes.into_inner();
    println!();
    for Outcome { scenario, result, took, .. } in &outcomes {
        let verdict = if result.is_ok() { paint("32", "ok    ") } else { paint("31", "FAILED") };
        println!("{:>2} {verdict} {:>4} s  {}", scenario.number, took.as_secs(), scenario.title);
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    if failed == 0 {
        env.delete_disks()?;
    }
    println!("{} passed, {failed} failed, {} s", outcomes.len() - failed, began.elapsed().as_secs());
    Ok(failed == 0)
}

/// What the console shows of a boot's progress, in words.
const MILESTONES: &[(&str, &str)] = &[
    ("BdsDxe: starting Boot", "firmware starts the unified kernel image"),
    ("EFI stub: Measured initrd", "command line and initramfs are measured into the TPM"),
    ("Starting halfkey-unlock", "initramfs: the agent starts"),
    ("Starting initrd-switch-root", "the root is mounted: the initramfs hands over"),
    ("Reached target multi-user", "the system is up"),
];

/// The console lines that matter: progress, what the agent says, prompts.
fn worth_showing(line: &str) -> Option<&str> {
    if let Some((_, text)) = MILESTONES.iter().find(|(found, _)| line.contains(found)) {
        return Some(text);
    }
    if let Some(at) = line.find("halfkey: ") {
        return Some(&line[at..]);
    }
    let shown = [PROMPT, "EK fingerprint: ", "enrolled; the next boot"];
    shown.iter().any(|text| line.contains(text)).then(|| line.trim_end_matches(['*', ' ']))
}

#[cfg(test)]
mod tests {
    use super::worth_showing;

    #[test]
    fn what_people_see_of_a_boot() {
        let seen = |line| worth_showing(line);
        assert_eq!(
            seen("[  OK  ] Reached target multi-user.target - Multi-User System."),
            Some("the system is up")
        );
        assert_eq!(
            seen("[   30.1] halfkey: opened /dev/vda2 as root"),
            Some("halfkey: opened /dev/vda2 as root")
        );
        assert_eq!(
            seen("Please enter passphrase for disk root: (press TAB for no echo)     ****"),
            Some("Please enter passphrase for disk root: (press TAB for no echo)")
        );
        assert_eq!(seen("[  OK  ] Started dbus.service"), None);
    }
}
