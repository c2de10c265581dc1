//! What the agent says on the console while a machine boots: unlocking, fence, ways out, gate. Here is how it is said; when, is
//! where it happens. `agent/tests/golden/console.txt` shows all of it, with what [`crate::exchange::words`], [`crate::net`] and
//! [`crate::tpm`] say beside it.

use crate::error::{Error, Kind};
use std::fmt::Display;

// Looking for volumes

/// Nothing that could be unlocked is here.
pub const NO_TOKEN: &str = "no volume here has a halfkey token";
/// The same, after it was waited for.
pub const NONE_APPEARED: &str = "no enrolled volume appeared before the deadline";

/// Said once, while volumes are awaited; `missing` are UUIDs that the command line or crypttab name.
pub fn waiting_for_volumes(missing: &[String], seconds: u64) -> String {
    let what = match missing {
        [] => "an enrolled volume".to_owned(),
        missing => format!("volume {}", missing.join(", ")),
    };
    format!("waiting for {what}, {seconds} s at most")
}

/// Volumes that are named were awaited in vain.
pub fn did_not_appear(missing: &[String]) -> String {
    format!("volume {} did not appear", missing.join(", "))
}

/// Said once of each: what does not answer is left, and taken if it answers later.
pub fn does_not_answer(device: impl Display, seconds: u64) -> String {
    format!("{device} does not answer: not waited for any longer than {seconds} s")
}

/// A run of cryptsetup that was killed is still there: a disk holds it.
pub fn does_not_end(command: &str) -> String {
    format!("cryptsetup {command} was killed and does not end: a disk does not answer")
}

/// Nothing here is enrolled, for this reason.
pub fn not_enrolled(why: impl Into<String>) -> Error {
    Error::new(Kind::NotEnrolled, why).hint("to enroll, run in the booted system: halfkey-agent enroll")
}

/// A volume that can have no token.
pub fn luks1(path: impl Display) -> Error {
    not_enrolled(format!("{path}: LUKS version 1 has no tokens"))
        .hint("convert it: cryptsetup convert --type luks2")
}

// Verifiers are asked

/// Said once, before the first request; `trace` is 32 hex digits.
pub fn trace(trace: &str) -> String {
    format!("asking the verifiers; their logs have this as trace {trace}")
}

// Whether the volumes are those of the enrollment

/// A volume with a token of ours that is not among those that will be opened.
pub fn left_to_its_passphrase(path: impl Display) -> String {
    format!(
        "{path} has no token of the current enrollment and is left to its passphrase. hint: enroll it again with the others"
    )
}

/// Command line or crypttab want another name for a volume than the enrollment.
pub fn other_name(path: impl Display, theirs: &str, enrolled: &str) -> String {
    format!(
        "warning: command line or crypttab call {path} '{theirs}'; it is opened as '{enrolled}', its name at the enrollment"
    )
}

/// The header has other flags than the enrollment.
pub fn other_flags(path: impl Display, header: &[String], enrolled: &[String]) -> String {
    format!(
        "warning: {path}: its header has the flags [{}], it is opened with those of the enrollment [{}]. hint: to change them, enroll again",
        header.join(", "),
        enrolled.join(", ")
    )
}

/// What K sealed is not what is there.
pub fn not_sealed(path: impl Display, uuid: &str, mapping: &str, role: &str) -> Error {
    Error::volume(format!(
        "{path}: header and token are not those that were sealed at the enrollment: expected {uuid} as {mapping} ({role})"
    ))
    .hint("if the volume was changed on purpose (reencrypted, another name), enroll it again; else somebody tampered with the disk")
}

/// Two volumes that can't be told apart.
pub fn same_uuid(one: impl Display, other: impl Display) -> Error {
    Error::volume(format!("{one} and {other} have the same LUKS UUID"))
        .hint("one of them is a copy: unplug it, or give it another UUID (cryptsetup luksUUID)")
}

/// Two volumes that claim one name.
pub fn same_mapping(one: impl Display, other: impl Display, mapping: &str) -> Error {
    Error::volume(format!("{one} and {other} would both be '{mapping}'")).hint(
        "if their tokens were changed on purpose, enroll both again; else somebody tampered with the disks",
    )
}

