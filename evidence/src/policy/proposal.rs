//! What a node will boot next: whether a policy accepts it, and the rule that would.

use super::boot_path::{self, Path};
use super::command_line::{Floor, Rule, floor_of, normal, objection};
use super::learn::Assured;
use super::parsed::Policy;
use super::rules::{
    Allowed, Boot, CommandLine, Digest, Document, EventRule, Image, Initrd, Origin, Role, Sections,
};
use super::write::{Comments, Text};
use crate::Rejection;
use crate::quote::clip;
use crate::rejection::refuse;
use halfkey_measure::predict::MAX_COMMAND_LINE;
use halfkey_measure::{efi_stub, stub};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::policies::Finding;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};

/// Largest proposal, in bytes of JSON.
const MAX_PROPOSAL: usize = 64 << 10;
/// Images and sections that a proposal may have.
const MAX_IMAGES: usize = 8;
const MAX_SECTIONS: usize = 32;
/// Files that a boot loader may read.
const MAX_LOADER_FILES: usize = 256;
/// Longest text of what changed in a boot loader's configuration, in bytes.
const MAX_CHANGES: usize = 16 << 10;
/// Longest name and path, in bytes.
const MAX_NAME: usize = 128;
const MAX_PATH: usize = 1024;

/// Whether a policy accepts what a node proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// By its digests: name of the `[[boot]]`.
    Hash(String),
    /// By a signer: name of the `[[boot]]`. Decided at the boot, by its own Secure Boot events.
    Signer(String),
    /// As far as a proposal goes: names of the `[[boot]]`s, in the policy's order. GRUB measures each file and command of its own besides,
    /// and none of that is foretold.
    Grub(Vec<String>),
    /// Not: why, for the `[[boot]]` that fits best.
    No(Vec<Finding>),
}

/// Whether a policy accepts what a node proposed.
///
/// Of a boot's images only those from the kernel or UKI on are compared: what starts before them is not in a proposal.
pub fn covers(policy: &Policy, proposal: &Proposal) -> Cover {
    let document = &policy.compiled.document;
    let mut best: Option<Vec<Finding>> = None;
    let mut by_grub = Vec::new();
    for boot in document.boots.iter().rev() {
        let findings = Comparison { document, boot, proposal }.findings();
        if findings.is_empty() {
            let name = boot.name.clone();
            if Path::of(boot) == Path::Grub {
                by_grub.insert(0, name);
                continue;
            }
            return if boot.has_signer() { Cover::Signer(name) } else { Cover::Hash(name) };
        }
        if best.as_ref().is_none_or(|best| findings.len() < best.len()) {
            best = Some(findings);
        }
    }
    if by_grub.is_empty() { Cover::No(best.unwrap_or_default()) } else { Cover::Grub(by_grub) }
}

/// A proposal against one boot.
struct Comparison<'a> {
    document: &'a Document,
    boot: &'a Boot,
    proposal: &'a Proposal,
}

