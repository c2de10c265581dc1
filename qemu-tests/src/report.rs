//! What people read of a run: one line per scenario.

use crate::error::{Context as _, Result};
use crate::image::distribution::Distribution;
use crate::jobs;
use crate::paths::Paths;
use crate::process::tail_of;
use crate::scenarios::scenario::Scenario;
use crate::scenarios::{Context, Group};
use crate::story::{Story, Told};
use crate::terminal;
use crate::test_env::TestEnv;
use crate::watch::Watch;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 25;
/// How many scenarios are named that took longest.
const SLOWEST: usize = 20;

/// How a person wants to follow a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Groups of scenarios at the same time.
    pub jobs: usize,
    /// Their consoles are shown.
    pub console: bool,
    /// All that belongs to the run stays.
    pub keep: bool,
    /// At the end, or when it fails, the person is at the machine. For one scenario.
    pub shell: bool,
}

/// What became of a scenario.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) result: Result<()>,
    pub(crate) took: Duration,
    /// Name of what the machine runs.
    on: &'static str,
    /// What a failure leaves to read: first what says most.
    logs: Vec<PathBuf>,
}

impl Outcome {
    pub(crate) fn explain(&self) {
        let Err(error) = &self.result else { return };
        println!("   {}", error.to_string().replace('\n', "\n   "));
        for log in &self.logs {
            println!("   {}:\n{}", log.display(), tail_of(log, TAIL));
        }
        if let Some(first) = self.logs.first() {
            println!("   read first: {}", first.display());
            println!(
                "   beside it are the consoles of earlier boots, swtpm and QEMU; the folder above has a story-*.log"
            );
        }
    }
}

