//! Secure Boot with the owner's keys, and a policy that names the signer instead of hashes.

use super::Context;
use super::updates::{propose, unattended};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::keys::Signer;
use crate::image::system::{REVOKED, Release, System};
use crate::lab::machine::{Reached, unbase64};
use crate::lab::{LABEL, Lab};
use crate::story::Who::{Attacker, Machine, Operator, Verifier};
use crate::test_env::TestEnv;
use crate::variables::Trust;
use halfkey_measure::systemd::OS_SEPARATOR;
use halfkey_protocol::Reason;
use halfkey_testkit::hex;
use sha2::{Digest, Sha256};

/// Three boots in a row after one approval, by hashes. With Secure Boot systemd can read the stub's variables, and measures; what it and the
/// stub leave on the ESP and in the firmware's variables must not change what the next boot measures.
pub fn three_boots(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let policy = lab.policy()?;
    let mut separated = 0;
    for which in ["first", "second", "third"] {
        story.does(Machine, format!("boots a {which} time; nobody is there"));
        let mut boot = lab.boot()?;
        boot.expect(Reached::System)?;
        let marker = boot.marker()?;
        lab.was_attested(&marker)?;
        let log = unbase64(&marker.measured).context("systemd's measurement log is not base64")?;
        separated += u32::from(String::from_utf8_lossy(&log).contains(OS_SEPARATOR));
        lab.keep_running(boot);
    }
    ensure!(lab.policy()? == policy, "the policy is not that of the one approval");
    ensure!(
        separated == 0 || separated == 3,
        "systemd measured {OS_SEPARATOR} in {separated} of three boots"
    );
    let systemd = if separated == 0 { "measured no" } else { "measured its" };
    story.proves(format!("one approval, three boots unattended; systemd {systemd} {OS_SEPARATOR} in each"));
    Ok(())
}

/// A policy by signer: the new kernel needs nobody's decision.
pub fn signed(context: &mut Context) -> Result<()> {
    let Context { env, story, lab, .. } = trusting_signer(context)?;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..lab.system.clone() };
    let (mut boot, lab) = lab.lend()?;
    story.does(Machine, "has a new kernel, signed by the owner, and proposes it");
    let proposed = propose(&mut boot, env, &newest, 0)?;
    story.does(Verifier, format!("takes it: {}", proposed.message));
    lab.keep_running(boot);
    unattended(env, lab, newest)?;
    story.proves("signed by the policy's signer: it boots unattended");
    Ok(())
}

/// A dbx update: more images are revoked.
pub fn dbx(context: &mut Context) -> Result<()> {
    let Context { env, story, lab, .. } = trusting_signer(context)?;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "gets a dbx update");
    let trust = Trust::Own(env.images.keys.enrolled(&[Signer::Owner], REVOKED + 1)?);
    lab.off()?;
    lab.machine.install_trusting(env, &lab.system, &trust)?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    lab.keep_running(boot);
    story.proves("the policy says dbx_at_least: it boots unattended");

    story.does(Operator, format!("tries a policy that says dbx: halfkey policy test FILE --against {LABEL}"));
    let policy = lab.policy()?.replace("\ndbx_at_least =", "\ndbx =");
    let (code, said) = lab.test(&policy)?;
    ensure!(code != 0, "a dbx with one more entry passes a policy that lists it:\n{said}");
    ensure!(said.contains("dbx"), "what is denied is not named:\n{said}");
    story.proves("a policy that lists dbx exactly would have denied this boot, and says so");
    Ok(())
}

/// A vendor's roll-out: db has one certificate more, and nothing else is new.
pub fn db_grows(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let (system, before) = (lab.system.clone(), lab.policy()?);
    let keys = &env.images.keys;
    let certificate = keys.certificate(Signer::Stranger)?;
    let fingerprint = hex(&Sha256::digest(&certificate));
    story.does(Machine, "gets a certificate more into db, as by a vendor's roll-out");
    let trust = Trust::Own(keys.enrolled(&[Signer::Owner, Signer::Stranger], REVOKED)?);
    denied(env, lab, &system, &trust, &[&["pcr 7", "secure_boot.db", &fingerprint]])?;
    let boots = |policy: &str| policy.lines().filter(|line| *line == "[[boot]]").count();

    story.does(Operator, format!("learns it: halfkey approve {LABEL} --learn"));
    let (code, said) = lab.tenant.try_run(&["approve", LABEL, "--learn", "--yes"])?;
    ensure!(code == 0 && said.contains(&fingerprint) && said.contains("warning: db:"), "it says:\n{said}");
    released(lab)?;
    ensure!(boots(&lab.policy()?) == boots(&before), "the boot is listed once more");
    story.proves("learned by its fingerprint, and nothing else: it boots unattended");

    story.does(
        Operator,
        "takes it back, and says it before the machine has it: halfkey policy predict --db FILE --add",
    );
    lab.apply(&before)?;
    let file = lab.machine.logs().join("db.der");
    std::fs::write(&file, &certificate).context("can't write a certificate")?;
    let file = file.to_string_lossy();
    lab.tenant.run(&["policy", "predict", "--db", &file, "--node", LABEL, "--add", "--yes"])?;
    released(lab)?;
    story.proves("predicted: it boots unattended");
    lab.apply(&before)?;
    lab.off()?;
    restore(env, lab)
}

/// The machine boots with nobody there.
fn released(lab: &mut Lab) -> Result<()> {
    lab.off()?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    lab.keep_running(boot);
    Ok(())
}