impl Comparison<'_> {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.images(&mut findings);
        self.initrd(&mut findings);
        self.sections(&mut findings);
        findings.extend(self.command_line());
        findings
    }

    fn rule(&self, part: &str) -> String {
        format!("boot {:?} {part}", self.boot.name)
    }

    fn images(&self, findings: &mut Vec<Finding>) {
        let before = loaders(self.boot).len();
        let own = &self.boot.images[before..];
        for (index, proposed) in self.proposal.images.iter().enumerate() {
            let what = image_name(proposed);
            let Some(image) = own.get(index) else {
                findings.push(finding(Some(4), &what, self.rule("images"), "no further image", "one more"));
                continue;
            };
            let rule = self.rule(&format!("image {} ({})", before + index + 1, image.role.name()));
            if let Allowed::Authenticode(allowed) = &image.allowed
                && !allowed.iter().any(|digest| digest.as_bytes() == &proposed.authenticode[..])
            {
                let expected = allowed.iter().map(Digest::to_string).collect::<Vec<_>>().join(" or ");
                let found = format!("authenticode {}", show(&proposed.authenticode));
                findings.push(finding(Some(4), &what, rule, &format!("authenticode {expected}"), &found));
            } else if matches!(image.allowed, Allowed::Signer(_)) && !self.document.secure_boot.required {
                findings.push(finding(Some(4), &what, rule, "secure_boot.required = true", "false"));
            }
        }
        if own.len() > self.proposal.images.len() {
            let expected = format!("{} images from the kernel or uki on", own.len());
            let found = self.proposal.images.len().to_string();
            findings.push(finding(Some(4), "images", self.rule("images"), &expected, &found));
        }
    }

    fn initrd(&self, findings: &mut Vec<Finding>) {
        if let Initrd::Digest(expected) = &self.boot.initrd
            && self.proposal.initrd.as_deref() != Some(expected.as_bytes())
        {
            let found = self.proposal.initrd.as_deref().map_or("none".to_owned(), show);
            findings.push(finding(Some(9), "initrd", self.rule("initrd"), &expected.to_string(), &found));
        }
    }

    fn sections(&self, findings: &mut Vec<Finding>) {
        let proposed = &self.proposal.sections;
        let expected: &[(String, Digest)] = match &self.boot.sections {
            Some(Sections::Signed) => return,
            Some(Sections::Digests(list)) => list,
            None => &[],
        };
        let same = |((name, digest), found): &(&(String, Digest), &ProposedSection)| {
            *name == found.name && digest.as_bytes() == &found.digest[..]
        };
        for ((name, digest), found) in expected.iter().zip(proposed).filter(|pair| !same(pair)) {
            let expected = format!("{name} {digest}");
            let found_text = format!("{} {}", clip(&found.name), show(&found.digest));
            let what = format!("section {name}");
            findings.push(finding(Some(11), &what, self.rule("sections"), &expected, &found_text));
        }
        if expected.len() != proposed.len() {
            let found = proposed.len().to_string();
            findings.push(finding(
                Some(11),
                "sections",
                self.rule("sections"),
                &format!("{} sections", expected.len()),
                &found,
            ));
        }
    }

    fn command_line(&self) -> Option<Finding> {
        let line = self.proposal.command_line.as_deref();
        let rule = match &self.boot.command_line {
            Some(own) => Rule::Own(own),
            None => Rule::Shared(&self.document.command_line),
        };
        line_finding(
            floor_of(self.boot, self.document.secure_boot.required),
            &[rule],
            line,
            self.boot.command_line.is_some().then(|| self.rule("command_line")),
        )
    }
}

