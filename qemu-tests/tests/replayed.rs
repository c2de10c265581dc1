//! Boots that were recorded once, and what an attacker makes of them: a real TPM is extended with it, the real agent sends it,
//! the real verifier judges it. Where no virtual machine of the lab comes to such a boot, or not in a minute.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![allow(dead_code, unused_imports, reason = "of shared files a part is used")]

#[path = "../../evidence/tests/common/boots.rs"]
mod boots;

use boots::{Appraised as _, Record, boot, log_of};
use halfkey_evidence::eventlog::kind;
use halfkey_testkit::loopback::{Loopback, text};
use halfkey_testkit::programs::Programs;
use std::process::Stdio;

/// A machine that boots as this one did.
struct Node {
    node: Loopback,
    id: String,
    line: String,
    records: Vec<Record>,
    _folder: tempfile::TempDir,
}

impl Node {
    fn enrolled(name: &str) -> Self {
        let programs = Programs::released();
        programs.check().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let node = Loopback::new(programs, folder.path()).unwrap();
        let id = node.enroll(&["root"]).unwrap();
        let (line, records) = (boot(name).line().to_owned(), boot(name).records());
        Self { node, id, line, records, _folder: folder }
    }

    /// The same, and this boot is its policy.
    fn with_policy(name: &str) -> Self {
        let mut node = Self::enrolled(name);
        let (code, said) = node.apply(&boot(name).learned());
        assert_eq!(code, 0, "{said}");
        node.power_on(&node.records.clone());
        let said = node.node.unlock_now(&["root"]).unwrap();
        assert!(said.status.success(), "{}", text(&said));
        node
    }

    fn apply(&self, policy: &str) -> (i32, String) {
        let file = self.node.folder.join("policy.toml");
        std::fs::write(&file, policy).unwrap();
        self.node
            .tenant
            .try_run(&["policy", "apply", file.to_str().unwrap(), "--node", &self.id, "--yes"])
            .unwrap()
    }

    fn power_on(&mut self, records: &[Record]) {
        self.node.power_on_with(&log_of(records), self.line.as_bytes()).unwrap();
    }

    /// The same must be denied, and this is found.
    #[track_caller]
    fn denied(&mut self, records: &[Record], named: &[&str]) {
        self.power_on(records);
        let said = self.node.unlock_now(&["root"]).unwrap();
        assert!(!said.status.success(), "{}", text(&said));
        let newest = &self.node.tenant.evidence(&self.id).unwrap().evidence[0];
        assert_eq!(newest.code.as_deref(), Some("policy_mismatch"), "{}", text(&said));
        let findings = self.node.tenant.record(newest.id).unwrap().findings;
        let found = |finding: &String| named.iter().all(|name| finding.contains(name));
        let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.iter().any(found), "{named:?}: {findings:#?}");
    }
}

/// Secure Boot is off, so firmware starts the option ROM of any card that somebody plugs in: before everything else.
#[test]
fn an_option_rom_that_no_rule_explains_is_denied() {
    let mut node = Node::with_policy("uki-no-secure-boot");
    let policy = boot("uki-no-secure-boot").learned();
    let start = policy.find("pcr2 = [").unwrap();
    let end = start + policy[start..].find("]\n").unwrap() + 2;
    let ignored =
        format!("{}{}", &policy[..start], &policy[end..]).replace("ignore = [1,", "ignore = [1, 2,");
    let (code, said) = node.apply(&ignored);

    let mut records = node.records.clone();
    let at = records.iter().position(|record| record.pcr == 2).unwrap();
    let image = records.iter().find(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let rom =
        Record { pcr: 2, kind: kind::EFI_BOOT_SERVICES_DRIVER, digest: vec![0x22; 32], ..image.clone() };
    records.insert(at, rom);
    node.denied(&records, &["pcr 2", &"22".repeat(32)]);
    assert!(code != 0 && said.contains("pcr 2 can be ignored only with secure_boot.required"), "{said}");
}

/// `exit` at the prompt of GRUB, and the firmware goes on to a boot entry that starts the kernel.
#[test]
fn grub_that_was_left_is_no_part_of_the_path() {
    let mut node = Node::with_policy("grub-shim-ms-keys");
    let mut records = node.records.clone();
    let images: Vec<_> =
        (0..records.len()).filter(|at| records[*at].kind == kind::EFI_BOOT_SERVICES_APPLICATION).collect();
    let returning = b"Returning from EFI Application from Boot Option";
    records.insert(*images.last().unwrap(), Record::of(4, kind::EFI_ACTION, returning));
    node.denied(&records, &["came back to the firmware"]);
}

/// The kernel of Debian 12 does not measure an initrd that its command line names: whoever knows that says nothing, and no
/// policy comes of such a boot.
#[test]
fn an_entry_is_not_learned_without_the_operators_word() {
    let mut node = Node::enrolled("systemd-boot-type1");
    for _ in 0..2 {
        node.power_on(&node.records.clone());
        let mut agent = node.node.unlock(&["root"]);
        let agent = agent.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while node.node.tenant.node(&node.id).unwrap().pending.is_none() {
            std::thread::yield_now();
        }
        let (code, said) = node.node.tenant.try_run(&["approve", &node.id, "--learn", "--yes"]).unwrap();
        assert!(
            code != 0 && said.contains("kernel_measures_initrd = true, a uki, or the events of grub"),
            "{said}"
        );
        assert!(said.contains("hint: boot a uki"), "{said}");
        // Approved for once it is unlocked; the next boot waits again.
        node.node.tenant.run(&["approve", &node.id, "--once", "--yes"]).unwrap();
        let said = agent.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", text(&said));
    }
    let (code, said) = node.node.tenant.try_run(&["policy", "show", &format!("node:{}", node.id)]).unwrap();
    assert!(code != 0, "a policy that nobody could have made:\n{said}");
}