/// No volume is of the enrollment that the verifier names.
pub fn none_is_current() -> Error {
    not_enrolled("no volume here has a token of the current enrollment")
}

/// Tokens that don't agree about which volumes the enrollment has.
pub fn other_volumes(path: impl Display, first: impl Display) -> Error {
    Error::volume(format!("{path}: its token names other volumes of the enrollment than that of {first}"))
        .hint("enroll all volumes again, in one run")
}

/// A volume of the enrollment that has lost its token.
pub fn token_is_gone(path: impl Display, uuid: &str) -> Error {
    Error::volume(format!(
        "{path}: volume {uuid} of the enrollment has no token of it, and nothing is opened beside it"
    ))
    .hint("if its header was changed on purpose, enroll all volumes again; else somebody tampered with the disk")
}

/// A volume of the enrollment that is missing.
pub fn volume_is_gone(uuid: &str) -> Error {
    Error::volume(format!(
        "volume {uuid} of the enrollment is not there, and nothing is opened without it: another could take its place afterwards"
    ))
    .hint("look at its disk and cable, and boot with the passphrase; if it is gone for good, enroll again without it")
}

/// The key that was released is not that of the keyslot.
pub fn wrong_key(path: impl Display, slot: u32) -> Error {
    Error::volume(format!(
        "{path}: the released key does not open keyslot {slot}: this header is not the enrolled one"
    ))
    .hint("if the volume was changed on purpose, enroll it again; else somebody tampered with the disk")
}

/// A volume that was taken for a member of something bigger since it was looked at.
pub fn became_a_part(path: impl Display) -> Error {
    Error::volume(format!("{path} has become a part of another device meanwhile"))
        .hint("is it a member of a RAID or multipath device that was assembled late?")
}

/// cryptsetup says that it opened the volume, and the kernel shows nothing of it.
pub fn no_mapping(path: impl Display, expected: impl Display) -> Error {
    Error::volume(format!("{path}: cryptsetup opened it, and there is no mapping {expected}"))
}

// Unlocking

/// rd.halfkey=off is on the command line.
pub const OFF: &str = "rd.halfkey=off: the volumes ask for their passphrases";
/// Nothing was unlocked, and there is no fence to close.
pub const NO_TPM: &str = "this machine has no TPM: the volumes ask for their passphrases";
/// Nothing was unlocked.
pub const FENCE_IS_CLOSED: &str = "the fence is closed: the volumes ask for their passphrases";
/// What was being done when the fence could not be closed.
pub const FENCE_NOT_CLOSED: &str = "the fence could not be closed";
/// After the failure of one enrollment.
pub const OTHER_ENROLLMENT: &str = "there is another enrollment on these disks: it is tried next";
/// The TPM refused to unseal in a session of before.
pub const PCRS_MOVED: &str = "PCRs moved between quote and unsealing: once more";
/// After an opening that failed in its middle.
pub const TAKEN_BACK: &str = "what was open is closed again: all volumes ask for their passphrases";
/// What was being done when that failed.
pub const NOT_TAKEN_BACK: &str = "what attestation opened could not be taken back";

/// This boot is beyond its window.
pub fn window_is_over() -> Error {
    Error::new(Kind::Fence, "the boot window of this boot is over: PCR 15 is not zero")
        .hint("volumes are unlocked once, in the initramfs; reboot to try again")
}

/// The verifier names an enrollment that no token here is of.
pub fn none_on_these_disks(enrollments: &[String]) -> Error {
    let found = enrollments.join(", ");
    Error::new(
        Kind::Refused,
        format!("the verifier's current enrollment of this node is none of those on its disks ({found})"),
    )
    .hint("was an old header restored? boot with the passphrase and enroll again: halfkey-agent enroll")
}

/// The verifier names another enrollment than a moment ago.
pub fn enrollment_changed() -> Error {
    Error::new(Kind::Refused, "the verifier's current enrollment of this node changed while it attested")
        .hint("reboot")
}

/// The verifier knows now that the disks are at another TPM.
pub fn verifier_was_told(refusal: &Error) -> String {
    format!("the verifier was told: {refusal}")
}

