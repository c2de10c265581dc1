//! What no document may say: contradictions, and less than the floor.
//!
//! The floor (docs/policy.md says it for people): what is booted must be known up to the program that asks for the key. A
//! rule that leaves out image, initrd or command line is no rule, because whoever holds the disk chooses what is left out.

use super::ima;
use super::reader::{At, Problems};
use super::schema::{BootPlaces, Parsed, Places};
use crate::ima::IMA_PCR;
use crate::policy::boot_path::{self, Part};
use crate::policy::command_line::{
    Floor, MAX_LINE, NO_CREDENTIALS, NO_RUNTIME, floor_of, forbids, is_forbidden, normal,
};
use crate::policy::parsed::Additions;
use crate::policy::rules::{Allowed, Boot, CommandLine, Document, Listed, Role, SecureBoot, Token};
use halfkey_measure::grub;
use std::collections::HashSet;

/// PCRs that may be ignored: firmware's data and configuration, and what drivers measure. Code and configuration of the
/// boot itself are in the others.
const MAY_BE_IGNORED: [u8; 6] = [0, 1, 2, 3, 5, 6];
/// PCRs that events of a boot may be in.
const BOOT_EVENTS: [u8; 6] = [8, 9, 11, 12, 13, 14];
/// What takes an initramfs from elsewhere, or starts what does.
const ALSO_SIGNED: [Role; 3] = [Role::Shim, Role::Loader, Role::Kernel];

pub(super) fn policy(parsed: &Parsed, problems: &mut Problems<'_>) {
    let Parsed { document, ima, places } = parsed;
    pcrs(document, places, problems);
    secure_boot(document, places, problems);
    signers(document, places, problems);
    command_line(document, places, problems);
    if ima.is_some() {
        ima::check(document, places, problems);
    }
    boots(&document.boots, places, Some(document), problems);
    events(
        &document.events.iter().map(|event| event.pcr).collect::<Vec<_>>(),
        document.ignore,
        &places.events,
        problems,
    );
    if document.boots.is_empty() {
        problems.floor(
            0,
            ("expected at least one [[boot]], found none: Secure Boot and PCR 7 alone say only that something signed was booted, and \
             every command line (`rdinit=/bin/sh`) and every generic initramfs under the same signer gives the same PCR 7",
             "`halfkey policy learn NODE` writes the [[boot]] of a boot that has happened, `halfkey policy predict` that of one to come"),
        );
    }
}

pub(super) fn additions(additions: &Additions, places: &Places, problems: &mut Problems<'_>) {
    tokens(places, problems);
    boots(&additions.boots, places, None, problems);
    events(&additions.events.iter().map(|event| event.pcr).collect::<Vec<_>>(), 0, &places.events, problems);
}

/// Every PCR is covered or ignored, and none is both.
fn pcrs(document: &Document, places: &Places, problems: &mut Problems<'_>) {
    let mut seen = 0u32;
    for &At { value: pcr, at } in &places.ignore {
        if seen & 1 << pcr != 0 {
            problems.push(at, format!("ignore: expected each pcr once, found {pcr} twice"));
        }
        seen |= 1 << pcr;
        match pcr {
            IMA_PCR => problems.push(at, format!("ignore: pcr {pcr} is ima's and no part of a policy")),
            15.. => problems.push(at, format!("ignore: pcr {pcr} is no part of a policy")),
            pcr if !MAY_BE_IGNORED.contains(&pcr) => {
                problems.floor(at, format!("ignore: pcr {pcr} can't be ignored: {}", what_is_in(pcr)))
            }
            0 | 2 if !document.secure_boot.required => problems.floor(
                at,
                (format!(
                    "ignore: pcr {pcr} can be ignored only with secure_boot.required: without it firmware starts whatever drivers and option roms it \
                     finds, which can change the kernel before it runs, and only their measurement shows them"
                ), format!("cover it by firmware.pcr{pcr}, as `halfkey policy learn` does")),
            ),
            _ => {}
        }
    }
    let by_firmware = |pcr| match pcr {
        0 => document.firmware[0].is_some(),
        2 => document.firmware[1].is_some(),
        _ => false,
    };
    let value = |pcr| document.pcrs.iter().position(|(of, _)| *of == pcr);
    for pcr in MAY_BE_IGNORED {
        let ignored = document.ignore & 1 << pcr != 0;
        let event = document.events.iter().any(|event| event.pcr == pcr);
        match (ignored, by_firmware(pcr), value(pcr)) {
            (true, true, _) => {
                problems.push(
                    places.firmware,
                    format!("firmware.pcr{pcr}: pcr {pcr} is ignored as well: expected one of both"),
                );
            }
            (true, _, Some(index)) => {
                problems.push(
                    places.pcrs[index],
                    format!("pcr.{pcr}: pcr {pcr} is ignored as well: expected one of both"),
                );
            }
            (false, false, None) if !event => problems.push(
                0,
                (
                    format!("pcr {pcr} ({}) is neither covered nor ignored", what_is_in(pcr)),
                    format!(
                        "cover it by {}, or add it to ignore",
                        if matches!(pcr, 0 | 2) {
                            format!("firmware.pcr{pcr}")
                        } else {
                            format!("[pcr] \"{pcr}\" = [..] or by [[event]]")
                        }
                    ),
                ),
            ),
            _ => {}
        }
    }
}

