//! Scenarios by name and by tier, and the page of documentation that comes of them.

use super::catalogue;
use super::scenario::{On, Scenario, Tier};
use std::fmt::Write as _;

/// What is asked of `run` by one word.
pub fn tier(word: &str) -> Option<Vec<&'static Scenario>> {
    match word {
        "all" => Some(catalogue::ALL.iter().collect()),
        "test" => Some(catalogue::ALL.iter().filter(|scenario| scenario.tier == Tier::Test).collect()),
        _ => None,
    }
}

/// The scenario with this name or number.
pub fn find(name: &str) -> Option<&'static Scenario> {
    catalogue::ALL.iter().find(|scenario| scenario.name == name || scenario.number.to_string() == name)
}

/// `docs/scenarios.md`.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    let mut all: Vec<&Scenario> = catalogue::ALL.iter().collect();
    all.sort_by_key(|scenario| scenario.number);
    for Scenario { number, name, needs, title, expects, guards, tier, .. } in all {
        let on = match needs.on {
            On::Every => String::new(),
            On::Only(names) => format!(", {}", names.join(", ")),
        };
        let enrolled = if needs.enrolled { "" } else { ", not enrolled" };
        let tier = match tier {
            Tier::Test => "yes".into(),
            Tier::Matrix(guards) => {
                let guards: Vec<_> = guards.iter().map(|guard| format!("`{guard}`")).collect();
                format!("no: {}", guards.join(", "))
            }
        };
        let tested = needs.group.tested_on().title;
        let machine = format!("{tested}, {}{enrolled}{on}", needs.group.machine());
        let _ =
            writeln!(page, "| {number} | `{name}` | {machine} | {title} | {expects} | {guards} | {tier} |");
    }
    page
}

const HEAD: &str = "\
# Scenarios

<!-- Made by `halfkey-qemu-tests list --markdown`; a test of that crate compares it. -->

Each is told to a real machine: OVMF, swtpm, a distribution's kernel, dracut, systemd and LUKS2, the verifier and the operator's
workstation. `halfkey-qemu-tests run NAME` runs one of them, `run test` those of `make test`, `run all` all of them.

In `make test` is what nothing else guards. For the others the last column says what guards their mechanism there: another scenario,
or a test that boots a recorded machine with the real agent, TPM and verifier. A machine runs the distribution that is named here, or
what `--on` says; `make matrix` runs all of them on each and writes what was seen into docs/matrix.md.

| | name | machine | what happens | what is expected | what it guards | in `make test` |
| --- | --- | --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::distribution::{self, Stage};
    use halfkey_testkit::programs::tree;

    #[test]
    fn the_page_is_what_the_catalogue_says() {
        halfkey_testkit::golden::check(tree().join("docs/scenarios.md"), &page());
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for (index, one) in catalogue::ALL.iter().enumerate() {
            let other = catalogue::ALL[..index].iter().find(|o| o.number == one.number || o.name == one.name);
            assert!(other.is_none(), "{}", one.name);
            assert!(one.name.parse::<u32>().is_err() && tier(one.name).is_none(), "{}", one.name);
        }
    }

    #[test]
    fn make_test_unlocks_a_machine_of_each_distribution() {
        let stable = |on: &&distribution::Distribution| matches!(on.stage, Stage::Stable);
        for distribution in distribution::ALL.iter().filter(stable) {
            let tested = tier("test").unwrap().into_iter().find(|scenario| {
                scenario.needs.enrolled && scenario.needs.group.tested_on().name == distribution.name
            });
            assert!(tested.is_some(), "{} is not part of `make test`", distribution.name);
        }
        for scenario in catalogue::ALL {
            assert!(scenario.needs.on.has(scenario.needs.group.tested_on().name), "{}", scenario.name);
        }
    }

    #[test]
    fn what_is_not_run_by_make_test_is_guarded_there() {
        for scenario in catalogue::ALL {
            let Tier::Matrix(guards) = scenario.tier else { continue };
            assert!(
                !guards.is_empty(),
                "{}: expected what guards it in `make test`, or Tier::Test",
                scenario.name
            );
            for guard in guards {
                let guarded = match guard.split_once("::") {
                    Some((file, function)) => {
                        let text = std::fs::read_to_string(tree().join(file));
                        text.unwrap_or_default().contains(&format!("#[test]\nfn {function}()"))
                    }
                    None if guard.contains('/') => {
                        let makefile = std::fs::read_to_string(tree().join("Makefile"));
                        tree().join(guard).is_file() && makefile.unwrap_or_default().contains(guard)
                    }
                    None => find(guard).is_some_and(|guard| guard.tier == Tier::Test),
                };
                assert!(
                    guarded,
                    "{}: expected a scenario of Tier::Test, `file::function` of a #[test], or a program of the Makefile, found {guard}",
                    scenario.name
                );
            }
        }
    }
}
