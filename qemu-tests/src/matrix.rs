//! Every scenario on every distribution that it claims, however long that takes: `docs/matrix.md`.

use crate::error::{Context as _, Result};
use crate::image::distribution::{self, Distribution, Stage};
use crate::image::packages::Packages;
use crate::image::system::Release;
use crate::paths::{Key, Paths};
use crate::process::run as said;
use crate::report::{self, Options, Outcome};
use crate::scenarios::catalogue;
use crate::scenarios::scenario::Scenario;
use crate::test_env::TestEnv;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What was seen so far, on disk: a run goes on where the last one stopped.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Seen {
    /// Of commit, programs and rig: what was seen of others says nothing of these.
    key: String,
    commit: String,
    /// QEMU, swtpm, OVMF.
    host: Vec<String>,
    /// dracut, systemd, kernel: by name of the distribution.
    guests: BTreeMap<String, Vec<String>>,
    /// Why there is no such guest here: by name of a distribution that may be missing.
    #[serde(default)]
    missing: BTreeMap<String, String>,
    /// By name of the scenario, then of the distribution.
    cells: BTreeMap<String, BTreeMap<String, Cell>>,
}

/// A scenario on a distribution.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Cell {
    /// Why it failed; none if what was expected was seen.
    failed: Option<String>,
    seconds: u64,
}

/// Runs what was not yet seen to pass, and writes the page after each scenario. `true` if all passed that was asked for.
///
/// # Errors
/// If something can't be built, or the page can't be written.
pub fn run(paths: &Paths, asked: &[&'static Distribution], options: Options) -> Result<bool> {
    let file = paths.run.with_file_name("matrix.json");
    let mut seen = load(&file, paths)?;
    println!("commit {}; what was seen is in {}", seen.commit, file.display());
    let mut passed = true;
    for on in asked {
        let claimed = || catalogue::ALL.iter().filter(|scenario| scenario.needs.on.has(on.name));
        let open: Vec<&'static Scenario> =
            claimed().filter(|scenario| !seen.passed(scenario.name, on.name)).collect();
        println!("{}: {} of {} to run", on.title, open.len(), claimed().count());
        if !open.is_empty() {
            if let Some(why) = missing(paths, on) {
                println!("{}: not to be had here, so nothing is said of it: {why}", on.title);
                seen.missing.insert(on.name.into(), why.lines().next().unwrap_or_default().into());
                seen.save(&file, paths)?;
                continue;
            }
            let env = report::prepare(paths.clone(), on, &options)?;
            seen.missing.remove(on.name);
            seen.guests.insert(on.name.into(), guest(&env)?);
            let shared = Mutex::new((&mut seen, Ok(())));
            report::run_in(&[env], &open, options, |outcome| {
                let mut shared = shared.lock().expect("nobody panics with it");
                let (seen, result) = &mut *shared;
                seen.note(on, outcome);
                if let Err(error) = seen.save(&file, paths) {
                    *result = Err(error);
                }
            })?;
            shared.into_inner().expect("nobody panics with it").1?;
        }
        passed &= claimed().all(|scenario| seen.passed(scenario.name, on.name));
    }
    seen.save(&file, paths)?;
    Ok(passed)
}

/// What was seen of this commit and these programs.
fn load(file: &Path, paths: &Paths) -> Result<Seen> {
    let git = |args: &[&str]| said(Command::new("git").arg("-C").arg(&paths.tree).args(args));
    // What is told of it, as on this page, is no other program.
    let last = ["log", "-1", "--format=%h", "--abbrev=12", "--", ".", ":!docs"];
    let mut commit = git(&last).unwrap_or_default().trim().to_owned();
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]).unwrap_or_default();
    if !changed.trim().is_empty() {
        commit += " with changes";
    }
    let programs = &paths.programs;
    let key = Key::new("matrix 1").text(&commit).file(&std::env::current_exe().context("this program")?)?;
    let key = key.file(&programs.agent)?.file(&programs.verifier)?.file(&programs.tenant)?;
    let key = key.folder(&paths.module)?.hex();
    let before = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Seen>(&text).ok());
    Ok(before.filter(|seen| seen.key == key).unwrap_or(Seen {
        key,
        commit,
        host: host()?,
        ..Seen::default()
    }))
}

/// Why the packages of a distribution are not to be had, if it is one of which that is no failure.
fn missing(paths: &Paths, on: &'static Distribution) -> Option<String> {
    let Stage::Moving { .. } = on.stage else { return None };
    Packages::get(paths, on, &mut |text| eprintln!("{text} ...")).err().map(|error| error.to_string())
}

/// What machines are made of here.
fn host() -> Result<Vec<String>> {
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let qemu = said(Command::new("qemu-system-x86_64").arg("--version")).map(first)?;
    let swtpm = said(Command::new("swtpm").arg("--version")).map(first)?;
    let ovmf = said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "ovmf"]));
    let ovmf = ovmf.unwrap_or_else(|_| "of unknown version".into());
    Ok(vec![
        qemu.replace(" emulator version", "").split(" (").next().unwrap_or_default().into(),
        swtpm.split(',').next().unwrap_or_default().replace(" version", ""),
        format!("OVMF {ovmf}"),
    ])
}

