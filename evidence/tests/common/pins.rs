//! Boots that tell the story of another one, and the verdicts over them.

use crate::common::boots::{Boot, Record, log_of};
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{Claims, Finding, Policy, Problem, evaluate};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;

pub const RETURNING: &[u8] = b"Returning from EFI Application from Boot Option";

pub const ROOT: &str = "root=UUID=0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0002";

/// Tags of the kernel's EFI stub.
pub const INITRD: [u8; 4] = 0x8f3b_22ec_u32.to_le_bytes();

pub const LOAD_OPTIONS: [u8; 4] = 0x8f3b_22ed_u32.to_le_bytes();

/// The verdict over this log, as if the TPM had quoted what it replays to, and over systemd's log.
pub fn judge(policy: &Policy, records: &[Record], systemd: Option<&[u8]>, line: &str) -> Vec<Finding> {
    let bytes = log_of(records);
    let log = replay(&bytes, PcrBank::Sha256).unwrap().assume_with(systemd).unwrap();
    evaluate(policy, &log, &Claims { command_line: Some(line.as_bytes()) }).findings
}

pub fn findings(policy: &Policy, records: &[Record], line: &str) -> Vec<Finding> {
    judge(policy, records, None, line)
}

#[track_caller]
pub fn denied(findings: &[Finding], by: &str) {
    assert!(findings.iter().any(|finding| finding.to_string().contains(by)), "{by}: {findings:?}");
}

pub fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

#[track_caller]
pub fn refused(text: &str, by: &str) {
    let problems = Policy::parse(text).map(|_| ()).expect_err(by);
    let floor = |problem: &&Problem| problem.floor && problem.message.contains(by);
    assert!(problems.iter().any(|problem| floor(&problem)), "{by}: {problems:?}");
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

pub fn is_tag(record: &Record, tag: [u8; 4]) -> bool {
    record.pcr == 9 && record.data.starts_with(&tag)
}

/// The boot with another line handed to its kernel.
pub fn with_line(boot: &Boot, line: &str) -> Vec<Record> {
    let mut records = boot.records();
    let options = utf16(&format!("{line}\0"));
    for record in &mut records {
        if record.pcr == 12 {
            *record = Record::of(12, kind::IPL, &options);
        } else if is_tag(record, LOAD_OPTIONS) {
            record.digest = Hash::Sha256.digest(&[&options]);
        } else if let Some(text) = grub_text(record, line) {
            *record = Record { data: record.data.clone(), ..Record::of(8, kind::IPL, text.as_bytes()) };
            record.data.truncate(record.data.windows(2).position(|end| end == b": ").unwrap() + 2);
            record.data.extend(text.bytes().chain([0]));
        }
    }
    records
}

/// What GRUB measures of a line that it hands on: the command with its kernel, and the line itself.
fn grub_text(record: &Record, line: &str) -> Option<String> {
    let data = std::str::from_utf8(&record.data).ok()?.trim_end_matches('\0');
    let (before, said) = match data.strip_prefix("grub_cmd: linux ") {
        Some(said) => ("linux ", said),
        None => ("", data.strip_prefix("kernel_cmdline: ")?),
    };
    let kernel = said.split(' ').next()?;
    let line = line.strip_prefix(&format!("BOOT_IMAGE={kernel} ")).unwrap_or(line);
    Some(format!("{before}{kernel} {line}"))
}

/// What `[command_line]` accepts in place of the boot's own line.
pub fn with_tokens(text: &str, allowed: &str, required: &str) -> String {
    let own = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
    let shared = format!("[command_line]\nallowed = {allowed}\nrequired = {required}\n\n[[boot]]");
    text.replace(own, "").replacen("[[boot]]", &shared, 1)
}

/// The record of systemd's log that a PCR was extended with a digest.
pub fn systemd(pcr: u8, digest: &str, text: &str) -> Vec<u8> {
    format!(
        "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content\":{{\"eventType\":\"phase\",\"string\":\"{text}\"}}}}\n"
    )
    .into_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
