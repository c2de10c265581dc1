//! What pins the initramfs, by boot path.
//!
//! That an event is there proves nothing: whatever runs can extend a PCR with what is missing, and the log is its word. What gets
//! control must be pinned by a measurement that was made before it ran, and who makes that measurement differs.
//!
//! | path | who says what the initramfs is |
//! | --- | --- |
//! | [`Path::Uki`] | the image that it is a section of; the kernel, of what the stub handed to it |
//! | [`Path::Grub`] | GRUB, which measures every file that it reads and every command that makes it read one |
//! | [`Path::Kernel`] | the kernel, if it is one that measures an initrd wherever it comes from (Linux c004703ed7ae) |

use super::rules::{Allowed, Boot, EventIs, Image, Initrd, Role, Sections};
use halfkey_measure::{grub, stub};
use halfkey_protocol::wire::policies::Finding;
use std::fmt;

/// How a kernel comes to its initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Inside a unified kernel image.
    Uki,
    /// GRUB reads the file.
    Grub,
    /// A loader hands it to the kernel, or the kernel looks for what `initrd=` names.
    Kernel,
}

/// What a `[[boot]]` lacks to pin its initramfs.
#[derive(Clone, Debug)]
pub(super) struct Lack {
    pub part: Part,
    pub expected: &'static str,
    pub found: String,
    /// What to do about it; not in a finding, which is about a boot and not about a document.
    pub hint: Option<&'static str>,
}

impl Lack {
    /// As a finding without an event.
    pub fn finding(&self, rule: String) -> Finding {
        Finding {
            pcr: None,
            event: None,
            what: "boot path".to_owned(),
            rule,
            expected: format!("{}{}", self.part.key(), self.expected),
            found: self.found.clone(),
            hint: None,
        }
    }
}

/// As a problem of a document.
impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}expected {}, found {}", self.part.key(), self.expected, self.found)
    }
}

/// Which part of a `[[boot]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Boot,
    Initrd,
    Sections,
    /// By its index.
    Image(usize),
}

impl Part {
    fn key(self) -> &'static str {
        match self {
            Self::Boot => "",
            Self::Initrd => "initrd: ",
            Self::Sections => "sections: ",
            Self::Image(_) => "image: ",
        }
    }
}

impl Path {
    pub fn of(boot: &Boot) -> Self {
        if boot.images.iter().any(|image| image.role == Role::Uki) {
            return Self::Uki;
        }
        if commands(boot).any(|command| grub::initrds_of(command).is_some()) {
            return Self::Grub;
        }
        Self::Kernel
    }
}

/// The commands of GRUB that a boot lists.
fn commands(boot: &Boot) -> impl Iterator<Item = &str> {
    boot.events.iter().filter(|event| event.pcr == 8).filter_map(|event| match &event.is {
        EventIs::Text(text) => grub::command_of(text),
        EventIs::Digest(_) => None,
    })
}

/// What the commands of a boot's listing pass to a kernel, as it gets that, but for quotes.
pub(super) fn passed(boot: &Boot) -> impl Iterator<Item = String> {
    let said = commands(boot).filter_map(grub::passed_by);
    said.map(grub::as_passed)
}

/// Whether a boot says which kernel it starts. With GRUB that need not be an image of its own: where nobody asks firmware or shim to verify
/// it, GRUB alone has measured its file, and the list of all that GRUB does and reads pins it.
pub(super) fn names_kernel(boot: &Boot) -> bool {
    if boot.images.iter().any(|image| matches!(image.role, Role::Uki | Role::Kernel)) {
        return true;
    }
    let other_than_initrd = |is: &EventIs| match (is, &boot.initrd) {
        (EventIs::Digest(file), Initrd::Digest(initrd)) => file != initrd,
        _ => false,
    };
    Path::of(boot) == Path::Grub
        && commands(boot).any(|command| grub::kernel_of(command).is_some())
        && boot.events.iter().any(|event| event.pcr == 9 && other_than_initrd(&event.is))
}

/// Whatever keeps a `[[boot]]` from pinning its initramfs.
pub(super) fn lacks(boot: &Boot) -> Vec<Lack> {
    let mut lacks = Lacks::default();
    for (index, image) in boot.images.iter().enumerate() {
        let payload = image.role == Role::Kernel && boot.images[..index].iter().any(is_signed_uki);
        if image.has_signers() && image.role != Role::Uki && !payload {
            lacks.add(
                Part::Image(index),
                "authenticode",
                "signer: only a uki has its initramfs under its signature; what comes before one, and a kernel without one, must be known \
                 by its hash",
            );
        }
        if image.role == Role::Uki && boot.images[..index].iter().any(|image| image.role == Role::Uki) {
            lacks.add(Part::Image(index), "one uki", "another");
        }
    }
    match Path::of(boot) {
        Path::Uki => uki(boot, &mut lacks),
        Path::Grub => grub(boot, &mut lacks),
        Path::Kernel => {
            by_digest(boot, &mut lacks);
            if !boot.kernel_measures_initrd && boot.images.iter().any(|image| image.role == Role::Kernel) {
                lacks.add_with(
                    Part::Boot,
                    "kernel_measures_initrd = true, a uki, or the events of grub",
                    UNMEASURED,
                    MEASURED,
                );
            }
        }
    }
    lacks.0
}

#[derive(Default)]
struct Lacks(Vec<Lack>);

