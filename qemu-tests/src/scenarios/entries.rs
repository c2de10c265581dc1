//! systemd-boot with an entry of type 1, whose kernel measures each initrd; and what somebody who can write the
//! EFI system partition makes of it.

use super::Context;
use super::loaders::denied;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::initrd::ExtraFile;
use crate::image::system::{Entry, System, names_initrd};
use crate::lab::{LABEL, Lab};
use crate::story::Story;
use crate::story::Who::{Attacker, Operator};
use halfkey_evidence::eventlog::{kind, parse};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::operator::EvidenceRecord;
use halfkey_testkit::hex;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;

/// PCR of what the kernel's EFI stub measures, and how the event of an initrd begins.
const STUB: u32 = 9;
const INITRD: [u8; 4] = 0x8f3b_22ec_u32.to_le_bytes();

/// No log says whether a kernel measures each initrd: the operator must.
pub(super) fn learn(story: &Story, lab: &Lab) -> Result<()> {
    story.does(Operator, format!("looks at the boot and runs: halfkey approve {LABEL}"));
    let (code, said) = lab.tenant.try_run(&["approve", LABEL, "--yes"])?;
    let texts = ["kernel_measures_initrd = true, a uki, or the events of grub", "hint: boot a uki"];
    let unsaid = texts.iter().find(|text| !said.contains(**text));
    ensure!(code != 0, "a boot whose initramfs nothing pins was learned:\n{said}");
    ensure!(unsaid.is_none(), "the refusal does not say {unsaid:?}:\n{said}");
    story.proves("refused, with the reason and what to do: nothing pins the initramfs on this path");
    story.does(Operator, "knows that this kernel does: halfkey approve --learn --kernel-measures-initrd");
    lab.tenant.run(&["approve", LABEL, "--learn", "--kernel-measures-initrd", "--yes"])?;
    Ok(())
}

/// The entry's `initrd` line goes, and its options name the initramfs: another file, or the same one with another content.
/// A kernel before 6.13 measures neither.
pub fn named(context: &mut Context) -> Result<()> {
    let (pretend, event) = pretender(context)?;
    let lab = context.lab()?;
    let honest = released(lab)?;
    let version = context.env.images.kernel(context.system().release)?.version.clone();
    let other = "evil.img".to_string();
    let same = format!("linux/initrd.img-{version}");
    for (path, does) in [
        (other, "names another initramfs in the options of the entry"),
        (same.clone(), "overwrites the initramfs, and names it in the options as systemd-boot did"),
    ] {
        let evil = System {
            extra: vec![pretend.clone()],
            entry: Entry::Names(path.clone()),
            ..context.lab()?.system.clone()
        };
        let digest = hex(&Sha256::digest(context.env.images.file(&evil, &path)?));
        let message = denied(context, does, |system| *system = evil, &[&["pcr 9", &digest]])?;
        context
            .story
            .does(Attacker, "had his /init add the event of the genuine initramfs to PCR 9 and to the log");
        let record = context.lab()?.last_record()?;
        pretended(&record, &event)?;
        let line =
            String::from_utf8_lossy(record.evidence.command_line.as_ref().context("no line")?).into_owned();
        ensure!(line.starts_with(&names_initrd(&path)), "another entry was booted: {line}");
        if path == same {
            ensure!(
                record.evidence.command_line == honest.evidence.command_line,
                "the line has changed: {line}"
            );
        }
        context.story.proves(format!("denied: {message}"));
    }
    Ok(())
}

/// No initramfs at all: the kernel mounts a file system of the attacker's, on a disk whose driver it has built in.
pub fn bare(context: &mut Context) -> Result<()> {
    let (pretend, event) = pretender(context)?;
    let lab = context.lab()?;
    let before = lab.policy()?;
    context.story.does(Operator, "allows any root= on the command line");
    let lab = context.lab()?;
    lab.apply(&any_root(&before, &lab.system.cmdline))?;
    let evil = System { extra: vec![pretend], entry: Entry::Bare, ..lab.system.clone() };
    let visitor = lab.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    lab.off()?;
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    let Context { env, .. } = context;
    let partition = env.images.bare_root(&evil, &visitor)?;
    let root = format!("root=PARTUUID={partition}");
    let words = evil.cmdline.split(' ').map(|word| if word.starts_with("root=") { &root } else { word });
    let cmdline = words.collect::<Vec<_>>().join(" ");
    context.lab()?.machine.plug_as_nvme(true);
    let does = "removes the initramfs from the entry and lets the kernel mount a root of his own";
    let found = [&["command_line", "the kernel itself could mount this one"][..]];
    let message = denied(context, does, |system| *system = System { cmdline, ..evil }, &found)?;
    pretended(&context.lab()?.last_record()?, &event)?;
    context.story.proves(format!("denied: {message}"));
    let lab = context.lab()?;
    lab.machine.plug_as_nvme(false);
    fs::rename(&kept, &visitor).context("can't put a disk back")?;
    lab.apply(&before)
}

