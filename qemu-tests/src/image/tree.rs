//! A distribution's root as a folder, while something is made of it. Its files belong to root, or to the root of a user namespace
//! if the tests run as somebody else.

use super::cache::remove;
use crate::error::{Context, Result};
use crate::process::run;
use nix::unistd::geteuid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program with the tree $1 as its root, and with folders of the host in it, each as two arguments. The mounts are in a
/// namespace of their own: they end with the program, however it ends.
const CHROOT: &str = r#"tree=$1
shift
mount --rbind /proc "$tree/proc"
mount --rbind /dev "$tree/dev"
while [ "$1" != -- ]; do
    mkdir -p "$tree$2"
    mount --bind "$1" "$tree$2"
    shift 2
done
shift
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 chroot "$tree" "$@"
"#;

/// A root that goes with this value.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Unpacks a root at a path that nothing else uses.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn unpack(tar: &Path, at: PathBuf) -> Result<Self> {
        discard(&at)?;
        fs::create_dir_all(&at).context("can't make a folder in the cache")?;
        let tree = Self(at);
        run(as_root("tar").arg("-xf").arg(tar).args(["--exclude=./dev/*", "-C"]).arg(&tree.0))?;
        Ok(tree)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds what `lay_out` puts into a folder of this user: the tree itself belongs to (a mapped) root.
    ///
    /// # Errors
    /// What `lay_out` returns, or if it can't be added.
    pub fn add(&self, lay_out: impl FnOnce(&Layout) -> Result<()>) -> Result<()> {
        let extra = self.0.with_extension("extra");
        let archive = self.0.with_extension("extra.tar");
        remove(&extra)?;
        let result = fs::create_dir_all(&extra).context("can't make a folder in the cache");
        let result = result.and_then(|()| lay_out(&Layout(extra.clone()))).and_then(|()| {
            let owner = ["--owner=0", "--group=0", "-cf"];
            run(Command::new("tar").arg("-C").arg(&extra).args(owner).arg(&archive).arg("."))?;
            // Links of the tree between /usr and / stay.
            let keep = ["--keep-directory-symlink", "--no-overwrite-dir", "-xf"];
            run(as_root("tar").arg("-C").arg(&self.0).args(keep).arg(&archive))
        });
        remove(&archive)?;
        remove(&extra)?;
        result.map(drop)
    }

    /// Runs a program of the tree in it; `folders` of the host are there as these paths.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, folders: &[(&Path, &str)], program: &[&str]) -> Result<String> {
        let mut command = unshare(true);
        command.args(["sh", "-ec", CHROOT, "chroot"]).arg(&self.0);
        for (from, to) in folders {
            command.arg(from).arg(to);
        }
        run(command.arg("--").args(program))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What stays is forgotten with the cache's other left-overs.
        let _ = discard(&self.0);
    }
}

/// Removes a tree, if it is there.
pub(super) fn discard(tree: &Path) -> Result<()> {
    run(as_root("rm").arg("-rf").arg(tree)).map(drop)
}

/// A folder whose files are added to a tree.
pub(super) struct Layout(PathBuf);

impl Layout {
    /// A path in it; the folder that holds it is made.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn place(&self, path: &str) -> Result<PathBuf> {
        let to = self.0.join(path);
        let folder = to.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).context("can't make a folder in the cache")?;
        Ok(to)
    }
}

/// The command as root, of the machine or of a user namespace: ownership in the tree must be right.
pub(super) fn as_root(program: &str) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = unshare(false);
    command.arg(program);
    command
}

/// The same, for the rest of a command line; with mounts of its own if it is told so.
fn unshare(mounts: bool) -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--map-root-user", "--map-auto"]);
    }
    if mounts {
        command.arg("--mount");
    }
    command.arg("--");
    command
}
