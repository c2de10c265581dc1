//! `halfkey policy predict`: what the next boot will measure, before it happens.

pub mod keys;
pub mod machine;
pub mod package;
pub mod values;

use crate::ask::confirm;
use crate::cli::{PredictArgs, Switch};
use crate::client::scope;
use crate::commands::policy::apply;
use crate::commands::policy::predict::machine::{Machine, only_way};
use crate::commands::policy::predict::values::{Base, Expected, Value};
use crate::context::Context;
use crate::documents::change::PolicyChange;
use crate::documents::draft;
use crate::documents::governed::{Governed, extendable};
use crate::documents::signed::{self, SignedByUs};
use crate::documents::signing::SigningContext;
use crate::documents::source::{self, Source};
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render;
use crate::render::text::clean;
use crate::render::words;
use crate::trust::sequence::SequenceHead;
use halfkey_evidence::policy::rules::{Allowed, Boot, Digest, Image, Initrd, Origin, Role, Sections};
use halfkey_evidence::policy::{self, Cover, Policy};
use halfkey_measure::predict::{Circumstances, from_kernel, from_uki};
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{PolicyRecord, Scope};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Kernels have some ten MiB, UKIs and initrds up to some hundred.
const MAX_IMAGE: u64 = 1 << 30;

/// `halfkey policy predict --json`.
#[derive(Serialize)]
pub struct Predicted {
    /// The machine whose last boot was taken for what is not in the files, and that boot.
    pub base: Option<String>,
    /// One of each image.
    pub boots: Vec<Prediction>,
    /// The policy that they were added to.
    pub applied: Option<PolicyRecord>,
}

/// One boot.
#[derive(Serialize)]
pub struct Prediction {
    /// Name of the boot.
    pub name: String,
    /// The image.
    pub path: String,
    /// What would have to be given besides.
    pub missing: Vec<&'static str>,
    /// Whether it was computed for machines with Secure Boot on.
    pub secure_boot: bool,
    /// Its events.
    pub events: Vec<Expected>,
    /// PCRs, as far as they can be known.
    pub pcrs: Vec<Value>,
    /// The `[[boot]]`, unless something is missing.
    pub block: Option<String>,
    /// The `[[boot]]` that allows it already.
    pub allowed_by: Option<String>,
    #[serde(skip)]
    proposal: Proposal,
}

/// Predicts, prints, and perhaps adds.
///
/// # Errors
/// `Usage` for files that can't be used; `Failed` when something is missing for --add, or the answer is no.
pub fn run(context: &Context, args: &PredictArgs) -> Result<()> {
    if !args.files.db.is_empty() || !args.files.kek.is_empty() {
        return keys::run(context, args);
    }
    let signing = (args.base.is_some() || args.add).then(|| SigningContext::open(context)).transpose()?;
    let machine = match &signing {
        Some(signing) => Machine::of(signing, args)?,
        None => None,
    };
    let target = match &signing {
        Some(signing) if args.add => {
            let head = signing.head()?;
            Some((target(signing, args)?, head))
        }
        _ => None,
    };
    let scope_policy = target.as_ref().map(|(own, _)| Source::from(own).policy()).transpose()?;
    let from = scope_policy.as_ref().or(machine.as_ref().and_then(|machine| machine.policy.as_ref()));

    let bank = machine.as_ref().map_or(args.bank.pcr_bank(), |machine| machine.boot.bank());
    let secure_boot = match (args.secure_boot, &machine) {
        (Some(switch), _) => switch == Switch::On,
        (None, Some(machine)) => values::secure_boot(&*machine.boot.log()?),
        // To look at, it is said beside the result; what is signed is not guessed.
        (None, None) if args.add => return Err(machine::unknown_secure_boot()),
        (None, None) => true,
    };
    let base =
        machine.as_ref().map(|machine| format!("{}, evidence {}", machine.label, machine.boot.number()));
    let files = read(args, bank, secure_boot)?;
    let mut boots = Vec::with_capacity(files.len());
    for (path, proposal) in files {
        let assured = args.kernel_measures_initrd;
        boots.push(predict(path, proposal, bank, secure_boot, from, machine.as_ref(), assured)?);
    }
    let (Some(signing), Some((own, head))) = (&signing, target) else {
        let result = Predicted { base, boots, applied: None };
        return context.out.value(&result, || shown(&result));
    };
    let mut result = Predicted { base, boots, applied: None };
    context.out.note(&shown(&result));
    result.applied = add(signing, own, head, &result.boots, args.yes)?;
    context.out.value(&result, || match &result.applied {
        Some(record) => apply::applied(record),
        None => "nothing to add: the policy allows all of it already".to_owned(),
    })
}

