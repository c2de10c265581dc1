//! The narrated demo.

use crate::error::Result;
use crate::image::distribution::Distribution;
use crate::lab::machine::PROMPT;
use crate::paths::Paths;
use crate::report::{Outcome, tell};
use crate::scenarios::scenario::Scenario;
use crate::scenarios::{Context, Group};
use crate::story::{Story, Told};
use crate::test_env::TestEnv;
use crate::watch::{MILESTONES, Watch};
use crate::wire::Tap;
use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

/// Tells scenarios step by step. `true` if all passed.
///
/// # Errors
/// If the test can't be built.
pub fn run(paths: Paths, on: &'static Distribution, scenarios: &[&'static Scenario]) -> Result<bool> {
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
    let env = TestEnv::new(
        paths,
        on,
        &mut |text| println!("{}   {text} ...", clock()),
        Watch { tap: Some(tap), ..Watch::default() },
    )?;
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

/// The console lines that matter: progress, what the agent says, prompts.
fn worth_showing(line: &str) -> Option<&str> {
    if let Some((.., text)) = MILESTONES.iter().find(|(found, ..)| line.contains(found)) {
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
