//! The initramfs: the distribution's own dracut, with the module and the agent under test.

use super::cache::cached;
use super::distribution::Distribution;
use super::packages::{Kernel, Packages};
use super::tree::Tree;
use crate::error::{Context, Result};
use crate::paths::{Key, MODULE, Paths};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where dracut writes to, in the tree.
const OUT: &str = "/initrd.img";
/// An empty folder in the tree.
const NO_CONF: &str = "usr/lib/rig/no-conf.d";
#[rustfmt::skip]
const OPTIONS: &[&str] = &[
    "--force", "--quiet", "--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode", "--reproducible", "--zstd",
    "--filesystems", "ext4", "--add", "halfkey", "--conf", "/dev/null", "--confdir", "/usr/lib/rig/no-conf.d",
];

/// One more file in the initramfs.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Its path, without a leading slash.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Builds that of a kernel, or takes it from the cache. dracut runs in a tree of the distribution, where module and agent are
/// installed as on an owner's machine.
///
/// # Errors
/// If dracut fails: the error holds the end of its output.
pub(super) fn build(
    paths: &Paths,
    packages: &Packages,
    kernel: &Kernel,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let Distribution { name, tools, omit, omit_drivers, in_initramfs, .. } = packages.distribution;
    let key = Key::new("initrd 6")
        .text(&packages.key)
        .text(&kernel.modules.to_string_lossy())
        .text(&format!("{OPTIONS:?} {tools:?} {omit:?} {omit_drivers:?} {in_initramfs:?}"))
        .file(&paths.programs.agent)?
        .folder(&paths.module)?
        .hex();
    cached(paths.cache.join(format!("initrd-{name}-{key}.img")), |partial| {
        say(&format!("building the initramfs of {} with dracut", kernel.version));
        let tree = install(paths, &packages.rootfs, partial.with_extension("tree"))?;
        if !tools.is_empty() {
            tree.run(&[], &[&["dpkg", "--purge", "--force-depends"], *tools].concat())?;
        }
        let modules = format!("/usr/lib/modules/{}", kernel.version);
        let (omit, omit_drivers) = (omit.join(" "), omit_drivers.join(" "));
        let words: &[&str] = if in_initramfs.is_empty() { &[] } else { &["--kernel-cmdline", in_initramfs] };
        let last = ["--omit", &omit, "--omit-drivers", &omit_drivers, OUT, &kernel.version];
        let dracut = [&["dracut"], OPTIONS, words, &last].concat();
        tree.run(&[(&kernel.modules, &modules)], &dracut)?;
        let out = tree.path().join(OUT.trim_start_matches('/'));
        fs::copy(&out, partial).context("can't copy an initramfs")?;
        Ok(())
    })
}

/// A tree with the module and the agent under test.
pub(super) fn install(paths: &Paths, rootfs: &Path, at: PathBuf) -> Result<Tree> {
    let tree = Tree::unpack(rootfs, at)?;
    tree.add(|layout| {
        fs::copy(&paths.programs.agent, layout.place("usr/sbin/halfkey-agent")?)
            .context("can't copy the agent")?;
        let module = fs::read_dir(&paths.module).context("can't read the dracut module")?;
        for file in module.flatten() {
            let name = file.file_name();
            let to =
                layout.place(&format!("usr/lib/dracut/modules.d/{MODULE}/{}", name.to_string_lossy()))?;
            fs::copy(file.path(), to).context("can't copy the dracut module")?;
        }
        // Nobody's taste: what the machine would have of its own in /etc.
        fs::create_dir_all(layout.place(NO_CONF)?).context("can't make a folder in the cache")
    })?;
    Ok(tree)
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
    use std::process::Command;

    #[test]
    fn cpio_reads_the_archive() {
        let file = |path: &str| ExtraFile { path: path.into(), content: b"hello\n".to_vec() };
        let files = [file("etc/halfkey-extra/one"), file("etc/two")];
        let names =
            crate::process::run_with_input(Command::new("cpio").args(["-t", "--quiet"]), &cpio(&files));
        assert_eq!(names.unwrap(), "etc\netc/halfkey-extra\netc/halfkey-extra/one\netc/two\n");
    }
}