fn what_is_in(pcr: u8) -> &'static str {
    match pcr {
        0 => "firmware",
        1 => "firmware's configuration",
        2 => "drivers and option roms",
        3 => "their configuration",
        4 => "it says which boot loader and kernel were started",
        5 => "partition table and boot attempts",
        6 => "the manufacturer's own",
        7 => "it says whether signatures were checked, and against which keys",
        8 => "grub measures the command line there",
        9 => "the initrd is measured there",
        11 => "systemd's stub measures the parts of a uki there",
        12 => "systemd's stub measures changed command lines and credentials there",
        13 => "systemd's stub measures extensions of the initrd there",
        _ => "shim measures the keys of the machine's owner there",
    }
}

fn secure_boot(document: &Document, places: &Places, problems: &mut Problems<'_>) {
    let Some(at) = places.secure_boot else {
        problems.floor(
            0,
            (
                "expected [secure_boot], found none",
                format!("required = true, or required = false and {NO_RUNTIME} in the command line"),
            ),
        );
        return;
    };
    let SecureBoot { required, pk, kek: _, db, dbx, authorities } = &document.secure_boot;
    if !required {
        return;
    }
    if pk.is_empty() {
        problems.push(
            at,
            "secure_boot.pk: expected the platform key, found none: without one Secure Boot is never on",
        );
    }
    if db.is_empty() {
        problems.push(
            at,
            "secure_boot.db: expected what may be booted, found none: nothing would pass Secure Boot",
        );
    }
    if dbx.is_none() {
        problems.push(
            at,
            ("expected secure_boot.dbx or secure_boot.dbx_at_least, found neither: a boot loader that was revoked would pass", "`dbx_at_least = []` if any will do"),
        );
    }
    if authorities.is_empty() && !document.boots.iter().any(Boot::has_signer) {
        problems.push(
            at,
            "secure_boot.authorities: expected the certificates that may have verified an image, found none and no image with a \
             signer: with Secure Boot on, one of them verified each image",
        );
    }
}

/// A signer that also signed what is no UKI, as far as the document shows it: with Secure Boot on somebody has verified each image that
/// firmware or shim starts, and where one signer is the only one who may have, it was that one. Firmware knows those in db; what shim
/// knows besides is not listed.
fn signers(document: &Document, places: &Places, problems: &mut Problems<'_>) {
    let SecureBoot { required, db, authorities, .. } = &document.secure_boot;
    if !required {
        return;
    }
    let images = document.boots.iter().flat_map(|boot| &boot.images);
    let named = images.filter_map(|image| match &image.allowed {
        Allowed::Signer(signers) => Some(signers.as_slice()),
        Allowed::Authenticode(_) => None,
    });
    let named = named.flatten().copied().map(Listed::Certificate);
    let known_to_shim: HashSet<_> = named.chain(authorities.iter().copied()).collect();
    let known_to_firmware = known_to_shim.iter().copied().filter(|listed| db.contains(listed)).collect();
    let only = |of: &HashSet<Listed>| of.iter().next().copied().filter(|_| of.len() == 1);
    let (by_firmware, by_shim) = (only(&known_to_firmware), only(&known_to_shim));
    let other = document.boots.iter().flat_map(|boot| {
        let position = |role| boot.images.iter().position(|image| image.role == role);
        let shim = position(Role::Shim);
        // What comes after a uki is the kernel inside of it.
        let images = boot.images.iter().take(position(Role::Uki).unwrap_or(boot.images.len())).enumerate();
        images.filter(|(_, image)| !image.has_signers()).filter_map(move |(index, image)| {
            let by = if shim.is_some_and(|shim| shim < index) { by_shim } else { by_firmware };
            Some((boot, image.role, by?))
        })
    });
    let other: Vec<_> = other.filter(|(_, role, _)| ALSO_SIGNED.contains(role)).collect();
    for (boot, at) in document.boots.iter().zip(&places.boots) {
        for (image, at) in boot.images.iter().zip(&at.images) {
            let is_hidden = |(_, role, by): &&(&Boot, Role, Listed)| {
                image.has_signer(by) && !image.signer_also_signs.contains(role)
            };
            if let Some((of, role, by)) = other.iter().find(is_hidden) {
                let role = role.name();
                problems.floor(
                    *at,
                    (format!(
                        "boot {:?}: expected a signer of ukis alone, found {by}, which must have signed the {role} of boot {:?} too, as no other \
                         authority can have: started in the place of the uki, it takes any initramfs",
                        boot.name,
                        of.name,
                    ), format!("have a key for ukis alone; or say signer_also_signs = [\"{role}\"], if you know and accept it")),
                );
            }
        }
    }
}

