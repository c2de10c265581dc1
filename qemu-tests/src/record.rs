//! What real boots measure, as files for other tests.

use crate::error::{Context as _, Error, Result};
use crate::image::distribution::Distribution;
use crate::jobs;
use crate::paths::Paths;
use crate::scenarios::{Context, Group};
use crate::story::Story;
use crate::test_env::TestEnv;
use crate::watch::Watch;
use halfkey_testkit::hex;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// One machine for each boot path.
const GROUPS: &[Group] = &[Group::Uki, Group::SecureBoot, Group::Grub, Group::Entry];

/// Those with these boot paths; all of them if none is named.
///
/// # Errors
/// If there is no such boot path: the error lists them.
pub fn groups(names: &[&str]) -> Result<Vec<Group>> {
    if names.is_empty() {
        return Ok(GROUPS.to_vec());
    }
    let known = || GROUPS.iter().map(|group| group.path().name()).collect::<Vec<_>>().join(", ");
    let find = |name: &&str| {
        let group = GROUPS.iter().find(|group| group.path().name() == *name).copied();
        group.context(format_args!("expected a boot path, one of {}, found {name:?}", known()))
    };
    names.iter().map(find).collect()
}

/// Enrolls a machine of each kind and writes what its first attested boot sent: `NAME.bin` is the firmware's log, `NAME.pcrs`
/// has a line for each PCR of the SHA-256 bank as it was quoted, `NAME.cmdline` is /proc/cmdline, and `NAME.systemd` is
/// systemd's log if it kept one.
///
/// # Errors
/// If a machine can't be enrolled or a file can't be written.
pub fn run(
    paths: Paths,
    on: &'static Distribution,
    folder: &Path,
    groups: Vec<Group>,
    jobs: usize,
) -> Result<()> {
    fs::create_dir_all(folder).context(format_args!("can't make {}", folder.display()))?;
    let env = Arc::new(TestEnv::new(paths, on, &mut |text| eprintln!("{text} ..."), Watch::default())?);
    let failures = Mutex::new(Vec::new());
    jobs::each(jobs, groups, |group| {
        if let Err(error) = record(&env, group, folder) {
            failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{group:?}: {error}"));
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() { Ok(()) } else { Err(Error::new(failures.join("\n"))) }
}

fn record(env: &Arc<TestEnv>, group: Group, folder: &Path) -> Result<()> {
    let mut context = Context::new(Arc::clone(env), Story::new(Box::new(|_| ())), group);
    let (sent, cmdline) = context.attested()?;
    context.end()?;
    let write = |kind: &str, content: &[u8]| {
        let file = folder.join(format!("{}.{kind}", group.path().name()));
        fs::write(&file, content).context(format_args!("can't write {}", file.display()))
    };
    write("bin", &sent.event_log.context("the agent sent no firmware log")?)?;
    let pcrs: String =
        sent.pcrs.iter().enumerate().map(|(number, value)| format!("{number} {}\n", hex(value))).collect();
    write("pcrs", pcrs.as_bytes())?;
    write("cmdline", format!("{cmdline}\n").as_bytes())?;
    sent.systemd_log.map_or(Ok(()), |log| write("systemd", &log))
}