fn target(signing: &SigningContext<'_>, args: &PredictArgs) -> Result<SignedByUs> {
    let scope = match (&args.target.group, &args.target.node) {
        (Some(name), _) => Scope::Group(scope::group(name)?),
        (None, Some(node)) => {
            let id = signing.node(node)?;
            let governed = Governed::fetch(signing, id)?;
            return extendable(signing, governed.to_extend(id)?);
        }
        (None, None) => return Err(Error::usage("--add needs --group or --node")),
    };
    let own = signed::current(&signing.client, &scope, &signing.key, &signing.ledger()?)?;
    own.filter(|own| !own.withdrawn()).ok_or_else(|| {
        Error::failed(format!("{scope} has no policy that this could be added to"))
            .hint("make its first with `halfkey policy learn NODE` and `policy apply`")
    })
}

/// Each image with what it will measure.
fn read(args: &PredictArgs, bank: PcrBank, secure_boot: bool) -> Result<Vec<(String, Proposal)>> {
    let initrds: Vec<Vec<u8>> =
        args.initrd.iter().map(|path| source::read(path, MAX_IMAGE)).collect::<Result<_>>()?;
    let one = |path: &str, name: &str, content: &[u8], uki: bool| {
        let name = args.name.as_deref().unwrap_or(name);
        let about = Circumstances { name, bank, secure_boot };
        let made = if uki {
            from_uki(content, path, &about)
        } else {
            let initrds: Vec<_> = initrds.iter().map(Vec::as_slice).collect();
            from_kernel(content, path, &initrds, args.cmdline.as_deref(), &about)
        };
        made.map(|proposal| (path.to_owned(), proposal)).map_err(|e| Error::usage(format!("{path}: {e}")))
    };
    let file = |path: &Path, uki: bool| -> Result<Vec<(String, Proposal)>> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = name.trim_end_matches(".efi").trim_start_matches("vmlinuz-");
        Ok(vec![one(&path.display().to_string(), name, &source::read(path, MAX_IMAGE)?, uki)?])
    };
    match (&args.files.uki, &args.files.kernel, &args.files.package) {
        (Some(path), ..) => file(path, true),
        (_, Some(path), _) => file(path, false),
        (.., Some(path)) => {
            let images = package::images(path, MAX_IMAGE)?;
            if args.name.is_some() && images.len() > 1 {
                return Err(Error::usage(format!(
                    "--name is for one boot, the package has {} images",
                    images.len()
                )));
            }
            images.iter().map(|image| one(&image.path, &image.name, &image.content, image.uki)).collect()
        }
        _ => Err(Error::usage("none of --uki, --kernel, --package, --db and --kek is given")),
    }
}

fn predict(
    path: String,
    proposal: Proposal,
    bank: PcrBank,
    secure_boot: bool,
    from: Option<&Policy>,
    machine: Option<&Machine>,
    assured: bool,
) -> Result<Prediction> {
    let log = machine.map(|machine| machine.boot.log()).transpose()?;
    // What the policy calls the machine's boot: its images before the kernel stay.
    let running = match (machine, from) {
        (Some(machine), Some(from)) => machine.boot.by(from)?.boot.map(|running| running.name),
        _ => None,
    };
    let base_name = running.or_else(|| from.and_then(only_way).map(|boot| boot.name.clone()));
    let base = match (machine, &log) {
        (Some(machine), Some(log)) => Some(Base { boot: &machine.boot, log, before: machine.before()? }),
        _ => None,
    };
    let mut missing = Vec::new();
    if proposal.initrd.is_none() && !policy::is_in_uki(&proposal) {
        missing.push("the initrd (--initrd FILE)");
    }
    if proposal.command_line.is_none() && from.is_none() {
        missing.push("the command line (--cmdline TEXT)");
    }
    if from.is_none() && !assured && proposal.images.iter().all(|image| image.role != Role::Uki.name()) {
        missing.push("whether the kernel measures every initrd (--kernel-measures-initrd)");
    }
    let allowed_by = from.and_then(|from| match policy::covers(from, &proposal) {
        Cover::Hash(name) | Cover::Signer(name) => Some(name),
        Cover::Grub(mut names) => names.pop(),
        Cover::No(_) => None,
    });
    let block = match from {
        _ if !missing.is_empty() => None,
        Some(_) if allowed_by.is_some() => None,
        Some(from) => {
            Some(policy::boot_toml(&draft::proposed(&proposal, from, base_name.as_deref(), assured)?))
        }
        None => Some(policy::boot_toml(&alone(&proposal, assured)?)),
    };
    Ok(Prediction {
        name: proposal.name.clone(),
        path,
        missing,
        secure_boot,
        events: values::events(&proposal, bank),
        pcrs: values::values(&proposal, bank, base.as_ref()),
        block,
        allowed_by,
        proposal,
    })
}

