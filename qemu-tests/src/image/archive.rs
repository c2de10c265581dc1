//! Where packages come from: apt with lists of its own, so that nothing on the host changes, and what the host is does not matter.

use super::cache::cached;
use super::distribution::{Source, Stage};
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How old lists may be: a run that asks the mirror takes seconds longer, and is stopped where that is not to be reached.
const LISTS: Duration = Duration::from_secs(24 * 3600);
/// What to do about a package that is not to be had.
const UPDATE: &str = "packages come from the distribution's archive\nhint: is deb.debian.org to be reached?";

/// Lists of packages, as the options of apt that make it use them.
pub(super) struct Archive {
    folder: PathBuf,
    options: Vec<String>,
    lines: Vec<String>,
    /// Whether a list may say of itself that it is out of date.
    outdated: bool,
}

impl Archive {
    /// The packages of these sources, signed by the host's keys of Debian; their lists are fetched if they are older than a day.
    /// `name` is that of a folder.
    ///
    /// # Errors
    /// If they are not to be had.
    pub fn open(paths: &Paths, name: &str, sources: &[&Source]) -> Result<Self> {
        Self::signed(paths, name, sources, keyring()?, false)
    }

    /// The same of a release.
    ///
    /// # Errors
    /// If they are not to be had, or the keys are not.
    pub fn release(paths: &Paths, name: &str, sources: &[&Source], stage: Stage) -> Result<Self> {
        let Stage::Moving { keys } = stage else { return Self::open(paths, name, sources) };
        let known = Self::open(paths, keys.suite, &[&keys])?;
        let unpacked = known.fetch(paths, &["debian-archive-keyring"], &mut |_| ())?;
        let keyring = unpacked.join("usr/share/keyrings/debian-archive-keyring.pgp");
        crate::ensure!(keyring.is_file(), "{}'s debian-archive-keyring has no such keyring", keys.suite);
        Self::signed(paths, name, sources, &keyring, true)
    }

    fn signed(
        paths: &Paths,
        name: &str,
        sources: &[&Source],
        keyring: &Path,
        outdated: bool,
    ) -> Result<Self> {
        let folder = paths.cache.join(format!("apt-{name}"));
        for below in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(below)).context("can't make a folder in the cache")?;
        }
        // Whoever else wants the same lists waits: apt itself gives up.
        let lock = File::create(folder.join("lock")).context("can't make a file in the cache")?;
        lock.lock().context("can't lock a folder of the cache")?;
        let line = |Source { archive, suite }: &&Source| {
            format!("deb [signed-by={}] {archive} {suite} main", keyring.display())
        };
        let lines: Vec<String> = sources.iter().map(line).collect();
        let write = |name: &str, content: &str| -> Result<String> {
            let path = folder.join(name);
            fs::write(&path, content).context(format_args!("can't write {}", path.display()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        let (list, status) = (write("sources.list", &(lines.join("\n") + "\n"))?, write("status", "")?);
        let place = folder.to_string_lossy();
        let options = [
            format!("Dir::Etc::SourceList={list}"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            format!("Dir::State={place}"),
            format!("Dir::State::Status={status}"),
            format!("Dir::Cache={place}"),
            // Whoever runs this can write the cache; apt's own user can't.
            "APT::Sandbox::User=".into(),
            "APT::Update::Error-Mode=any".into(),
            format!("Acquire::Check-Valid-Until={}", !outdated),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".into(), option]).collect();
        let archive = Self { folder, options, lines, outdated };
        archive.update()?;
        Ok(archive)
    }

    /// The lines of its sources.list.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What mmdebstrap is told besides.
    pub fn apt_options(&self) -> &[&str] {
        if self.outdated { &["--aptopt=Acquire::Check-Valid-Until \"false\""] } else { &[] }
    }

    fn update(&self) -> Result<()> {
        let stamp = self.folder.join("updated");
        let age = fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age < LISTS) {
            return Ok(());
        }
        match run(self.command("apt-get").args(["update", "--quiet"])) {
            Ok(_) => fs::write(&stamp, "").context(format_args!("can't write {}", stamp.display())),
            // The lists of the last time are as good, as long as the mirror has what they name.
            Err(_) if age.is_some() => Ok(()),
            Err(error) => Err(error).context(UPDATE),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The package with the kernel that `meta` stands for.
    ///
    /// # Errors
    /// If there is none.
    pub fn newest_kernel(&self, meta: &str) -> Result<String> {
        let newest = self.depends(meta)?.into_iter().find(|name| name.starts_with("linux-image-"));
        newest.context(format_args!("{meta} depends on no kernel"))
    }

    /// The package with the one before it, whose name ends alike.
    ///
    /// # Errors
    /// If there is none.
    pub fn kernel_before(&self, newest: &str, flavour: &str) -> Result<String> {
        let older = self.older(newest, flavour)?;
        older.context(format_args!("the archive has no older kernel than {newest}"))
    }

    /// The same, or nothing.
    ///
    /// # Errors
    /// If the list can't be read.
    pub fn older(&self, newest: &str, flavour: &str) -> Result<Option<String>> {
        let names = run(self.command("apt-cache").args(["pkgnames", "linux-image-"])).context(UPDATE)?;
        let older = names.lines().filter(|name| name.ends_with(flavour) && numbers(name) < numbers(newest));
        Ok(older.max_by_key(|name| numbers(name)).map(str::to_string))
    }

    /// The packages that one needs, by name.
    ///
    /// # Errors
    /// If it is not known.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text =
            run(self.command("apt-cache").args(["depends", "--important", package])).context(UPDATE)?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_string)
            .collect())
    }

    /// The unpacked content of packages, without installing them: from the cache, or fetched now.
    ///
    /// # Errors
    /// If one is not to be had.
    pub fn fetch(&self, paths: &Paths, packages: &[&str], say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let policy = run(self.command("apt-cache").arg("policy").args(packages))?;
        let candidates: Vec<&str> =
            policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: ")).collect();
        let key = Key::new("packages 2").text(&packages.join(" ")).text(&candidates.join(" ")).hex();
        cached(paths.cache.join(format!("packages-{key}")), |partial| {
            say(&format!("fetching {}", packages.join(", ")));
            fs::create_dir_all(partial).context("can't make a folder in the cache")?;
            run(self.command("apt-get").args(["download", "--quiet"]).args(packages).current_dir(partial))
                .context(UPDATE)?;
            let files: Vec<PathBuf> = fs::read_dir(partial)
                .context("can't read the cache")?
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
                .collect();
            for deb in files {
                run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(partial))?;
                fs::remove_file(&deb).context("can't remove a package")?;
            }
            Ok(())
        })
    }
}

/// The keys of Debian, which sign all of its releases; those of Debian 12's last updates know 13.
fn keyring() -> Result<&'static Path> {
    let known =
        ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];
    let keyring = known.into_iter().map(Path::new).find(|file| file.exists());
    keyring.context("no keyring of Debian\nhint: install debian-archive-keyring")
}

/// The numbers in a name, for comparing versions.
pub(super) fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_compared_by_number() {
        let mut names = ["linux-image-6.1.0-10-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names, ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-10-cloud-amd64"]);
    }
}