/// What the rules, of which one must hold, have against a proposed line. A line that is not known is decided at the boot.
fn line_finding(
    floor: Floor,
    rules: &[Rule<'_>],
    line: Option<&str>,
    name: Option<String>,
) -> Option<Finding> {
    let line = line?;
    let mut first = None;
    for rule in rules {
        let objection = objection(*rule, floor, line)?;
        first.get_or_insert(objection);
    }
    let objection = first?;
    let rule = name.unwrap_or_else(|| format!("command_line.{}", objection.rule));
    Some(finding(None, "command line", rule, &objection.expected, &objection.found))
}

/// The `[[boot]]` that accepts just what was proposed. What starts before the proposal's own images (shim, boot loader), and what
/// it measures, is that of `base_boot`, the boot of the policy that the machine runs; of all of the policy's boots, if
/// they agree, when that is not among them. Its name is the proposal's and may be taken. What is said of the kernel of `base_boot`, or of
/// the kernels of all of them, holds for the same one, and for a new one by its release.
///
/// # Errors
/// Why it can't be made, or the policy's rules forbid it.
pub fn boot_of(
    proposal: &Proposal,
    from: &Policy,
    base_boot: Option<&str>,
    assured: Assured,
) -> Result<Boot, Vec<Finding>> {
    let document = &from.compiled.document;
    let mut findings = Vec::new();
    let base = base_boot.and_then(|name| document.boots.iter().find(|boot| boot.name == name));
    let bases: Vec<&Boot> = base.map_or_else(|| document.boots.iter().collect(), |base| vec![base]);
    let Some(base) = bases.first().copied() else { return Err(Vec::new()) };
    if bases.iter().any(|other| loaders(other) != loaders(base) || kept_events(other).ne(kept_events(base))) {
        let found = "a boot that no rule of this policy names";
        findings.push(finding(
            Some(4),
            "images",
            "base".to_owned(),
            "a boot of the policy to take the boot loader from",
            found,
        ));
    }
    let by_grub = |event: &EventRule| event.pcr == 8 || event.pcr == 9 && Path::of(base) != Path::Uki;
    if base.events.iter().any(by_grub) {
        let expected = "a boot loader that measures nothing of its own (grub does)";
        let rule = format!("boot {:?}", base.name);
        let found = "events that follow the kernel's name";
        findings.push(Finding {
            hint: Some("boot it once, and `halfkey approve NODE --learn`".to_owned()),
            ..finding(Some(8), "boot loader", rule, expected, found)
        });
    }
    findings.extend(proposed_line(document, &bases, proposal));
    let digest = |bytes: &[u8], what: &str, pcr: u8, findings: &mut Vec<Finding>| {
        let digest = Digest::new(bytes);
        if digest.is_none() {
            findings.push(finding(
                Some(pcr),
                what,
                "proposal".to_owned(),
                "a sha256 or sha384 digest",
                &show(bytes),
            ));
        }
        digest
    };
    let initrd = match &proposal.initrd {
        Some(bytes) => digest(bytes, "initrd", 9, &mut findings).map(Initrd::Digest),
        // Newer stubs add a secret of the machine to it: then the image says what it is.
        None if is_in_uki(proposal) && loaders(base).iter().all(|image| image.role == Role::Shim) => {
            Some(Initrd::InUki)
        }
        None => {
            let expected = "an initrd: it asks for the key, so whoever changes it has the key; of a uki that can be its section, if nothing but shim comes before";
            findings.push(finding(Some(9), "initrd", "floor".to_owned(), expected, "none"));
            None
        }
    };
    let mut images = loaders(base).to_vec();
    for proposed in &proposal.images {
        let role = Role::from_name(&proposed.role).unwrap_or(Role::Other);
        if let Some(digest) = digest(&proposed.authenticode, &image_name(proposed), 4, &mut findings) {
            images.push(Image {
                role,
                allowed: Allowed::Authenticode(vec![digest]),
                signer_also_signs: Vec::new(),
            });
        }
    }
    if !proposal
        .images
        .iter()
        .any(|image| matches!(Role::from_name(&image.role), Some(Role::Uki | Role::Kernel)))
    {
        findings.push(finding(
            Some(4),
            "images",
            "floor".to_owned(),
            "an image with role uki or kernel",
            "none",
        ));
    }
    let mut sections = Vec::new();
    for section in &proposal.sections {
        if let Some(digest) = digest(&section.digest, &format!("section {}", section.name), 11, &mut findings)
        {
            sections.push((section.name.clone(), digest));
        }
    }
    let (Some(initrd), true) = (initrd, findings.is_empty()) else { return Err(findings) };
    let uki = images.iter().any(|image| image.role == Role::Uki);
    let measures = measures_initrd(&bases, proposal);
    let boot = Boot {
        name: proposal.name.clone(),
        command_line: proposal.command_line.as_deref().map(|line| normal(line).to_owned()),
        initrd,
        sections: (!sections.is_empty()).then_some(Sections::Digests(sections)),
        images,
        events: kept_events(base).cloned().collect(),
        kernel_measures_initrd: !uki && (measures || assured.kernel_measures_initrd),
        origin: Origin::Document,
    };
    let lacks: Vec<_> = boot_path::lacks(&boot).iter().map(|lack| lack.finding("floor".to_owned())).collect();
    if !lacks.is_empty() {
        return Err(lacks);
    }
    Ok(boot)
}

/// Whether what the owner has said of kernels holds for the proposed one: it is the same, or its image says that it is of a release that measures
/// every initrd. What an older kernel is given, whoever writes the boot entry chooses.
fn measures_initrd(bases: &[&Boot], proposal: &Proposal) -> bool {
    let kernels =
        || proposal.images.iter().filter(|image| Role::from_name(&image.role) == Some(Role::Kernel));
    let is_same = |image: &Image| match &image.allowed {
        Allowed::Authenticode(digests) => {
            let is_it = |kernel: &ProposedImage| {
                digests.iter().any(|digest| digest.as_bytes() == &kernel.authenticode[..])
            };
            image.role == Role::Kernel && kernels().all(is_it)
        }
        Allowed::Signer(_) => false,
    };
    let said = |base: &&&Boot| base.kernel_measures_initrd;
    let is_known = bases.iter().filter(said).any(|base| base.images.iter().any(is_same));
    let is_new = |image: &ProposedImage| image.release.as_deref().is_some_and(efi_stub::measures_initrd);
    is_known || bases.iter().all(|base| base.kernel_measures_initrd) && kernels().all(is_new)
}

/// Whether the boot loader that a proposal is based on measures its own commands and files: then a rule for it is made of its boot only.
pub fn is_known_once_booted(proposal: &Proposal, from: &Policy, base_boot: Option<&str>) -> bool {
    let boots = &from.compiled.document.boots;
    let base = base_boot.and_then(|name| boots.iter().find(|boot| boot.name == name));
    let uki = proposal.images.iter().any(|image| Role::from_name(&image.role) == Some(Role::Uki));
    !uki && base.or(boots.first()).is_some_and(|base| Path::of(base) == Path::Grub)
}

/// The line must be one that the policy's rules allow: those of `[command_line]`, or the exact line of a boot that it is based on.
fn proposed_line(document: &Document, bases: &[&Boot], proposal: &Proposal) -> Option<Finding> {
    let mut rules: Vec<Rule<'_>> =
        bases.iter().filter_map(|base| base.command_line.as_deref()).map(Rule::Own).collect();
    let shared = document.command_line != CommandLine::None;
    let secure_boot = document.secure_boot.required;
    if shared || rules.is_empty() {
        rules.push(Rule::Shared(&document.command_line));
    }
    match &proposal.command_line {
        None if shared => None,
        None => Some(finding(
            None,
            "command line",
            "floor".to_owned(),
            "the command line that will be passed: the policy has no [command_line] that would judge it",
            "none",
        )),
        Some(line) => {
            let floor = bases.first().map_or(Floor::of_any(secure_boot), |base| floor_of(base, secure_boot));
            line_finding(floor, &rules, Some(line), None)
        }
    }
}

/// The images before the kernel or UKI.
fn loaders(boot: &Boot) -> &[Image] {
    let kernel = boot.images.iter().position(|image| matches!(image.role, Role::Uki | Role::Kernel));
    &boot.images[..kernel.unwrap_or(boot.images.len())]
}

/// Events that do not depend on the kernel: keys of shim, extensions; beside a UKI, what systemd has in PCR 9.
fn kept_events(boot: &Boot) -> impl Iterator<Item = &EventRule> {
    let uki = Path::of(boot) == Path::Uki;
    boot.events.iter().filter(move |event| matches!(event.pcr, 12..=14) || event.pcr == 9 && uki)
}

/// Whether the initrd is a section of the proposed image, and known by that.
pub fn is_in_uki(proposal: &Proposal) -> bool {
    let is_uki = |image: &ProposedImage| Role::from_name(&image.role) == Some(Role::Uki);
    let has_initrd = |section: &ProposedSection| section.name == stub::INITRD;
    proposal.initrd.is_none()
        && proposal.images.iter().any(is_uki)
        && proposal.sections.iter().any(has_initrd)
}

/// A `[[boot]]` as text, to be appended to a document.
pub fn boot_toml(boot: &Boot) -> String {
    let mut out = Text::default();
    out.boot(boot, &Comments::default());
    out.0
}

/// Reads a proposal: JSON text.
///
/// # Errors
/// `ProposalMalformed`: not JSON, too much of something, or digests that are not of the bank.
pub fn check_proposal(json: &[u8]) -> Result<Proposal, Rejection> {
    if json.len() > MAX_PROPOSAL {
        return refuse!(ProposalMalformed, "expected at most {MAX_PROPOSAL} bytes, found {}", json.len());
    }
    let proposal: Proposal = match serde_json::from_slice(json) {
        Ok(proposal) => proposal,
        Err(error) => return refuse!(ProposalMalformed, "expected a proposal as json, found {error}"),
    };
    if proposal.version != 1 {
        return refuse!(ProposalMalformed, "expected a proposal of version 1, found {}", proposal.version);
    }
    let Some(bank) = PcrBank::from_name(&proposal.bank) else {
        return refuse!(
            ProposalMalformed,
            "expected bank sha256 or sha384, found {:?}",
            clip(&proposal.bank)
        );
    };
    check_text("name", &proposal.name, MAX_NAME)?;
    check_count("images", proposal.images.len(), 1, MAX_IMAGES)?;
    check_count("sections", proposal.sections.len(), 0, MAX_SECTIONS)?;
    for image in &proposal.images {
        if !matches!(image.role.as_str(), "uki" | "kernel") {
            return refuse!(ProposalMalformed, "expected role uki or kernel, found {:?}", clip(&image.role));
        }
        check_text("path", &image.path, MAX_PATH)?;
        check_digest("authenticode", &image.authenticode, bank)?;
        if let Some(release) = &image.release {
            check_text("release", release, efi_stub::MAX_RELEASE)?;
        }
    }
    for (index, section) in proposal.sections.iter().enumerate() {
        let name = section.name.as_bytes();
        let printable = name.iter().all(|byte| matches!(byte, b'!'..=b'~'));
        if !name.starts_with(b".") || !(2..=8).contains(&name.len()) || !printable {
            return refuse!(
                ProposalMalformed,
                "expected the name of a section, found {:?}",
                clip(&section.name)
            );
        }
        if proposal.sections[..index].iter().any(|other| other.name == section.name) {
            return refuse!(ProposalMalformed, "expected each section once, found {} twice", section.name);
        }
        check_digest("section", &section.digest, bank)?;
    }
    if let Some(initrd) = &proposal.initrd {
        check_digest("initrd", initrd, bank)?;
    }
    if let Some(loader) = &proposal.loader {
        let files = loader.files.as_deref().unwrap_or_default();
        check_count("files", files.len(), 0, MAX_LOADER_FILES)?;
        files.iter().try_for_each(|file| check_digest("file", file, bank))?;
        check_text("boot loader", &loader.name, MAX_NAME)?;
        let is_text = |byte: u8| matches!(byte, b'\n' | b' '..=b'~');
        if loader.changes.len() > MAX_CHANGES || !loader.changes.bytes().all(is_text) {
            return refuse!(
                ProposalMalformed,
                "expected at most {MAX_CHANGES} bytes of printable ASCII as what changed of the boot loader"
            );
        }
    }
    if let Some(line) = &proposal.command_line
        && (line.len() > MAX_COMMAND_LINE || line.chars().any(char::is_control))
    {
        return refuse!(
            ProposalMalformed,
            "expected one line of at most {MAX_COMMAND_LINE} bytes as command line"
        );
    }
    Ok(proposal)
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), Rejection> {
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return refuse!(
            ProposalMalformed,
            "expected 1 to {max} bytes of one line as {what}, found {:?}",
            clip(text)
        );
    }
    Ok(())
}

fn check_count(what: &str, count: usize, min: usize, max: usize) -> Result<(), Rejection> {
    if !(min..=max).contains(&count) {
        return refuse!(ProposalMalformed, "expected {min} to {max} {what}, found {count}");
    }
    Ok(())
}

fn check_digest(what: &str, bytes: &[u8], bank: PcrBank) -> Result<(), Rejection> {
    if bytes.len() != bank.digest_len() {
        return refuse!(
            ProposalMalformed,
            "expected {} bytes of {} as {what}, found {}",
            bank.digest_len(),
            bank.name(),
            bytes.len()
        );
    }
    Ok(())
}

pub(super) fn finding(pcr: Option<u8>, what: &str, rule: String, expected: &str, found: &str) -> Finding {
    Finding {
        pcr,
        event: None,
        what: what.to_owned(),
        rule,
        expected: expected.to_owned(),
        found: found.to_owned(),
        hint: None,
    }
}

pub(super) fn image_name(image: &ProposedImage) -> String {
    format!("{} {}", clip(&image.role), image.path)
}

pub(super) fn show(bytes: &[u8]) -> String {
    Digest::new(bytes).map_or_else(|| format!("{} bytes", bytes.len()), |digest| digest.to_string())
}