impl Lacks {
    fn add(&mut self, part: Part, expected: &'static str, found: &str) {
        self.0.push(Lack { part, expected, found: found.to_owned(), hint: None });
    }

    fn add_with(&mut self, part: Part, expected: &'static str, found: &str, hint: &'static str) {
        self.0.push(Lack { part, expected, found: found.to_owned(), hint: Some(hint) });
    }
}

/// What is said of a path on which nobody measures the initrd.
const UNMEASURED: &str = "a kernel that is given its initrd: most kernels do not measure one that `initrd=` names on their command line, so whoever writes the boot \
     entry chooses the initramfs, and that makes the missing events itself";
/// What to do about that.
const MEASURED: &str = "boot a uki (`dracut --uefi`, `ukify`); or, if this kernel measures every initrd (Linux 6.13 and later, commit c004703ed7ae), say \
     kernel_measures_initrd = true, as `halfkey policy learn NODE --kernel-measures-initrd`, `halfkey approve` and `halfkey proposal accept` do";

fn grub(boot: &Boot, lacks: &mut Lacks) {
    by_digest(boot, lacks);
    if boot.kernel_measures_initrd {
        lacks.add(
            Part::Boot,
            "kernel_measures_initrd for a kernel that loads its initrd itself",
            "it beside the events of grub",
        );
    }
    let before = boot.images.iter().take_while(|image| image.role != Role::Kernel);
    if before.count() == 0 {
        lacks.add(Part::Boot, "an image with role loader before the kernel", "none");
    }
    let listed =
        |initrd| boot.events.iter().any(|event| event.pcr == 9 && event.is == EventIs::Digest(initrd));
    if let Initrd::Digest(initrd) = boot.initrd
        && !listed(initrd)
    {
        lacks.add_with(
            Part::Initrd,
            "a [[boot.event]] of pcr 9 with this digest",
            "none: what grub reads is judged in its order, the initrd too",
            "`halfkey policy learn NODE` writes all of them",
        );
    }
}

fn uki(boot: &Boot, lacks: &mut Lacks) {
    if boot.kernel_measures_initrd {
        lacks.add(
            Part::Boot,
            "kernel_measures_initrd for a kernel that loads its initrd itself",
            "it beside a uki",
        );
    }
    let position = boot.images.iter().position(|image| image.role == Role::Uki).unwrap_or_default();
    let signed = boot.images.get(position).is_some_and(Image::has_signers);
    match &boot.sections {
        None => lacks.add_with(
            Part::Boot,
            "sections of the uki",
            "none",
            "sections = [..], or \"signed\" if it has a signer",
        ),
        Some(Sections::Signed) if !signed => {
            lacks.add(
                Part::Sections,
                "digests",
                "\"signed\": the uki has no signer that could vouch for them",
            );
        }
        Some(Sections::Digests(list)) if !list.iter().any(|(name, _)| name == stub::INITRD) => lacks.add(
            Part::Sections,
            ".initrd among them",
            "none: a kernel without an initramfs starts what its root file system has",
        ),
        Some(_) => {}
    }
    match &boot.initrd {
        Initrd::Digest(_) => return,
        Initrd::Signed if !signed => {
            lacks.add(Part::Initrd, "a digest", "\"signed\": the uki has no signer that could vouch for it");
        }
        Initrd::InUki if signed || !matches!(boot.sections, Some(Sections::Digests(_))) => lacks.add_with(
            Part::Initrd,
            "a uki with authenticode and its sections as digests",
            "\"in-uki\" without them",
            "\"signed\", if the uki is known by its signer",
        ),
        Initrd::Signed | Initrd::InUki => {}
    }
    if let Some(before) = may_add_initrd(&boot.images[..position]) {
        let initrd = if boot.initrd == Initrd::InUki { "in-uki" } else { "signed" };
        let role = before.role.name();
        let found = format!(
            "\"{initrd}\" and role {role} before the uki, which can add one that only the digest would show"
        );
        lacks.add(Part::Initrd, "a digest, or nothing but shim before the uki", &found);
    }
}

/// The first image before a UKI that may have added an initrd to the one that is its section: newer stubs pass on what an earlier stage
/// has left for them. Shim leaves none; of any other program nobody knows, and what shim starts is no second shim.
fn may_add_initrd(before: &[Image]) -> Option<&Image> {
    let mut shims = 0;
    before.iter().find(|image| {
        shims += usize::from(image.role == Role::Shim);
        image.role != Role::Shim || shims > 1
    })
}

/// No image that could vouch for another initrd.
fn by_digest(boot: &Boot, lacks: &mut Lacks) {
    match boot.initrd {
        Initrd::Digest(_) => {}
        Initrd::Signed => {
            lacks.add(Part::Initrd, "a digest", "\"signed\": no uki has a signer that could vouch for it");
        }
        Initrd::InUki => lacks.add(Part::Initrd, "a digest", "\"in-uki\" and no uki"),
    }
    if boot.sections.is_some() {
        lacks.add(Part::Sections, "an image with role uki", "none: only its stub measures sections");
    }
}

fn is_signed_uki(image: &Image) -> bool {
    image.role == Role::Uki && image.has_signers()
}

impl Image {
    /// Known by its signer.
    pub(super) fn has_signers(&self) -> bool {
        matches!(self.allowed, Allowed::Signer(_))
    }
}