/// The verifier does not know that.
pub fn verifier_not_told(why: &Error) -> String {
    format!("the verifier could not be told: {why}")
}

/// A volume is open.
pub fn opened(path: impl Display, name: &str, slot: u32) -> String {
    format!("opened {path} as {name} with keyslot {slot}")
}

/// Another attempt comes, after this error of a server or of the way there.
pub fn trying_again(error: impl Display, seconds: u64) -> String {
    format!("{error}; trying again for {seconds} s")
}

// The fence

/// Before a poweroff that has no hint of its own.
pub const POWER_OFF_HINT: &str = "the fence (PCR 15) must not stay open. To boot with a passphrase anyway, add rd.halfkey=off to the kernel command line";
/// Said last.
pub const POWERING_OFF: &str = "powering off";

/// The firmware shows a TPM, and there is no device yet.
pub fn waiting_for_driver(seconds: u64) -> String {
    format!("waiting for the TPM's driver, {seconds} s at most")
}

/// The TPM did not answer, and is asked once more.
pub fn asking_again(error: &Error, seconds: u64) -> String {
    format!("{error}; asking again for {seconds} s")
}

/// Something else closed the boot window.
pub fn closed_meanwhile() -> Error {
    Error::new(
        Kind::Fence,
        "expected PCR 15 to be zero still, found it extended: the fence was closed while the volumes were unlocked",
    )
    .hint("something else asked for a passphrase or a shell in this boot; reboot to try again")
}

/// The TPM does not show what it was given.
pub fn not_confirmed() -> Error {
    Error::new(Kind::Fence, "PCR 15 was extended, and reading it back shows another value")
        .hint("the TPM or its bus can't be trusted: look at the hardware")
}

// Passphrases and shells

/// A shell comes.
pub const SHELL: &str = "what attestation opened is closed; this boot counts as attested no more";
/// What to do about [`asks_beside`].
pub const ENROLL_IT: &str = "enroll that volume as well, or open it from the running system";

/// A prompt comes, for a volume that is not enrolled.
pub fn asks_beside(mapping: &str) -> String {
    format!(
        "'{mapping}' is not enrolled and asks for its passphrase after the others were opened: they are closed again"
    )
}

/// Somebody else closes or checks something.
pub fn waiting_for_another(seconds: u64) -> String {
    format!("another halfkey-agent is at work: waiting for it, {seconds} s at most")
}

/// What was opened can't be closed, and a shell or a prompt would come over it.
pub fn still_open(error: Error) -> Error {
    error
        .context("no shell and no prompt may come over an open volume")
        .hint("for a boot with the disk closed, a passphrase and a shell: halfkey hold NODE, at the operator's workstation")
}

// The gate

/// There is nothing to check.
pub const GATE_NOTHING: &str = "gate: nothing was opened by attestation in this boot";
/// The same, by PCR 15.
pub const GATE_CLOSED: &str = "gate: the fence says closed: this boot goes on with its passphrase";
/// The same: what was released opened nothing, and is closed.
pub const GATE_NONE: &str = "gate: no volume could be opened: this boot goes on with its passphrase";
/// The root passes.
pub const GATE_PASSED: &str =
    "gate: the root and all that is mounted in it are on volumes that were opened in this boot";

/// The agent ended while it opened volumes.
pub fn gate_unfinished() -> Error {
    Error::new(Kind::Volume, "gate: the unlocking ended in the middle of the opening")
        .hint("what it opened is not known; reboot")
}

/// Something is mounted that was not opened.
pub fn gate_rogue(why: impl Display) -> Error {
    Error::new(Kind::Volume, format!("gate: {why}")).hint(
        "the disk was tampered with, or root= or the fstab of the root names a file system outside the enrolled volumes",
    )
}

/// The root is the right one, and PID 1 would find nothing to execute.
pub fn gate_damaged(why: impl Display) -> Error {
    Error::new(Kind::Volume, format!("gate: the system on the root can't be started: {why}"))
        .hint("the file system is damaged; to repair it with the passphrase: halfkey hold NODE, at the operator's workstation")
}
