//! What people read: one line per scenario, or the narrated demo.

use crate::error::{Context, Result};
use crate::machine::PROMPT;
use crate::paths::Paths;
use crate::process::tail_of;
use crate::rig::Rig;
use crate::scenarios::{Scenario, World};
use crate::story::{Story, Told};
use crate::wire::Tap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines of each log that are shown when a scenario fails.
const TAIL: usize = 25;

struct Outcome {
    scenario: &'static Scenario,
    result: Result<()>,
    took: Duration,
}

/// Runs scenarios, one line each. `true` if all passed.
///
/// # Errors
/// If the rig can't be built.
pub fn run(paths: Paths, scenarios: &[&'static Scenario]) -> Result<bool> {
    let rig = Rig::new(paths, &mut |text| eprintln!("{text} ..."), None)?;
    let folder = rig.folder.clone();
    let log = File::create(folder.join("story.log")).context("can't write the story")?;
    let began = Instant::now();
    let story = Story::new(Box::new(move |told| {
        let line = match told {
            Told::Does(who, what) => format!("{}: {what}", who.name()),
            Told::Proves(what) => format!("=> {what}"),
            Told::Prepares(what) => format!("({what})"),
        };
        // A log that can't be written must not stop the test.
        let _ = writeln!(&log, "{:7.1} {line}", began.elapsed().as_secs_f64());
    }));
    println!("logs: {}", folder.display());
    let mut world = World::new(rig, story);
    let line = |outcome: &Outcome| {
        let verdict = if outcome.result.is_ok() { "ok" } else { "FAILED" };
        let Scenario { number, name, title, .. } = outcome.scenario;
        println!("{number:>2} {name:<13} {verdict:<6} {:>4} s  {title}", outcome.took.as_secs());
    };
    let outcomes = tell(&mut world, scenarios, |_| (), line);
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

fn tell(
    world: &mut World,
    scenarios: &[&'static Scenario],
    before: impl Fn(&Scenario),
    heard: impl Fn(&Outcome),
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        before(scenario);
        let began = Instant::now();
        let result = (scenario.run)(world);
        let outcome = Outcome { scenario, result, took: began.elapsed() };
        heard(&outcome);
        if let Err(error) = &outcome.result {
            println!("   {}", error.to_string().replace('\n', "\n   "));
            for log in world.logs() {
                println!("   {}:\n{}", log.display(), tail_of(&log, TAIL));
            }
            world.forget();
        }
        outcomes.push(outcome);
    }
    if let Err(error) = world.end() {
        println!("   {error}");
    }
    outcomes
}

/// Tells scenarios step by step. `true` if all passed.
///
/// # Errors
/// If the rig can't be built.
pub fn demo(paths: Paths, scenarios: &[&'static Scenario]) -> Result<bool> {
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
        "Halfkey: a Debian with an encrypted root unlocks itself once its TPM has proved what it booted."
    );
    println!("Everything is real: UEFI firmware, TPM (swtpm), dracut, LUKS2, verifier, operator's desk.\n");
    let rig = Rig::new(paths, &mut |text| println!("{}   {text} ...", clock()), Some(tap))?;
    let accel = format!("{:?}", rig.accel).to_uppercase();
    println!(
        "{}   the machine is ready (QEMU with {accel}); a boot takes a minute or more without KVM",
        clock()
    );
    println!("        logs: {}", rig.folder.display());
    let story = Story::new(Box::new(move |told| match told {
        Told::Does(who, what) => println!("{} {} {what}", clock(), paint("1", &format!("{:<8}", who.name()))),
        Told::Proves(what) => println!("{} {} {what}", clock(), paint("1;32", "proved  ")),
        Told::Prepares(what) => println!("{} {what} ...", clock()),
    }));
    let mut world = World::new(rig, story);
    let heading = |scenario: &Scenario| {
        println!("\n{}", paint("1;4", &format!("{}. {}", scenario.number, scenario.title)));
    };
    let outcomes = tell(&mut world, scenarios, heading, |_| ());
    println!("\n{:<4}{:<78}{:>6}  result", "", "", "time");
    for Outcome { scenario, result, took } in &outcomes {
        let verdict = if result.is_ok() { paint("32", "ok") } else { paint("31", "FAILED") };
        println!("{:<4}{:<78}{:>4} s  {verdict}", scenario.number, scenario.title, took.as_secs());
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
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