fn command_line(document: &Document, places: &Places, problems: &mut Problems<'_>) {
    tokens(places, problems);
    let floor = Floor::of_any(document.secure_boot.required);
    match &document.command_line {
        CommandLine::None => {}
        CommandLine::Exact(lines) => {
            for (line, at) in lines.iter().zip(&places.exact) {
                line_floor("command_line.exact", floor, line, *at, problems);
            }
        }
        CommandLine::Tokens { required, .. } => {
            for (token, why) in [
                (
                    NO_CREDENTIALS,
                    "without it systemd takes credentials from firmware and hypervisor that nobody measures",
                ),
                (
                    NO_RUNTIME,
                    "Secure Boot is not required, and without it systemd takes options from EFI variables that nobody measures",
                ),
            ] {
                let needed = token == NO_CREDENTIALS || !floor.secure_boot;
                if needed && !required.iter().any(|found| found.0 == token) {
                    let at = places.command_line.unwrap_or(0);
                    problems.floor(at, format!("command_line.required: expected {token}, found none: {why}"));
                }
            }
        }
    }
}

/// Tokens of one list against those of the others, and against what is always forbidden.
fn tokens(places: &Places, problems: &mut Problems<'_>) {
    let of = |list: &'static str| {
        let named = move |(name, _): &&(&'static str, At<Token>)| *name == list;
        places.tokens.iter().filter(named).map(|(_, token)| token)
    };
    let mut seen = HashSet::new();
    for (list, token) in &places.tokens {
        if !seen.insert((*list, token.value.0.as_str())) {
            problems.push(
                token.at,
                format!("command_line.{list}: expected each token once, found {} twice", token.value.0),
            );
        }
        if *list == "forbidden" {
            continue;
        }
        if token.value.0.contains(['"', '\'', '\\']) {
            problems.push(
                token.at,
                (format!(
                    "command_line.{list}: expected a token without quotes and backslashes, found {}: they join it with what stands next to it",
                    token.value.0
                ), "write the whole line as `exact`, or as `command_line` of a [[boot]]"),
            );
        }
        // The shortest that a wildcard stands for: what is forbidden with every value is no parameter of a policy.
        if let Some(why) = is_forbidden(token.value.0.trim_end_matches('*')) {
            problems.floor(
                token.at,
                format!("command_line.{list}: {} is always forbidden: {why}", token.value.0),
            );
        }
        if token.value.0.contains("initrd=") {
            problems.floor(
                token.at,
                format!(
                    "command_line.{list}: expected no initrd=, found {}: names that a loader puts before the options are allowed with \
                     kernel_measures_initrd, and need no token; any other is never allowed",
                    token.value.0
                ),
            );
        }
        // A wildcard that is wider than what is forbidden is a rule with an exception; anything else contradicts it.
        let contradicts = |forbidden: &&At<Token>| match token.value.is_literal() {
            true => forbids(&forbidden.value.0, &token.value.0),
            false => forbidden.value == token.value,
        };
        if let Some(forbidden) = of("forbidden").find(contradicts) {
            problems.push(
                token.at,
                format!(
                    "command_line.{list}: {} is forbidden as well, by {}: expected one of both",
                    token.value.0, forbidden.value.0
                ),
            );
        }
    }
}

fn line_floor(name: &str, floor: Floor, line: &str, at: usize, problems: &mut Problems<'_>) {
    // A line that is too long was refused where it was read.
    if line.len() <= MAX_LINE
        && let Some(objection) = floor.objection(line)
    {
        problems.floor(at, format!("{name}: expected {}, found {}", objection.expected, objection.found));
    }
}

