//! What people read of a run: one line per scenario.

use crate::error::Result;
use crate::image::distribution::Distribution;
use crate::jobs;
use crate::paths::Paths;
use crate::process::tail_of;
use crate::scenarios::scenario::Scenario;
use crate::scenarios::{Context, Group};
use crate::story::{Story, Told};
use crate::test_env::TestEnv;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 25;

pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) result: Result<()>,
    pub(crate) took: Duration,
    /// What a failure leaves to read.
    logs: Vec<PathBuf>,
}

impl Outcome {
    pub(crate) fn explain(&self) {
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
