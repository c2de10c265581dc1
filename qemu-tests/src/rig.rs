//! What all scenarios of a run share.

use crate::error::{Context, Result};
use crate::image::{Images, guest};
use crate::paths::Paths;
use crate::qemu::Accel;
use crate::swtpm::Manufacturer;
use crate::wire::Tap;
use std::fs;
use std::path::PathBuf;

/// Images, accelerator, TPM manufacturer, and a folder for this run.
pub struct Rig {
    /// Where things are.
    pub paths: Paths,
    /// What machines start from.
    pub images: Images,
    /// How instructions are run.
    pub accel: Accel,
    /// Who makes the TPMs.
    pub manufacturer: Manufacturer,
    /// Disks and logs of this run.
    pub folder: PathBuf,
    /// Hears the consoles.
    pub tap: Option<Tap>,
}

impl Rig {
    /// Builds what is missing. `say` hears what takes time.
    ///
    /// # Errors
    /// If something can't be built.
    pub fn new(paths: Paths, say: &mut dyn FnMut(&str), tap: Option<Tap>) -> Result<Self> {
        paths.check_programs()?;
        let accel = Accel::probe(&paths.cache, say)?;
        let images = Images::build(&paths, say)?;
        let folder = paths.run.join(std::process::id().to_string());
        fs::create_dir_all(&folder).context(format_args!("can't make {}", folder.display()))?;
        let manufacturer = Manufacturer::new(&folder.join("manufacturer"))?;
        Ok(Self { paths, images, accel, manufacturer, folder, tap })
    }

    /// The command line that the operator approves.
    pub fn cmdline(&self) -> String {
        format!(
            "root=UUID={} rd.luks.name={}=root rw console=ttyS0 loglevel=4 systemd.show_status=yes \
             rd.shell=0 rd.emergency=poweroff systemd.import_credentials=no efi=noruntime",
            guest::ROOT_FS,
            guest::ROOT_LUKS
        )
    }
}