fn boots(boots: &[Boot], places: &Places, of: Option<&Document>, problems: &mut Problems<'_>) {
    let mut names = HashSet::new();
    for (boot, at) in boots.iter().zip(&places.boots) {
        if !names.insert(boot.name.as_str()) && !boot.name.is_empty() {
            problems
                .push(at.name, format!("boot.name: expected each name once, found {:?} twice", boot.name));
        }
        boot_images(boot, at, of, problems);
        boot_floor(boot, at, of, problems);
        for (event, at) in boot.events.iter().zip(&at.events) {
            if !BOOT_EVENTS.contains(&event.pcr) {
                problems.push(
                    *at,
                    (
                        format!("boot.event.pcr: expected 8, 9 or 11 to 14, found {}", number(event.pcr)),
                        "images are [[boot.image]], events of other pcrs [[event]]",
                    ),
                );
            }
        }
    }
}

fn boot_images(boot: &Boot, at: &BootPlaces, of: Option<&Document>, problems: &mut Problems<'_>) {
    for lack in boot_path::lacks(boot) {
        let place = match lack.part {
            Part::Boot => at.table,
            // That there is none is said elsewhere.
            Part::Initrd => match at.initrd {
                Some(at) => at,
                None => continue,
            },
            Part::Sections => at.sections,
            Part::Image(index) => at.images.get(index).copied().unwrap_or(at.table),
        };
        let said = format!("boot {:?}: {lack}", boot.name);
        match lack.hint {
            None => problems.floor(place, said),
            Some(hint) => problems.floor(place, (said, hint)),
        }
    }
    if let Some(policy) = of
        && !policy.secure_boot.required
        && let Some(index) = boot.images.iter().position(|image| image.has_signers())
    {
        problems.floor(
            at.images[index],
            "boot.image.signer: expected secure_boot.required = true, found false: nobody checks signatures without Secure Boot",
        );
    }
}

fn boot_floor(boot: &Boot, at: &BootPlaces, of: Option<&Document>, problems: &mut Problems<'_>) {
    let name = &boot.name;
    if !boot_path::names_kernel(boot) {
        problems.floor(
            at.table,
            format!(
                "boot {name:?}: expected a [[boot.image]] with role uki or kernel, found none: a boot path that ends at a boot loader \
                 lets it start any kernel"
            ),
        );
    }
    if at.initrd.is_none() {
        problems.floor(
            at.table,
            (format!(
                "boot {name:?}: expected initrd, found none: the initrd asks for the key, so whoever changes it has the key"
            ), "initrd = \"sha256:..\", or \"signed\" if the uki has a signer")
,
        );
    }
    let secure_boot = of.is_none_or(|policy| policy.secure_boot.required);
    match (&boot.command_line, of) {
        (Some(line), _) => {
            line_floor("boot.command_line", floor_of(boot, secure_boot), line, at.command_line, problems);
        }
        (None, Some(Document { command_line: CommandLine::None, .. })) => problems.floor(
            at.table,
            format!(
                "boot {name:?}: expected command_line here or [command_line], found neither: a command line like `rdinit=/bin/sh` \
                 gives a shell in place of the initrd"
            ),
        ),
        _ => {}
    }
    // The kernel gets what GRUB passes on, whatever stands beside it.
    for line in boot_path::passed(boot) {
        line_floor("boot.event", floor_of(boot, secure_boot), &line, at.table, problems);
        let words = |line: &str| {
            grub::bare(normal(line)).split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        if let Some(own) = &boot.command_line
            && words(own) != words(&line)
        {
            problems.floor(
                at.command_line,
                format!("boot {name:?}: expected the command_line that grub passes on by its [[boot.event]], {line:?}, found {own:?}"),
            );
        }
    }
}

fn events(pcrs: &[u8], ignore: u32, places: &[usize], problems: &mut Problems<'_>) {
    for (pcr, at) in pcrs.iter().zip(places) {
        match pcr {
            0..=9 | 11..=14 if ignore & 1 << pcr == 0 => {}
            0..=9 | 11..=14 => {
                problems.push(*at, format!("event.pcr: pcr {pcr} is ignored as well: expected one of both"))
            }
            _ => {
                problems.push(*at, format!("event.pcr: expected 0 to 9 or 11 to 14, found {}", number(*pcr)))
            }
        }
    }
}

fn number(pcr: u8) -> String {
    if pcr == u8::MAX { "another number".to_owned() } else { pcr.to_string() }
}
