//! Many boots at once. Closed loop: each of so many machines asks again as soon as it has its answer. Open loop: boots begin at a given
//! rate, whether the server keeps up or not, and how long one took counts from when it was due: a server that stalls does not hide
//! that by being asked less.

use crate::Result;
use crate::fleet::{Fleet, Machine};
use crate::https::{Connection, Failed, Target};
use halfkey_protocol::wire::{Outcome, Verdict};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How boots follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next one as soon as there is an answer.
    Closed,
    /// So many per second.
    Open(f64),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Boots, all together.
    pub boots: usize,
    /// Boots at the same time, at most; each over a connection of its own.
    pub connections: usize,
    /// A new connection for each boot.
    pub cold: bool,
    /// How they follow each other.
    pub pace: Pace,
    /// Addresses of this host that they come from.
    pub sources: usize,
}

/// What became of them.
#[derive(Default)]
pub struct Report {
    /// Boots that were released, each with a box that its machine opened.
    pub released: usize,
    /// What else was answered, or why not, and how often.
    pub others: BTreeMap<String, usize>,
    /// From the beginning to the last answer.
    pub wall: Duration,
    took: Vec<Duration>,
}

impl Report {
    /// As long as this part of the boots took at most, from when they were due.
    pub fn percentile(&self, part: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
    }

    /// All were released.
    ///
    /// # Errors
    /// What became of the others.
    pub fn require_released(&self) -> Result<()> {
        match self.others.is_empty() {
            true => Ok(()),
            false => Err(format!("{} were released, not so others: {:?}", self.released, self.others).into()),
        }
    }

    fn count(&mut self, outcome: &std::result::Result<Verdict, Failed>, took: Duration) {
        self.took.push(took);
        match outcome {
            Ok(verdict) if verdict.outcome == Outcome::Released.as_str() => self.released += 1,
            Ok(verdict) => self.note(verdict.code.as_deref().unwrap_or(&verdict.outcome)),
            Err(failed) => self.note(failed.word()),
        }
    }

    fn note(&mut self, what: &str) {
        *self.others.entry(what.to_owned()).or_default() += 1;
    }

    fn add(&mut self, part: Self) {
        self.released += part.released;
        self.took.extend(part.took);
        for (what, count) in part.others {
            *self.others.entry(what).or_default() += count;
        }
    }
}

/// An address of the loopback network, as if from another host each.
fn source(number: usize) -> Ipv4Addr {
    // Not 127.0.0.0/16, where others may have something to do.
    Ipv4Addr::from(0x7f01_0001 + number as u32)
}

/// Has these machines do as the plan says.
///
/// # Errors
/// If there are fewer machines than connections: a machine boots once at a time.
pub async fn run(target: &Arc<Target>, machines: &[Arc<Machine>], plan: Plan) -> Result<Report> {
    if machines.len() < plan.connections {
        let (expected, found) = (plan.connections, machines.len());
        return Err(format!("expected at least {expected} machines, found {found}").into());
    }
    let (next, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut workers = JoinSet::new();
    for number in 0..plan.connections {
        let own: Vec<_> = machines.iter().skip(number).step_by(plan.connections).cloned().collect();
        let (target, next) = (target.clone(), next.clone());
        workers.spawn(async move { work(&target, &own, number, plan, &next, start).await });
    }
    let mut report = Report::default();
    while let Some(part) = workers.join_next().await {
        report.add(part?);
    }
    report.wall = start.elapsed();
    report.took.sort_unstable();
    Ok(report)
}

async fn work(
    target: &Target,
    machines: &[Arc<Machine>],
    number: usize,
    plan: Plan,
    next: &AtomicUsize,
    start: Instant,
) -> Report {
    let from = source(number % plan.sources.max(1));
    let (mut report, mut kept) = (Report::default(), None);
    for machine in machines.iter().cycle() {
        let boot = next.fetch_add(1, Ordering::Relaxed);
        if boot >= plan.boots {
            break;
        }
        let due = match plan.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(rate) => start + Duration::from_secs_f64(boot as f64 / rate),
        };
        sleep_until(due).await;
        let outcome = match connected(target, from, kept.take()).await {
            Ok(mut connection) => {
                let outcome = machine.boot(&mut connection).await;
                kept = (!plan.cold && !matches!(outcome, Err(Failed::Lost(_)))).then_some(connection);
                outcome
            }
            Err(failed) => Err(failed),
        };
        report.count(&outcome, due.elapsed());
    }
    report
}

async fn connected(
    target: &Target,
    from: Ipv4Addr,
    kept: Option<Connection>,
) -> std::result::Result<Connection, Failed> {
    match kept {
        Some(connection) => Ok(connection),
        None => target.connect(from).await,
    }
}

/// How long a machine waits before it asks again; twice as long each time, up to [`LONGEST`].
const AGAIN: Duration = Duration::from_millis(250);
/// See [`AGAIN`].
const LONGEST: Duration = Duration::from_secs(2);

/// All machines of the fleet boot at the same moment, as after a power cut: each over a connection of its own, each from an address of
/// its own, each until it is released or denied. How long each took, from that moment.
///
/// # Errors
/// Our bug, if any.
pub async fn storm(target: &Arc<Target>, fleet: &Fleet) -> Result<Report> {
    let (mut boots, start) = (JoinSet::new(), Instant::now());
    for (number, machine) in fleet.machines().iter().cloned().enumerate() {
        let target = target.clone();
        boots.spawn(async move { (boot_at_last(&target, &machine, number).await, start.elapsed()) });
    }
    let mut report = Report::default();
    while let Some(boot) = boots.join_next().await {
        let (outcome, took) = boot?;
        report.count(&outcome, took);
    }
    report.wall = start.elapsed();
    report.took.sort_unstable();
    Ok(report)
}

async fn boot_at_last(
    target: &Target,
    machine: &Machine,
    number: usize,
) -> std::result::Result<Verdict, Failed> {
    let mut pause = AGAIN;
    loop {
        let outcome = match target.connect(source(number)).await {
            Ok(mut connection) => machine.boot(&mut connection).await,
            Err(failed) => Err(failed),
        };
        match outcome {
            Err(failed) if failed.is_worth_another_try() => {}
            decided => return decided,
        }
        // Not all in step: a part of the pause that is its own.
        sleep(pause.mul_f64(0.5 + (number % 64) as f64 / 128.0)).await;
        pause = (pause * 2).min(LONGEST);
    }
}