/// The loader gives up, and the firmware's next boot entry starts the kernel: what is in PCR 4 is loader, return, kernel.
pub fn fails(context: &mut Context) -> Result<()> {
    let lab = context.lab()?;
    let line = released(lab)?.evidence.command_line.context("the agent sent no command line")?;
    let options = String::from_utf8_lossy(&line).trim_end().to_string();
    let message = denied(
        context,
        "has systemd-boot fail; the firmware's next boot entry is the kernel, with the same options",
        |system| system.entry = Entry::Fails(options),
        &[&["pcr 4", "came back to the firmware"]],
    )?;
    context.story.proves(format!("denied: {message}"));
    Ok(())
}

/// The last boot that was released.
fn released(lab: &Lab) -> Result<EvidenceRecord> {
    let list = lab.tenant.evidence(&lab.node)?.evidence;
    let last = list.into_iter().find(|summary| summary.outcome == "released");
    lab.tenant.record(last.context("no boot was released")?.id)
}

/// An attacker's /init, with the event of the genuine initramfs as it stands in the firmware's log.
fn pretender(context: &mut Context) -> Result<(ExtraFile, Vec<u8>)> {
    let log = released(context.lab()?)?.evidence.event_log.context("the agent sent no firmware log")?;
    let log = parse(&log).context("the log of a boot that was released")?;
    let genuine = log.events().find(|event| event.pcr == STUB && event.data.starts_with(&INITRD));
    let genuine = genuine.context("the kernel has measured no initrd")?;
    let digests: Vec<_> =
        log.algorithms().iter().filter_map(|(alg, _)| Some((*alg, log.digest(&genuine, *alg)?))).collect();
    let mut event = [STUB, kind::EVENT_TAG, u32::try_from(digests.len()).expect("few banks")]
        .map(u32::to_le_bytes)
        .concat();
    for (alg, digest) in &digests {
        event.extend([&alg.to_le_bytes()[..], digest].concat());
    }
    event.extend(u32::try_from(genuine.data.len()).expect("a short event").to_le_bytes());
    event.extend(genuine.data);

    let sha256 = log.digest(&genuine, Hash::Sha256.alg()).context("no SHA-256")?;
    let script = include_str!("../../guest/pretend.sh")
        .replace("@COMMAND@", &octal(&extend(STUB, sha256)))
        .replace("@EVENT@", &octal(&event));
    Ok((ExtraFile { path: "init".into(), content: script.into_bytes() }, event))
}

/// TPM2_PCR_Extend of the SHA-256 bank with an empty password.
fn extend(pcr: u32, digest: &[u8]) -> Vec<u8> {
    const SESSIONS: u16 = 0x8002;
    const PCR_EXTEND: u32 = 0x182;
    const PASSWORD: u32 = 0x4000_0009;
    let mut rest = [PCR_EXTEND, pcr, 9, PASSWORD].map(u32::to_be_bytes).concat();
    rest.extend([0; 5]);
    rest.extend(1u32.to_be_bytes());
    rest.extend(Hash::Sha256.alg().to_be_bytes());
    rest.extend(digest);
    let size = u32::try_from(rest.len() + 6).expect("a short command");
    [&SESSIONS.to_be_bytes()[..], &size.to_be_bytes(), &rest].concat()
}

/// For printf(1).
fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:03o}").expect("a String takes all");
        text
    })
}

/// The attacker's /init ran, and the agent took the log that it wrote.
fn pretended(record: &EvidenceRecord, event: &[u8]) -> Result<()> {
    let log = record.evidence.event_log.as_ref().context("the agent sent no firmware log")?;
    ensure!(log.ends_with(event), "the attacker's event is not in the log that the agent sent");
    Ok(())
}

/// The policy with its line as words, any `root=` among them.
fn any_root(policy: &str, line: &str) -> String {
    let (mut allowed, mut required) = (vec!["root=*".to_string()], Vec::new());
    for word in line.split(' ').filter(|word| !word.starts_with("root=")) {
        let floor = word.starts_with("systemd.import_credentials=") || word.starts_with("efi=");
        if floor { &mut required } else { &mut allowed }.push(word.to_string());
    }
    let kept: Vec<_> = policy.lines().filter(|line| !line.starts_with("command_line = ")).collect();
    format!("{}\n\n[command_line]\nallowed = {allowed:?}\nrequired = {required:?}\n", kept.join("\n"))
}
