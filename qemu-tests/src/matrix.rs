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
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What was seen so far, on disk: a run goes on where the last one stopped.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Seen {
    /// By name of the distribution.
    columns: BTreeMap<String, Column>,
    /// Why there is no such guest here: by name of a distribution that may be missing.
    missing: BTreeMap<String, String>,
    /// What the page tells of distributions that were not run here, or not since something changed.
    #[serde(skip)]
    told: BTreeMap<String, Told>,
}

/// What was seen on one distribution: all of it of the same commit, programs and laboratory.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Column {
    /// Of commit, programs and laboratory: what was seen of others says nothing of these.
    key: String,
    /// Commit; dracut, systemd, kernel; QEMU, swtpm, OVMF: for people.
    of: Vec<String>,
    /// By name of the scenario.
    cells: BTreeMap<String, Cell>,
}

/// A column as it stands on the page.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    of: String,
    cells: BTreeMap<String, String>,
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
    let (key, commit) = this(paths)?;
    let host = host()?;
    let mut seen = Seen::load(&file, paths, &key);
    println!("{commit}; what was seen is in {}", file.display());
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
            let column = seen.columns.entry(on.name.into()).or_default();
            column.key.clone_from(&key);
            column.of = [vec![commit.clone()], guest(&env)?, host.clone()].concat();
            let shared = Mutex::new((&mut seen, Ok(())));
            report::run_in(&[env], &open, options, |outcome| {
                let mut shared = shared.lock().expect("nobody panics with it");
                let (seen, result) = &mut *shared;
                seen.note(on, outcome, &paths.tree);
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

/// The key of these programs, and their commit.
fn this(paths: &Paths) -> Result<(String, String)> {
    let git = |args: &[&str]| said(Command::new("git").arg("-C").arg(&paths.tree).args(args));
    // What is told of it, as on this page, is no other program.
    let last = ["log", "-1", "--format=%h", "--abbrev=12", "--", ".", ":!docs"];
    let mut commit = format!("commit {}", git(&last).unwrap_or_default().trim());
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]).unwrap_or_default();
    if !changed.trim().is_empty() {
        commit += " with changes";
    }
    let programs = &paths.programs;
    let key = Key::new("matrix 2").text(&commit).file(&std::env::current_exe().context("this program")?)?;
    let key = key.file(&programs.agent)?.file(&programs.verifier)?.file(&programs.tenant)?;
    Ok((key.folder(&paths.module)?.hex(), commit))
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

/// A text whose paths below the tree begin there: the page says nothing of the host's folders.
fn within(tree: &Path, text: &str) -> String {
    text.replace(&format!("{}/", tree.display()), "")
}

/// The page in a tree.
fn page_in(paths: &Paths) -> PathBuf {
    paths.tree.join("docs/matrix.md")
}

impl Seen {
    /// What was seen with this key, and what the page tells besides.
    fn load(file: &Path, paths: &Paths, key: &str) -> Self {
        let before = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        let mut seen = before.unwrap_or_default();
        seen.columns.retain(|_, column| column.key == key);
        seen.told = told(&fs::read_to_string(page_in(paths)).unwrap_or_default());
        seen
    }

    fn passed(&self, scenario: &str, on: &str) -> bool {
        let cell = self.columns.get(on).and_then(|column| column.cells.get(scenario));
        cell.is_some_and(|cell| cell.failed.is_none())
    }

    fn note(&mut self, on: &Distribution, outcome: &Outcome, tree: &Path) {
        let failed = outcome.result.as_ref().err().map(|why| within(tree, &why.to_string()));
        let cell = Cell { failed, seconds: outcome.took.as_secs() };
        let column = self.columns.entry(on.name.into()).or_default();
        column.cells.insert(outcome.scenario.name.into(), cell);
    }

    fn save(&self, file: &Path, paths: &Paths) -> Result<()> {
        let page = page_in(paths);
        let text = serde_json::to_vec_pretty(self).context("what was seen")?;
        fs::write(file, text).context(format_args!("can't write {}", file.display()))?;
        fs::write(&page, self.page()).context(format_args!("can't write {}", page.display()))
    }

    /// `docs/matrix.md`.
    fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let known: Vec<&Distribution> =
            distribution::every().filter(|on| self.of(on.name).is_some()).collect();
        for on in &known {
            let _ = writeln!(page, "- **{}**: {}", on.title, self.of(on.name).unwrap_or_default());
        }
        for on in distribution::every() {
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

    /// What was in the machines of a distribution, and beneath them.
    fn of(&self, on: &str) -> Option<String> {
        let seen = self.columns.get(on).map(|column| column.of.join(", "));
        seen.or_else(|| self.told.get(on).map(|told| told.of.clone()))
    }

    /// What was seen of a scenario on a distribution.
    fn cell(&self, scenario: &Scenario, on: &Distribution) -> String {
        if !scenario.needs.on.has(on.name) {
            return "not claimed".into();
        }
        let told = || self.told.get(on.name).and_then(|told| told.cells.get(scenario.name)).cloned();
        let seen = match self.columns.get(on.name) {
            Some(column) => column.cells.get(scenario.name).map(Cell::to_string),
            None => told(),
        };
        seen.unwrap_or_else(|| "not run".into())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failed, seconds } = self;
        match failed {
            None => write!(f, "as expected, {seconds} s"),
            Some(why) => {
                let first = why.lines().next().unwrap_or_default().replace('|', "/");
                write!(f, "**failed**, {seconds} s: {first}")
            }
        }
    }
}

/// The columns of a page, by name of the distribution.
fn told(page: &str) -> BTreeMap<String, Told> {
    let cells = |line: &str| {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let mut rows = page.lines().filter(|line| line.starts_with("| ")).map(cells);
    let titles = rows.next().unwrap_or_default();
    let rows: Vec<Vec<String>> = rows.collect();
    let column = |on: &Distribution| {
        let of = page.lines().find_map(|line| line.strip_prefix(&format!("- **{}**: ", on.title)))?;
        let at = titles.iter().position(|title| title == on.title)?;
        let name = |row: &[String]| row.first().map(|name| name.trim_matches('`').to_owned());
        let cells = rows.iter().filter_map(|row| Some((name(row)?, row.get(at)?.clone()))).collect();
        Some((on.name.to_owned(), Told { of: of.to_owned(), cells }))
    };
    distribution::every().filter_map(column).collect()
}

const HEAD: &str = "\
# What was seen

<!-- Made by `make matrix`: halfkey-qemu-tests matrix. -->

Every [scenario](scenarios.md) on every distribution that it claims. A column is of one commit and one host: which, stands in its line. The seconds
are those of one run, in which other machines ran beside; the first scenario of a machine includes its enrollment.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_was_seen_and_what_was_not() {
        let on = &distribution::ALL[0];
        let cell = |failed: Option<&str>| Cell { failed: failed.map(str::to_owned), seconds: 7 };
        let column = Column {
            of: vec!["commit 0123".into(), "dracut 1".into(), "QEMU 1".into()],
            cells: [("enroll", None), ("unattended", Some("a | b\nc"))]
                .map(|(name, failed)| (name.into(), cell(failed)))
                .into(),
            ..Column::default()
        };
        let mut seen = Seen { columns: [(on.name.into(), column)].into(), ..Seen::default() };
        let moving = distribution::ALL.iter().find(|on| matches!(on.stage, Stage::Moving { .. })).unwrap();
        seen.missing.insert(moving.name.into(), "no such suite".into());
        let page = seen.page();
        assert!(
            page.contains(&format!("- **{}**: not to be had here (no such suite)\n", moving.title)),
            "{page}"
        );
        assert_eq!(page.matches(moving.title).count(), 1, "{page}");
        let of = format!("- **{}**: commit 0123, dracut 1, QEMU 1\n", on.title);
        for line in [of.as_str(), "| as expected, 7 s |", "| **failed**, 7 s: a / b |", "| not run |"] {
            assert!(page.contains(line), "{line}: {page}");
        }
        assert!(seen.passed("enroll", on.name) && !seen.passed("unattended", on.name));
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
    }

    #[test]
    fn a_failure_names_no_folder_of_the_host() {
        let said = within(
            Path::new("/home/me/halfkey"),
            "/home/me/halfkey/target/1.log: no prompt (/home/me/halfkey/target)",
        );
        assert_eq!(said, "target/1.log: no prompt (target)");
    }

    #[test]
    fn what_was_not_run_here_stays_on_the_page() {
        let [first, second] = [&distribution::ALL[0], &distribution::ALL[1]];
        let column = |commit: &str, seconds| Column {
            of: vec![commit.into()],
            cells: [("enroll".into(), Cell { failed: None, seconds })].into(),
            ..Column::default()
        };
        let both = [(first.name.into(), column("commit 1", 7)), (second.name.into(), column("commit 1", 8))];
        let before = Seen { columns: both.into(), ..Seen::default() }.page();
        // Another commit, of which one distribution was run.
        let columns = [(second.name.into(), column("commit 2", 9))].into();
        let after = Seen { columns, told: told(&before), ..Seen::default() }.page();
        assert!(after.contains(&format!("- **{}**: commit 1\n", first.title)), "{after}");
        assert!(after.contains(&format!("- **{}**: commit 2\n", second.title)), "{after}");
        assert!(after.contains("| as expected, 7 s | as expected, 9 s |"), "{after}");
        // Nothing is told of a guest that is only said to be missing.
        let told = told(&format!("- **{}**: not to be had here (why)\n", first.title));
        assert!(told.is_empty(), "{told:?}");
    }
}
