//! What all scenarios of a run share.

use crate::error::{Context, Result};
use crate::image::distribution::Distribution;
use crate::image::system::{BootPath, System};
use crate::image::{Images, guest};
use crate::paths::Paths;
use crate::qemu::Accel;
use crate::swtpm::Manufacturer;
use crate::watch::Watch;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Images of a distribution, accelerator, TPM manufacturer, and a folder for this run.
pub struct TestEnv {
    /// Where things are.
    pub paths: Paths,
    /// What machines run.
    pub distribution: &'static Distribution,
    /// What machines start from.
    pub images: Images,
    /// How instructions are run.
    pub accel: Accel,
    /// Who makes the TPMs.
    pub manufacturer: Arc<Manufacturer>,
    /// Disks and logs of this run.
    pub folder: PathBuf,
    /// Who watches.
    pub watch: Watch,
    /// How many places were given away.
    places: Arc<AtomicU32>,
}

impl TestEnv {
    /// Builds what is missing. `say` hears what takes time.
    ///
    /// # Errors
    /// If something can't be built.
    pub fn new(
        paths: Paths,
        distribution: &'static Distribution,
        say: &mut dyn FnMut(&str),
        watch: Watch,
    ) -> Result<Self> {
        paths.programs.check()?;
        let accel = Accel::probe(&paths.cache, say)?;
        let images = Images::build(&paths, distribution, say)?;
        let folder = run_folder(&paths.run)?;
        let manufacturer = Arc::new(Manufacturer::new(&folder.join("manufacturer"))?);
        let places = Arc::default();
        Ok(Self { paths, distribution, images, accel, manufacturer, folder, watch, places })
    }

    /// The same run, for machines of another distribution.
    ///
    /// # Errors
    /// If its images can't be built.
    pub fn on(&self, distribution: &'static Distribution, say: &mut dyn FnMut(&str)) -> Result<Self> {
        Ok(Self {
            paths: self.paths.clone(),
            distribution,
            images: Images::build(&self.paths, distribution, say)?,
            accel: self.accel,
            manufacturer: Arc::clone(&self.manufacturer),
            folder: self.folder.clone(),
            watch: self.watch.clone(),
            places: Arc::clone(&self.places),
        })
    }

    /// A path in the folder of this run that nothing else uses.
    pub fn place(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{what}-{}", self.places.fetch_add(1, Ordering::Relaxed)))
    }

    /// All of this run stays, until somebody deletes it.
    ///
    /// # Errors
    /// If that can't be noted.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.folder.join(KEEP), "").context("can't keep the folder of this run")
    }

    /// Deletes the disks of this run; the logs stay.
    ///
    /// # Errors
    /// If one can't be deleted.
    pub fn delete_disks(&self) -> Result<()> {
        let machines = fs::read_dir(&self.folder).context("can't read the folder of this run")?;
        for file in machines.flatten().filter_map(|entry| fs::read_dir(entry.path()).ok()).flatten().flatten()
        {
            if file.path().extension().is_some_and(|kind| kind == "raw" || kind == "kept") {
                fs::remove_file(file.path()).context("can't delete a disk")?;
            }
        }
        Ok(())
    }

    /// What the operator approves, on this boot path.
    pub fn system(&self, path: BootPath) -> System {
        let mut cmdline = format!("{} systemd.import_credentials=no", cmdline());
        // Without Secure Boot variables of the firmware would be options of systemd.
        if matches!(path, BootPath::Uki | BootPath::Entry) {
            cmdline += " efi=noruntime";
        }
        for word in self.distribution.cmdline {
            cmdline = format!("{cmdline} {word}");
        }
        System::new(path, cmdline)
    }
}

fn cmdline() -> String {
    let (fs, luks) = (guest::ROOT_FS, guest::ROOT_LUKS);
    format!("root=UUID={fs} rd.luks.name={luks}=root rw {}", guest::CMDLINE)
}

/// In the folder of a run that is to stay.
const KEEP: &str = "keep";

/// A new folder, named by a number that grows. Those of the last runs stay.
fn run_folder(all: &Path) -> Result<PathBuf> {
    const KEPT: usize = 4;
    let entries = fs::read_dir(all).context(format_args!("can't read {}", all.display()))?;
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    numbers.sort_unstable();
    let asked = |number: &&u32| all.join(number.to_string()).join(KEEP).exists();
    for old in numbers.iter().rev().skip(KEPT).filter(|number| !asked(number)) {
        // Someone else may clean up as well.
        let _ = fs::remove_dir_all(all.join(old.to_string()));
    }
    let mut number = numbers.last().map_or(1, |last| last + 1);
    loop {
        let folder = all.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error).context(format_args!("can't make {}", folder.display())),
        }
    }
}