/// Another key gets into db, and signs: Secure Boot alone would boot it.
pub fn other_signer(context: &mut Context) -> Result<()> {
    let Context { env, story, lab, .. } = trusting_signer(context)?;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "puts a key of his own into db and boots an image that he signed");
    let keys = &env.images.keys;
    let trust = Trust::Own(keys.enrolled(&[Signer::Owner, Signer::Stranger], REVOKED)?);
    let system = System { signer: Some(Signer::Stranger), ..lab.system.clone() };
    let stranger = hex(&Sha256::digest(keys.certificate(Signer::Stranger)?));
    denied(env, lab, &system, &trust, &[&["pcr 7", "db", &stranger], &["pcr 4", "boot application"]])?;
    story.does(Verifier, format!("denies: {}", lab.last_record()?.summary.message));
    story.proves("denied: the stranger's certificate and his image are named");
    restore(env, lab)
}

/// Secure Boot is switched off: anything boots.
pub fn unsigned(context: &mut Context) -> Result<()> {
    let Context { env, story, lab, .. } = trusting_signer(context)?;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(
        Attacker,
        "clears the firmware's keys, so that Secure Boot is off, and boots an unsigned image",
    );
    let system = System { signer: None, ..lab.system.clone() };
    let version = &env.images.kernel(system.release)?.version;
    denied(env, lab, &system, &Trust::Nobody, &[&["pcr 7", "SecureBoot"], &["pcr 4", version]])?;
    story.does(Verifier, format!("denies: {}", lab.last_record()?.summary.message));
    story.proves("denied: the variable SecureBoot and the image are named");
    restore(env, lab)
}

/// A policy that allows words of the command line, and forbids one: the signer's own images must keep to it.
pub fn token(context: &mut Context) -> Result<()> {
    const FORBIDDEN: &str = "panic=1";
    let Context { env, story, lab, .. } = trusting_signer(context)?;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let key = FORBIDDEN.split('=').next().unwrap_or_default();
    story.does(Operator, format!("allows the words of the command line one by one, and forbids {key}="));
    let before = lab.policy()?;
    let kept: Vec<&str> = before.lines().filter(|line| !line.starts_with("command_line = ")).collect();
    let allowed: Vec<_> = lab.system.cmdline.split(' ').filter(|word| *word != REQUIRED).collect();
    let rules = format!(
        "[command_line]\nallowed = {allowed:?}\nrequired = [{REQUIRED:?}]\nforbidden = [\"{key}=*\"]\n"
    );
    lab.apply(&format!("{}\n\n{rules}", kept.join("\n")))?;
    story.does(Operator, format!("signs an image with {FORBIDDEN} in its command line"));
    let cmdline = format!("{} {FORBIDDEN}", lab.system.cmdline);
    let system = System { cmdline, ..lab.system.clone() };
    let trust = system.path.trust(&env.images.keys)?;
    denied(env, lab, &system, &trust, &[&["command_line.forbidden", FORBIDDEN]])?;
    let findings = lab.last_record()?.findings;
    let other = findings.iter().find(|finding| !finding.to_string().contains(FORBIDDEN));
    ensure!(other.is_none(), "something else than the forbidden word was found: {other:?}");
    story.does(Verifier, format!("denies: {}", lab.last_record()?.summary.message));
    story.proves("denied: the forbidden word is named, and nothing else");
    lab.apply(&before)?;
    restore(env, lab)
}

/// What the floor wants of every command line.
const REQUIRED: &str = "systemd.import_credentials=no";

/// The next boot is denied, and the findings name all of this.
fn denied(env: &TestEnv, lab: &mut Lab, system: &System, trust: &Trust, named: &[&[&str]]) -> Result<()> {
    lab.off()?;
    lab.machine.install_trusting(env, system, trust)?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::PolicyMismatch.code())?;
    boot.pull_plug();
    named.iter().try_for_each(|texts| lab.was_found(texts))
}

fn restore(env: &TestEnv, lab: &Lab) -> Result<()> {
    lab.machine.install(env, &lab.system)
}

/// Sees to it that the enrolled machine's policy names the owner as signer, where `learn` wrote hashes.
fn trusting_signer(context: &mut Context) -> Result<&mut Context> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let policy = lab.policy()?;
    if policy.contains("sections = \"signed\"") {
        return Ok(context);
    }
    story.does(Operator, "lets the policy name the signer of the images instead of their hashes");
    let owner = hex(&Sha256::digest(env.images.keys.certificate(Signer::Owner)?));
    let policy = by_signer(&policy, &owner);
    lab.apply(&policy)?;
    Ok(context)
}

/// What `learn` wrote, with the signer in the place of the hashes of image, initrd and sections.
fn by_signer(policy: &str, signer: &str) -> String {
    let mut lines = Vec::new();
    let mut in_sections = false;
    for line in policy.lines() {
        if in_sections {
            in_sections = line != "]";
            continue;
        }
        match line.split_once(" = ") {
            Some(("sections", _)) => in_sections = true,
            Some(("initrd", _)) => {
                lines.extend(["initrd = \"signed\"".into(), "sections = \"signed\"".into()])
            }
            Some(("authenticode", _)) => lines.push(format!("signer = [\"sha256:{signer}\"]")),
            _ => lines.push(line.into()),
        }
    }
    lines.join("\n") + "\n"
}
