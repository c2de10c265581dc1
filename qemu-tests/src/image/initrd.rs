//! The initramfs: dracut of this host, with the module and the agent under test.

use super::cache::cached;
use super::packages::Kernel;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What this machine surely does not boot from: firmware reads and measures every byte, and under TCG that shows.
const OMIT: &str = "nfs iscsi lvm mdraid multipath dmraid btrfs plymouth cifs nbd ifcfg nvdimm virtiofs lunmask \
                    kernel-modules-extra qemu-net i18n";
const OMIT_DRIVERS: &str = "mlx5_core mlx4_core mlx4_en mlx5_ib mlx4_ib libceph ceph rbd target_core_mod libata bcache bridge \
                            mpi3mr ipr mei raid456 raid10 raid1 raid0 md_mod scsi_transport_iscsi scsi_transport_fc \
                            libiscsi scsi_debug surface_aggregator hv_netvsc hid_wiimote null_blk dm_cache dm_thin_pool \
                            dm_persistent_data vxlan ena gve mana ixgbevf i40e iavf ice bnxt_en bonding tls hid sunrpc \
                            nvme_core nvme_fabrics usbcore drm btrfs xfs cifs tcrypt";

/// One more file in the initramfs.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Builds it, or takes it from the cache.
///
/// # Errors
/// If dracut fails: the error holds the end of its output.
pub fn build(paths: &Paths, kernel: &Kernel, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let dracut = run(Command::new("dpkg-query").args(["-W", "-f", "${Version} ", "dracut-core", "systemd"]));
    let key = Key::new("initrd 2")
        .text(&kernel.modules.to_string_lossy())
        .text(OMIT)
        .text(OMIT_DRIVERS)
        .text(&dracut.unwrap_or_default())
        .file(&paths.programs.agent)?
        .folder(&paths.module)?
        .hex();
    cached(paths.cache.join(format!("initrd-{key}.img")), |partial| {
        say(&format!("building the initramfs of {} with dracut", kernel.version));
        let base = partial.with_extension("dracut");
        basedir(&paths.module, &base)?;
        let result = run(Command::new("dracut")
            .env("dracutbasedir", &base)
            .env("HALFKEY_AGENT", &paths.programs.agent)
            .args(["--force", "--quiet", "--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode"])
            .args(["--reproducible", "--zstd", "--filesystems", "ext4", "--add", "halfkey"])
            .args(["--omit", OMIT, "--omit-drivers", OMIT_DRIVERS, "--conf", "/dev/null"])
            .arg("--confdir")
            .arg(base.join("no-conf.d"))
            .arg("--kmoddir")
            .arg(&kernel.modules)
            .arg(partial)
            .arg(&kernel.version));
        super::cache::remove(&base)?;
        result?;
        Ok(())
    })
}

/// dracut looks for modules in one folder only: a tree of links to the host's, and ours.
fn basedir(module: &Path, base: &Path) -> Result<()> {
    super::cache::remove(base)?;
    let host = Path::new("/usr/lib/dracut");
    let modules = base.join("modules.d");
    for folder in [&modules, &base.join("no-conf.d")] {
        fs::create_dir_all(folder).context("can't make a folder in the cache")?;
    }
    for (from, to) in [(host.to_path_buf(), base), (host.join("modules.d"), &modules)] {
        let entries = fs::read_dir(&from).context(format_args!("can't read {}", from.display()))?;
        for entry in entries.flatten().filter(|entry| entry.file_name() != "modules.d") {
            symlink(entry.path(), to.join(entry.file_name())).context("can't link a dracut module")?;
        }
    }
    let ours = modules.join("90halfkey");
    super::cache::remove(&ours)?;
    symlink(module, ours).context("can't link the dracut module")
}

/// The initramfs with more files behind it: the kernel unpacks archives in order.
pub fn with_files(initrd: &[u8], files: &[ExtraFile]) -> Vec<u8> {
    let mut out = initrd.to_vec();
    pad(&mut out);
    out.extend(cpio(files));
    out
}

/// A cpio archive (newc) with these files.
pub fn cpio(files: &[ExtraFile]) -> Vec<u8> {
    let mut out = Vec::new();
    let folders = files.iter().flat_map(|file| file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
    // Whatever holds another comes before it.
    let folders: BTreeSet<_> = folders.collect();
    let mut inode = 1;
    for folder in folders {
        entry(&mut out, inode, 0o040_755, folder, &[]);
        inode += 1;
    }
    for file in files {
        entry(&mut out, inode, 0o100_755, &file.path, &file.content);
        inode += 1;
    }
    entry(&mut out, 0, 0, "TRAILER!!!", &[]);
    out
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let size = u32::try_from(content.len()).expect("an extra file is small");
    let name_size = u32::try_from(name.len() + 1).expect("a path is short");
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(name.bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_the_archive() {
        let file = |path: &str| ExtraFile { path: path.into(), content: b"hello\n".to_vec() };
        let files = [file("etc/halfkey-extra/one"), file("etc/two")];
        let names =
            crate::process::run_with_input(Command::new("cpio").args(["-t", "--quiet"]), &cpio(&files));
        assert_eq!(names.unwrap(), "etc\netc/halfkey-extra\netc/halfkey-extra/one\netc/two\n");
    }
}
