//! A document made ready for a bank: every text that can be compared as a digest is one.

use super::boot_path::{self, Lack, Path};
use super::ima::ImaPolicy;
use super::rules::{Boot, CommandLine, Digest, Document, EventIs, EventRule, Listed, Sections};
use halfkey_measure::efi_stub::{self, utf16};
use halfkey_measure::stub::{self, section_name};
use halfkey_measure::{firmware, grub, systemd};
use halfkey_protocol::tpm::bank::PcrBank;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, RwLock};

/// A document with what follows from it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub document: Document,
    /// `[ima]`. No boot, learned or proposed, changes it.
    pub ima: Option<Arc<ImaPolicy>>,
    /// SHA-256 and SHA-384.
    banks: [OnceLock<BankRules>; 2],
    /// The lists of `[secure_boot]`.
    pub keys: Keys,
    pub memo: Memo,
}

/// `[secure_boot]` as sets.
#[derive(Debug)]
pub(super) struct Keys {
    pub pk: HashSet<Listed>,
    pub kek: HashSet<Listed>,
    pub db: HashSet<Listed>,
    pub authorities: HashSet<Listed>,
}

/// What a document says in one bank.
#[derive(Debug)]
pub(super) struct BankRules {
    pub built_in: &'static BuiltIn,
    /// `[[event]]` by PCR and digest: index into `limits`.
    events: HashMap<(u8, Digest), usize>,
    /// How many events each of them accepts.
    pub limits: Vec<u32>,
    /// Of each `[[boot]]`.
    pub boots: Vec<BootSteps>,
    /// What the kernel measures for a command line that is written in the document.
    pub lines: HashMap<Digest, String>,
}

/// The events of a boot that are compared in order, by PCR.
#[derive(Debug)]
pub(super) struct BootSteps {
    pub path: Path,
    /// What keeps it from pinning its initramfs: only in what was not checked as a document.
    pub lacks: Vec<Lack>,
    pub by_pcr: [Vec<Step>; 15],
}

/// One of them.
#[derive(Debug)]
pub(super) struct Step {
    /// What it may be.
    pub digests: Vec<Digest>,
    pub is: StepIs,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepIs {
    /// Index into the boot's events.
    Event(usize),
    /// Index into its sections: the name.
    SectionName(usize),
    /// The section.
    Section(usize),
}

impl Compiled {
    pub fn new(document: Document) -> Self {
        let set = |list: &[Listed]| list.iter().copied().collect();
        let keys = &document.secure_boot;
        let keys = Keys {
            pk: set(&keys.pk),
            kek: set(&keys.kek),
            db: set(&keys.db),
            authorities: set(&keys.authorities),
        };
        Self { document, ima: None, banks: Default::default(), keys, memo: Memo::default() }
    }

    /// The rules for a bank; made when a log of that bank comes first.
    pub fn bank(&self, bank: PcrBank) -> &BankRules {
        let index = match bank {
            PcrBank::Sha256 => 0,
            PcrBank::Sha384 => 1,
        };
        self.banks[index].get_or_init(|| BankRules::new(&self.document, bank))
    }
}

impl BankRules {
    fn new(document: &Document, bank: PcrBank) -> Self {
        let mut rules = Self {
            built_in: BuiltIn::of(bank),
            events: HashMap::new(),
            limits: Vec::new(),
            boots: Vec::new(),
            lines: HashMap::new(),
        };
        for event in &document.events {
            rules.add_event(event, bank);
        }
        rules.boots = document.boots.iter().map(|boot| BootSteps::new(boot, bank)).collect();
        let shared = match &document.command_line {
            CommandLine::Exact(lines) => lines.as_slice(),
            _ => &[],
        };
        for line in shared.iter().chain(document.boots.iter().filter_map(|boot| boot.command_line.as_ref())) {
            for digest in load_options(line, bank) {
                rules.lines.insert(digest, line.clone());
            }
        }
        rules
    }

    /// The same rule twice accepts two events.
    fn add_event(&mut self, event: &EventRule, bank: PcrBank) {
        let digests = digests(&event.is, bank);
        let known = digests.iter().find_map(|digest| self.events.get(&(event.pcr, *digest)).copied());
        let slot = known.unwrap_or_else(|| {
            self.limits.push(0);
            self.limits.len() - 1
        });
        self.limits[slot] += 1;
        for digest in digests {
            self.events.entry((event.pcr, digest)).or_insert(slot);
        }
    }

