//! The programs under test.

use crate::error::{Error, Result};
use crate::process::run;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

/// Where they are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `halfkey-agent`: the static one, as it goes into initramfs and root file system.
    pub agent: PathBuf,
    /// `halfkey-verifier`
    pub verifier: PathBuf,
    /// `halfkey`
    pub tenant: PathBuf,
}

/// Root of the work tree.
pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder")
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree().join("target"), PathBuf::from)
}

impl Programs {
    /// For tests of this tree: what `HALFKEY_AGENT`, `HALFKEY_VERIFIER` and `HALFKEY_TENANT` name; cargo builds those that are
    /// not named.
    ///
    /// # Errors
    /// If one does not build.
    pub fn find() -> Result<Self> {
        Ok(Self {
            agent: named_or_built("HALFKEY_AGENT", "halfkey-agent")?,
            verifier: named_or_built("HALFKEY_VERIFIER", "halfkey-verifier")?,
            tenant: named_or_built("HALFKEY_TENANT", "halfkey")?,
        })
    }

    /// What `make dist` made. `HALFKEY_AGENT`, `HALFKEY_VERIFIER` and `HALFKEY_TENANT` take precedence over `dist/` and
    /// `target/release/`.
    pub fn released() -> Self {
        let program = |variable: &str, name: &str| -> PathBuf {
            let places = [tree().join("dist").join(name), target().join("release").join(name)];
            env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
                // The newer one, so that a build of either kind is what gets tested.
                let age = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
                places.iter().max_by_key(|path| age(path)).expect("there are two places").clone()
            })
        };
        Self {
            agent: env::var_os("HALFKEY_AGENT")
                .map_or_else(|| tree().join("dist/halfkey-agent"), PathBuf::from),
            verifier: program("HALFKEY_VERIFIER", "halfkey-verifier"),
            tenant: program("HALFKEY_TENANT", "halfkey"),
        }
    }

    /// Checks that they were built.
    ///
    /// # Errors
    /// Names the first that is missing, and how to build it.
    pub fn check(&self) -> Result<()> {
        for program in [&self.agent, &self.verifier, &self.tenant] {
            if !program.is_file() {
                let text = format!("{} is missing\nhint: make dist", program.display());
                return Err(Error::new(text));
            }
        }
        Ok(())
    }
}

/// What the variable names; else this tree's, unoptimized. Cargo builds all of them at once, always: another choice of packages is
/// another choice of features, and all that they depend on is built again.
fn named_or_built(variable: &str, name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    if let Some(named) = env::var_os(variable) {
        return Ok(named.into());
    }
    BUILT.get_or_init(|| build().map_err(|error| error.to_string())).clone().map_err(Error::new)?;
    Ok(target().join("debug").join(name))
}

/// The programs of this tree.
fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Which a test program may be given that says how long its tests take: it is not meant for the compiler.
    command.env_remove("RUSTC_BOOTSTRAP");
    command.current_dir(tree()).args(["build", "--locked", "--quiet"]);
    run(command.args(["-p", "halfkey-agent", "-p", "halfkey-verifier", "-p", "halfkey", "--bins"]))?;
    Ok(())
}