/// A boot that starts with these images: firmware loads them itself.
fn alone(proposal: &Proposal, kernel_measures_initrd: bool) -> Result<Boot> {
    let digest = |bytes: &Bytes| {
        Digest::new(bytes)
            .ok_or_else(|| Error::failed("expected digests of 32 or 48 bytes in what was predicted"))
    };
    let image = |image: &halfkey_protocol::wire::ProposedImage| -> Result<Image> {
        let role = Role::from_name(&image.role).unwrap_or(Role::Other);
        Ok(Image {
            role,
            allowed: Allowed::Authenticode(vec![digest(&image.authenticode)?]),
            signer_also_signs: Vec::new(),
        })
    };
    let sections =
        proposal.sections.iter().map(|section| Ok((section.name.clone(), digest(&section.digest)?)));
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let initrd = match &proposal.initrd {
        Some(initrd) => Initrd::Digest(digest(initrd)?),
        None if policy::is_in_uki(proposal) => Initrd::InUki,
        None => return Err(Error::failed("the initrd is not known")),
    };
    Ok(Boot {
        name: proposal.name.clone(),
        command_line: proposal.command_line.clone(),
        initrd,
        sections: (!sections.is_empty()).then_some(Sections::Digests(sections)),
        images: proposal.images.iter().map(image).collect::<Result<_>>()?,
        events: Vec::new(),
        kernel_measures_initrd,
        origin: Origin::Document,
    })
}

/// Adds what is new to the policy, all in one version.
fn add(
    signing: &SigningContext<'_>,
    own: SignedByUs,
    head: SequenceHead<'_>,
    boots: &[Prediction],
    yes: bool,
) -> Result<Option<PolicyRecord>> {
    if let Some(boot) = boots.iter().find(|boot| !boot.missing.is_empty()) {
        return Err(Error::usage(format!(
            "{} can't be added: missing {}",
            boot.path,
            boot.missing.join(", ")
        )));
    }
    let blocks: Vec<_> = boots
        .iter()
        // Names in a package are the package's: one with a newline must not end the comment.
        .filter_map(|boot| {
            Some(format!("# predicted from {}\n{}", clean(&boot.path), boot.block.as_ref()?.trim()))
        })
        .collect();
    if blocks.is_empty() {
        return Ok(None);
    }
    let change = PolicyChange::extended(signing, own, &blocks.join("\n\n"))?;
    // It must accept what it was made for.
    for boot in boots {
        if let Cover::No(found) = policy::covers(change.policy(), &boot.proposal) {
            return Err(Error::failed(format!(
                "the policy would still not allow {}\n{}",
                boot.path,
                render::findings(&found).trim_end()
            )));
        }
    }
    signing.context.out.note(&change.summary());
    trial::warn(signing.context, &trial::of_scope(signing, &change.scope, change.policy())?);
    if !yes {
        confirm(&format!("Sign this as {}?", change.scope))?;
    }
    change.submit(signing, head).map(Some)
}

/// `halfkey policy predict`: comments and blocks, fit to be appended to a policy.
fn shown(predicted: &Predicted) -> String {
    let base = predicted.base.as_ref().map(|base| format!("# base: {}\n", clean(base))).unwrap_or_default();
    base + &predicted.boots.iter().map(shown_boot).collect::<Vec<_>>().join("\n\n")
}

fn shown_boot(boot: &Prediction) -> String {
    let secure = if boot.secure_boot { "on" } else { "off" };
    let mut text = format!("# {}: {}, Secure Boot {secure}\n", clean(&boot.path), clean(&boot.name));
    let mut line = |line: String| writeln!(text, "# {line}").expect("a String takes everything");
    for event in &boot.events {
        line(format!("  PCR {:<2}  {}  {}", event.pcr, event.digest, event.what));
    }
    for pcr in &boot.pcrs {
        let value = pcr.value.as_deref().unwrap_or("not known");
        line(format!("PCR {:<2}  {value}  {}: {}", pcr.pcr, words::pcr(pcr.pcr), pcr.why));
    }
    for missing in &boot.missing {
        line(format!("missing: {missing}"));
    }
    if let Some(name) = &boot.allowed_by {
        line(format!("allowed already by boot \"{}\"", clean(name)));
    }
    if let Some(block) = &boot.block {
        text.push('\n');
        text.push_str(block.trim_end());
    }
    text.trim_end().to_owned()
}