    /// The `[[event]]` that an event may be.
    pub fn event(&self, pcr: u8, digest: &[u8]) -> Option<usize> {
        if self.events.is_empty() {
            return None;
        }
        self.events.get(&(pcr, Digest::new(digest)?)).copied()
    }
}

impl BootSteps {
    fn new(boot: &Boot, bank: PcrBank) -> Self {
        let mut steps =
            Self { path: Path::of(boot), lacks: boot_path::lacks(boot), by_pcr: Default::default() };
        if let Some(Sections::Digests(sections)) = &boot.sections {
            for (index, (name, digest)) in sections.iter().enumerate() {
                let name = Digest::of(bank, &section_name(name));
                steps.by_pcr[11].push(Step { digests: vec![name], is: StepIs::SectionName(index) });
                steps.by_pcr[11].push(Step { digests: vec![*digest], is: StepIs::Section(index) });
            }
        }
        for (index, event) in boot.events.iter().enumerate() {
            if let Some(steps) = steps.by_pcr.get_mut(usize::from(event.pcr)) {
                steps.push(Step { digests: digests(&event.is, bank), is: StepIs::Event(index) });
            }
        }
        steps
    }
}

impl Step {
    pub fn allows(&self, digest: &[u8]) -> bool {
        self.digests.iter().any(|allowed| allowed.as_bytes() == digest)
    }
}

/// What an event rule's digest can be. Text is measured in one of a few ways: with or without a NUL, as UTF-16, and GRUB
/// leaves out the word that it writes before it.
fn digests(is: &EventIs, bank: PcrBank) -> Vec<Digest> {
    match is {
        EventIs::Digest(digest) => vec![*digest],
        EventIs::Text(text) => {
            if let Some((form, text)) = grub::read(text.as_bytes()) {
                return form.measured(text).map(|bytes| Digest::of(bank, &bytes)).collect();
            }
            let with_nul = format!("{text}\0");
            [text.as_bytes(), with_nul.as_bytes(), &utf16(text), &utf16(&with_nul)]
                .map(|bytes| Digest::of(bank, bytes))
                .to_vec()
        }
    }
}

/// What the kernel's EFI stub may measure for a command line.
pub(super) fn load_options(line: &str, bank: PcrBank) -> [Digest; 6] {
    efi_stub::forms_of(line).map(|bytes| Digest::of(bank, &bytes))
}

/// What systemd's stub may measure for the section `.cmdline` that a command line came from.
pub(super) fn sections_of(line: &str, bank: PcrBank) -> impl Iterator<Item = Digest> {
    stub::command_line_sections(line).map(move |bytes| Digest::of(bank, &bytes))
}

/// Events that need no rule, by digest.
#[derive(Debug)]
pub(super) struct BuiltIn {
    /// Firmware hands over: 0, or 0xffffffff (PC Client Platform Firmware Profile, section 3.3.2.2).
    pub separators: [Digest; 2],
    /// Strings of EV_EFI_ACTION, by PCR (section 10.4.4). Not those that say that something is switched off.
    pub actions: Vec<(u8, Digest)>,
    /// The one that says that what was started is over (PCR 4).
    pub returning: Digest,
    /// systemd has entered the initrd.
    pub enter_initrd: Digest,
    /// systemd 261 and later, in PCR 0 to 7, 9 and 12 to 14: what comes after it is the system's.
    pub os_separator: Digest,
    /// systemd 262 and later, in PCR 9.
    pub nvpcr_separator: Digest,
    /// Names of the sections that a stub measures.
    pub section_names: Vec<Digest>,
    /// `.cmdline`
    pub command_line_section: Digest,
    /// `.initrd`
    pub initrd_section: Digest,
}

impl BuiltIn {
    pub fn of(bank: PcrBank) -> &'static Self {
        static BUILT_IN: [OnceLock<BuiltIn>; 2] = [OnceLock::new(), OnceLock::new()];
        BUILT_IN[usize::from(bank == PcrBank::Sha384)].get_or_init(|| Self::new(bank))
    }

    fn new(bank: PcrBank) -> Self {
        Self {
            separators: firmware::SEPARATORS.map(|data| Digest::of(bank, &data)),
            actions: firmware::ACTIONS
                .iter()
                .map(|(pcr, text)| (*pcr, Digest::of(bank, text.as_bytes())))
                .collect(),
            returning: Digest::of(bank, firmware::RETURNING.as_bytes()),
            enter_initrd: Digest::of(bank, systemd::ENTER_INITRD.as_bytes()),
            os_separator: Digest::of(bank, systemd::OS_SEPARATOR.as_bytes()),
            nvpcr_separator: Digest::of(bank, systemd::NVPCR_SEPARATOR.as_bytes()),
            section_names: stub::sections().map(|name| Digest::of(bank, &section_name(name))).collect(),
            command_line_section: Digest::of(bank, &section_name(stub::COMMAND_LINE)),
            initrd_section: Digest::of(bank, &section_name(stub::INITRD)),
        }
    }
}

/// What verified events were found to be, by their digests, so that the next boot with the same keys costs no hashing of
/// them: dbx alone has tens of kilobytes.
///
/// Sound, because an entry is made only when the digest was recomputed from the content: another content with that digest would
/// be a collision. The digest covers the content only, not what it is taken for, so that is part of the key. Entries are
/// facts under one document; another document begins with none.
#[derive(Debug, Default)]
pub(super) struct Memo {
    known: RwLock<HashMap<(TakenFor, Digest), Judged>>,
}

/// As what an event was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TakenFor {
    /// A variable of Secure Boot.
    Variable,
    /// Who verified an image.
    Authority,
}

/// What a digest was found to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judged {
    /// A variable that is as the document asks: index of it, and whether it is SecureBoot and on.
    Variable(usize, bool),
    /// A certificate or hash.
    Authority(Listed),
}

/// Far more than the keys of a fleet.
const MAX_MEMO: usize = 1024;

impl Memo {
    pub fn get(&self, taken_for: TakenFor, digest: &[u8]) -> Option<Judged> {
        let known = self.known.read().ok()?;
        known.get(&(taken_for, Digest::new(digest)?)).copied()
    }

    pub fn put(&self, taken_for: TakenFor, digest: &[u8], judged: Judged) {
        if let (Ok(mut known), Some(digest)) = (self.known.write(), Digest::new(digest)) {
            if known.len() >= MAX_MEMO {
                known.clear();
            }
            known.insert((taken_for, digest), judged);
        }
    }
}