/// What is in the machines.
fn guest(env: &TestEnv) -> Result<Vec<String>> {
    let status =
        said(Command::new("tar").arg("-xOf").arg(env.images.root_archive()).arg("./var/lib/dpkg/status"))?;
    let version = |package: &str| {
        let paragraph =
            status.split("\n\n").find(|text| text.lines().any(|line| line == format!("Package: {package}")));
        let found = paragraph.and_then(|text| text.lines().find_map(|line| line.strip_prefix("Version: ")));
        found.unwrap_or("?").to_owned()
    };
    let kernel = |release| env.images.kernel(release).map(|kernel| kernel.version.clone());
    Ok(vec![
        format!("dracut {}", version("dracut-core")),
        format!("systemd {}", version("systemd")),
        format!("Linux {} and {}", kernel(Release::Newest)?, kernel(Release::Previous)?),
    ])
}

impl Seen {
    fn passed(&self, scenario: &str, on: &str) -> bool {
        let cell = self.cells.get(scenario).and_then(|cells| cells.get(on));
        cell.is_some_and(|cell| cell.failed.is_none())
    }

    fn note(&mut self, on: &Distribution, outcome: &Outcome) {
        let failed = outcome.result.as_ref().err().map(ToString::to_string);
        let cell = Cell { failed, seconds: outcome.took.as_secs() };
        self.cells.entry(outcome.scenario.name.into()).or_default().insert(on.name.into(), cell);
    }

    fn save(&self, file: &Path, paths: &Paths) -> Result<()> {
        let page: PathBuf = paths.tree.join("docs/matrix.md");
        let text = serde_json::to_vec_pretty(self).context("what was seen")?;
        fs::write(file, text).context(format_args!("can't write {}", file.display()))?;
        fs::write(&page, self.page()).context(format_args!("can't write {}", page.display()))
    }

    /// `docs/matrix.md`.
    fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let known: Vec<&Distribution> =
            distribution::ALL.iter().filter(|on| self.guests.contains_key(on.name)).collect();
        let _ = writeln!(page, "Commit {}, on {}.\n", self.commit, self.host.join(", "));
        for on in &known {
            let guest = self.guests.get(on.name).map(|parts| parts.join(", ")).unwrap_or_default();
            let _ = writeln!(page, "- **{}**: {guest}", on.title);
        }
        for on in distribution::ALL {
            if let Some(why) = self.missing.get(on.name) {
                let _ = writeln!(page, "- **{}**: not to be had here ({why})", on.title);
            }
        }
        let titles: String = known.iter().map(|on| format!(" {} |", on.title)).collect();
        let rule = " --- |".repeat(known.len());
        let _ = writeln!(page, "\n| scenario | expected |{titles}\n| --- | --- |{rule}");
        let mut all: Vec<&Scenario> = catalogue::ALL.iter().collect();
        all.sort_by_key(|scenario| scenario.number);
        for scenario in all {
            let cells: String = known.iter().map(|on| format!(" {} |", self.cell(scenario, on))).collect();
            let _ = writeln!(page, "| `{}` | {} |{cells}", scenario.name, scenario.expects);
        }
        page
    }

    /// What was seen of a scenario on a distribution.
    fn cell(&self, scenario: &Scenario, on: &Distribution) -> String {
        if !scenario.needs.on.has(on.name) {
            return "not claimed".into();
        }
        let Some(Cell { failed, seconds }) =
            self.cells.get(scenario.name).and_then(|cells| cells.get(on.name))
        else {
            return "not run".into();
        };
        match failed {
            None => format!("as expected, {seconds} s"),
            Some(why) => {
                let first = why.lines().next().unwrap_or_default().replace('|', "/");
                format!("**failed**, {seconds} s: {first}")
            }
        }
    }
}

const HEAD: &str = "\
# What was seen

<!-- Made by `make matrix`: halfkey-qemu-tests matrix. -->

Every [scenario](scenarios.md) on every distribution that it claims. The seconds are those of one run, in which other machines ran beside;
the first scenario of a machine includes its enrollment.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_was_seen_and_what_was_not() {
        let on = &distribution::ALL[0];
        let mut seen = Seen { commit: "0123".into(), host: vec!["QEMU 1".into()], ..Seen::default() };
        seen.guests.insert(on.name.into(), vec!["dracut 1".into()]);
        let cell = |failed: Option<&str>| Cell { failed: failed.map(str::to_owned), seconds: 7 };
        for (name, failed) in [("enroll", None), ("unattended", Some("a | b\nc"))] {
            seen.cells.entry(name.into()).or_default().insert(on.name.into(), cell(failed));
        }
        let moving = distribution::ALL.iter().find(|on| matches!(on.stage, Stage::Moving { .. })).unwrap();
        seen.missing.insert(moving.name.into(), "no such suite".into());
        let page = seen.page();
        assert!(
            page.contains(&format!("- **{}**: not to be had here (no such suite)\n", moving.title)),
            "{page}"
        );
        assert_eq!(page.matches(moving.title).count(), 1, "{page}");
        for line in
            ["Commit 0123, on QEMU 1.", "| as expected, 7 s |", "| **failed**, 7 s: a / b |", "| not run |"]
        {
            assert!(page.contains(line), "{line}: {page}");
        }
        assert!(seen.passed("enroll", on.name) && !seen.passed("unattended", on.name));
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
    }
}