/// Runs scenarios, several groups of them at the same time; one line each, in the order in which they are given. `true` if all
/// passed. Machines run this distribution; without one, that on which the scenarios of their group are tested.
///
/// # Errors
/// If the test can't be built, or the options are not for these scenarios.
pub fn run(
    paths: Paths,
    on: Option<&'static Distribution>,
    scenarios: &[&'static Scenario],
    options: Options,
) -> Result<bool> {
    let count = scenarios.len();
    crate::ensure!(!options.shell || count == 1, "--shell is for one scenario, found {count}");
    let several = options.jobs > 1 && count > 1;
    crate::ensure!(
        !options.console || !several,
        "with --console one machine speaks at a time\nhint: --jobs 1"
    );
    let on = |group: Group| on.unwrap_or_else(|| group.tested_on());
    let mut envs: Vec<Arc<TestEnv>> = Vec::new();
    for scenario in scenarios {
        let on = on(scenario.needs.group);
        if envs.iter().all(|env| env.distribution.name != on.name) {
            let env = match envs.first() {
                Some(first) => first.on(on, &mut |text| eprintln!("{text} ...")).map(Arc::new)?,
                None => prepare(paths.clone(), on, &options)?,
            };
            envs.push(env);
        }
    }
    run_in(&envs, scenarios, options, |_| ())
}

/// Builds what a run needs.
///
/// # Errors
/// If it can't be built.
pub(crate) fn prepare(paths: Paths, on: &'static Distribution, options: &Options) -> Result<Arc<TestEnv>> {
    let mut watch = Watch::default();
    if options.console {
        watch.tap = Some(Arc::new(|line: &str| {
            if !terminal::is_used() {
                println!("console | {line}");
            }
        }));
    }
    if options.shell {
        watch.left = Some(Arc::default());
    }
    TestEnv::new(paths, on, &mut |text| eprintln!("{text} ..."), watch).map(Arc::new)
}

/// Runs scenarios in the one of these that is for the distribution on which their group is tested, or in the only one; `heard` hears
/// of each as soon as it is over.
///
/// # Errors
/// If there is none, or disks can't be deleted or kept.
pub(crate) fn run_in(
    envs: &[Arc<TestEnv>],
    scenarios: &[&'static Scenario],
    options: Options,
    heard: impl Fn(&Outcome) + Sync,
) -> Result<bool> {
    let env = envs.first().context("no scenario was asked for")?;
    let titles: Vec<&str> = envs.iter().map(|env| env.distribution.title).collect();
    println!("machines: {}; logs: {}", titles.join(" and "), env.folder.display());
    let fits = |group: Group| envs.iter().find(|env| env.distribution.name == group.tested_on().name);
    let env_of = |group: Group| if envs.len() > 1 { fits(group).unwrap_or(env) } else { env };
    let began = Instant::now();
    let groups: Vec<(Group, Vec<&Scenario>)> = Group::ALL
        .iter()
        .map(|group| {
            (*group, scenarios.iter().filter(|scenario| scenario.needs.group == *group).copied().collect())
        })
        .filter(|(_, scenarios): &(Group, Vec<_>)| !scenarios.is_empty())
        .collect();
    let printer = Mutex::new(Printer::new(scenarios));
    jobs::each(options.jobs, groups, |(group, scenarios)| {
        let mut context = Context::new(Arc::clone(env_of(group)), log_of(env, group, began), group);
        let heard = |outcome| {
            heard(&outcome);
            printer.lock().unwrap_or_else(PoisonError::into_inner).hear(outcome);
        };
        tell(&mut context, &scenarios, |_| (), heard);
    });
    let mut printer = printer.into_inner().unwrap_or_else(PoisonError::into_inner);
    printer.slowest();
    if let Some(line) = env.watch.phases.line() {
        println!("{line}");
    }
    let failed = printer.failed();
    if options.keep {
        env.keep()?;
        println!("kept: {} (disks, TPMs and logs, until you delete it)", env.folder.display());
    } else if failed == 0 {
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
    took: Vec<(Duration, &'static str)>,
}

impl<'a> Printer<'a> {
    fn new(expected: &'a [&'static Scenario]) -> Self {
        Self { expected, waiting: BTreeMap::new(), passed: 0, told: 0, took: Vec::new() }
    }

    fn hear(&mut self, outcome: Outcome) {
        self.waiting.insert(outcome.scenario.number, outcome);
        while let Some(scenario) = self.expected.get(self.told)
            && let Some(outcome) = self.waiting.remove(&scenario.number)
        {
            let verdict = if outcome.result.is_ok() { "ok" } else { "FAILED" };
            let Scenario { number, name, title, expects, .. } = scenario;
            let (seconds, on) = (outcome.took.as_secs(), outcome.on);
            println!("{number:>2} {name:<13} {verdict:<6} {seconds:>4} s  {on}  {title}: {expects}");
            outcome.explain();
            self.passed += usize::from(outcome.result.is_ok());
            self.told += 1;
            self.took.push((outcome.took, *name));
        }
    }

    /// Names those that took longest, if there are more than one sees at once.
    fn slowest(&mut self) {
        if self.took.len() <= SLOWEST {
            return;
        }
        self.took.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
        let slowest: Vec<String> = self
            .took
            .iter()
            .take(SLOWEST)
            .map(|(took, name)| format!("{name} {} s", took.as_secs()))
            .collect();
        println!("slowest: {}", slowest.join(", "));
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

pub(crate) fn tell(
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
        let took = began.elapsed();
        if context.env.watch.left.is_some() {
            visit(context, scenario, &result);
        }
        let mut logs = Vec::new();
        if result.is_err() {
            logs = context.logs();
            context.forget();
        }
        if index + 1 == count && result.is_ok() {
            result = context.end();
        }
        heard(Outcome { scenario, result, took, on: context.env.distribution.name, logs });
    }
}

/// Lets the person at the machine, as its scenario has left it.
fn visit(context: &mut Context, scenario: &Scenario, result: &Result<()>) {
    match result {
        Ok(()) => println!("{}: ok", scenario.name),
        Err(error) => println!("{}: FAILED: {error}", scenario.name),
    }
    if let Err(error) = context.visit() {
        println!("no shell: {error}");
    }
}
