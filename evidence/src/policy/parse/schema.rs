//! The schema: tables to rules, with their places for the checks that follow.

use super::reader::{At, Problems, Table, clip, digest, integer};
use super::{ima, trust};
use crate::policy::command_line::MAX_LINE;
use crate::policy::ima::ImaPolicy;
use crate::policy::parsed::Additions;
use crate::policy::rules::{
    Allowed, Boot, CommandLine, Dbx, Digest, Document, EventIs, EventRule, Image, Initrd, Listed, MoreKeys,
    Origin, Role, Sections, SecureBoot, Token,
};
use halfkey_protocol::tpm::bank::PcrBank;
use toml::de::DeValue;

/// Alternatives of a policy.
const MAX_BOOTS: usize = 128;
/// Images of a boot.
const MAX_IMAGES: usize = 16;
/// Versions of a TPM's firmware.
const MAX_VERSIONS: usize = 256;
/// Events of a table.
const MAX_EVENTS: usize = 2048;
/// Digests of a list.
const MAX_DIGESTS: usize = 2048;
/// Tokens, or lines, of a list.
const MAX_TOKENS: usize = 256;
/// Names and reasons, in bytes.
const MAX_NAME: usize = 128;
/// Sections of an image.
const MAX_SECTIONS: usize = 32;

/// A document and where its parts stand.
pub(super) struct Parsed {
    pub document: Document,
    pub ima: Option<ImaPolicy>,
    pub places: Places,
}

/// Bytes of the text.
#[derive(Default)]
pub(super) struct Places {
    pub ignore: Vec<At<u8>>,
    pub secure_boot: Option<usize>,
    pub command_line: Option<usize>,
    pub tokens: Vec<(&'static str, At<Token>)>,
    pub exact: Vec<usize>,
    pub pcrs: Vec<usize>,
    pub firmware: usize,
    pub boots: Vec<BootPlaces>,
    pub events: Vec<usize>,
}

/// Where the parts of a `[[boot]]` stand; that of the table for those that it lacks.
#[derive(Default)]
pub(super) struct BootPlaces {
    pub table: usize,
    pub name: usize,
    pub command_line: usize,
    /// Absent: below the floor.
    pub initrd: Option<usize>,
    pub sections: usize,
    pub images: Vec<usize>,
    pub events: Vec<usize>,
}

pub(super) fn policy(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Parsed {
    let mut places = Places::default();
    let name = head(table, problems);
    let document = Document {
        name,
        ignore: ignore(table, &mut places, problems),
        secure_boot: secure_boot(table, &mut places, problems),
        firmware: firmware(table, &mut places, problems),
        tpm_firmware: tpm(table, problems),
        pcrs: pcrs(table, &mut places, problems),
        command_line: command_line(table, &mut places, problems),
        boots: boots(table, &mut places, problems),
        events: shared_events(table, &mut places, problems),
        trust: trust::trust(table, problems),
    };
    let ima = ima::ima(table, problems);
    Parsed { document, ima, places }
}

pub(super) fn additions(table: &mut Table<'_>, problems: &mut Problems<'_>) -> (Additions, Places) {
    let mut places = Places::default();
    let name = head(table, problems);
    let mut allowed = Vec::new();
    if let Some(mut lines) = table.table("command_line", problems) {
        allowed = tokens(&mut lines, "allowed", &mut places, problems).unwrap_or_default();
        lines.finish(problems);
    }
    let keys = more_keys(table, problems);
    let boots = boots(table, &mut places, problems);
    let events = shared_events(table, &mut places, problems);
    (Additions { name, boots, events, allowed, keys }, places)
}

/// `format` and `name`
fn head(table: &mut Table<'_>, problems: &mut Problems<'_>) -> String {
    match table.integer("format", problems) {
        Some(At { value: 1, .. }) => {}
        Some(At { value, at }) => problems.push(at, format!("format: expected 1, found {value}")),
        None => table.missing("format = 1", problems),
    }
    named(table, problems).map_or_else(String::new, |name| name.value)
}

fn named(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<At<String>> {
    let Some(name) = table.string("name", problems) else {
        table.missing("name", problems);
        return None;
    };
    check_text(table, "name", &name, MAX_NAME, problems);
    Some(name)
}

/// Text that is shown in one line, and stands in messages.
fn check_text(table: &Table<'_>, key: &str, text: &At<String>, max: usize, problems: &mut Problems<'_>) {
    if text.value.is_empty() || text.value.len() > max || text.value.chars().any(char::is_control) {
        problems.push(
            text.at,
            format!(
                "{}: expected 1 to {max} bytes of one line, found {:?}",
                table.name(key),
                clip(&text.value)
            ),
        );
    }
}

fn ignore(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> u32 {
    let read = |value: &DeValue<'_>| {
        integer(value).and_then(|number| u8::try_from(number).ok()).filter(|pcr| *pcr < 24)
    };
    places.ignore =
        table.list("ignore", "numbers of pcrs", 24, problems, read).map_or_else(Vec::new, |list| list.value);
    places.ignore.iter().fold(0, |mask, pcr| mask | 1 << pcr.value)
}

fn secure_boot(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> SecureBoot {
    let Some(mut table) = table.table("secure_boot", problems) else { return SecureBoot::default() };
    places.secure_boot = Some(table.at);
    let required = table.boolean("required", problems);
    if required.is_none() {
        table.missing("required", problems);
    }
    let (pk, kek) = (certificates(&mut table, "pk", problems), certificates(&mut table, "kek", problems));
    let db = entries(&mut table, "db", problems);
    let mut list = |key| fingerprints(&mut table, key, problems);
    let (exactly, at_least) = (list("dbx"), list("dbx_at_least"));
    let authorities = entries(&mut table, "authorities", problems);
    let dbx = match (exactly, at_least) {
        (Some(exactly), Some(_)) => {
            problems.push(exactly.at, "expected secure_boot.dbx or secure_boot.dbx_at_least, found both");
            None
        }
        (Some(list), None) => Some(Dbx::Exactly(list.value)),
        (None, Some(list)) => Some(Dbx::AtLeast(list.value)),
        (None, None) => None,
    };
    table.finish(problems);
    SecureBoot { required: required.is_some_and(|required| required.value), pk, kek, db, dbx, authorities }
}

/// `[secure_boot]` of additions. A machine with another platform key is no machine of that group.
fn more_keys(table: &mut Table<'_>, problems: &mut Problems<'_>) -> MoreKeys {
    let Some(mut table) = table.table("secure_boot", problems) else { return MoreKeys::default() };
    let kek = certificates(&mut table, "kek", problems);
    let [db, authorities] = ["db", "authorities"].map(|key| entries(&mut table, key, problems));
    table.finish(problems);
    MoreKeys { kek, db, authorities }
}

/// What PK and KEK have.
fn certificates(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Vec<Listed> {
    let list = fingerprints(table, key, problems).map_or_else(Vec::new, |list| list.value);
    list.into_iter().map(Listed::Certificate).collect()
}

/// What db has, and what verified an image: certificates, and hashes of images.
fn entries(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Vec<Listed> {
    let what = "fingerprints (sha256: and 64 lower-case hex digits) or hashes of images (image:sha256: and the same)";
    let read = |value: &DeValue<'_>| Listed::parse(value.as_str()?);
    let list = table.list(key, what, MAX_DIGESTS, problems, read).map_or_else(Vec::new, |list| list.value);
    list.into_iter().map(|entry| entry.value).collect()
}

/// Certificates by SHA-256, whatever the bank; hashes of images are SHA-256 themselves.
fn fingerprints(
    table: &mut Table<'_>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> Option<At<Vec<Digest>>> {
    let what = "fingerprints (sha256: and 64 lower-case hex digits)";
    let read = |value: &DeValue<'_>| digest(value).filter(|digest| digest.bank() == PcrBank::Sha256);
    let list = table.list(key, what, MAX_DIGESTS, problems, read)?;
    Some(At { value: list.value.into_iter().map(|digest| digest.value).collect(), at: list.at })
}

fn digests(table: &mut Table<'_>, key: &'static str, problems: &mut Problems<'_>) -> Option<At<Vec<Digest>>> {
    let list = table.digests(key, MAX_DIGESTS, problems)?;
    Some(At { value: list.value.into_iter().map(|digest| digest.value).collect(), at: list.at })
}

fn firmware(
    table: &mut Table<'_>,
    places: &mut Places,
    problems: &mut Problems<'_>,
) -> [Option<Vec<Digest>>; 2] {
    let Some(mut table) = table.table("firmware", problems) else { return [None, None] };
    places.firmware = table.at;
    let lists = ["pcr0", "pcr2"].map(|key| digests(&mut table, key, problems).map(|list| list.value));
    table.finish(problems);
    lists
}

/// `[tpm]`
fn tpm(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Vec<u64>> {
    let mut table = table.table("tpm", problems)?;
    let what = "versions of a TPM's firmware (0x and 1 to 16 hex digits, as `halfkey node show` has them)";
    let read = |value: &DeValue<'_>| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        // from_str_radix takes a sign as well.
        let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits.len() <= 16;
        u64::from_str_radix(digits, 16).ok().filter(|_| is_number)
    };
    let versions = table.list("firmware", what, MAX_VERSIONS, problems, read);
    match &versions {
        Some(list) if list.value.is_empty() => {
            problems.push(list.at, "tpm.firmware: expected at least one version, found none");
        }
        Some(_) => {}
        None => table.missing("firmware", problems),
    }
    table.finish(problems);
    Some(versions?.value.into_iter().map(|version| version.value).collect())
}

/// `[pcr]`: keys are numbers.
fn pcrs(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> Vec<(u8, Vec<Digest>)> {
    const KEYS: [&str; 14] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "11", "12", "13", "14"];
    let Some(mut table) = table.table("pcr", problems) else { return Vec::new() };
    let mut values = Vec::new();
    for key in KEYS {
        let Some(list) = digests(&mut table, key, problems) else { continue };
        if list.value.is_empty() {
            problems.push(list.at, format!("pcr.{key}: expected at least one value, found none"));
        }
        values.push((key.parse().unwrap_or(0), list.value));
        places.pcrs.push(list.at);
    }
    table.finish(problems);
    values
}

fn command_line(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> CommandLine {
    let Some(mut table) = table.table("command_line", problems) else { return CommandLine::None };
    places.command_line = Some(table.at);
    let exact = table.strings("exact", "command lines", MAX_TOKENS, problems);
    let mut list = |key| tokens(&mut table, key, places, problems);
    let lists = [list("allowed"), list("required"), list("forbidden")];
    table.finish(problems);
    let by_tokens = lists.iter().any(Option::is_some);
    let [allowed, required, forbidden] = lists.map(Option::unwrap_or_default);
    match exact {
        Some(exact) if by_tokens => {
            problems.push(
                exact.at,
                "command_line: expected exact, or allowed, required and forbidden, found both",
            );
            CommandLine::None
        }
        Some(exact) => {
            if exact.value.is_empty() {
                problems.push(exact.at, "command_line.exact: expected at least one command line, found none");
            }
            places.exact = exact.value.iter().map(|line| line.at).collect();
            let lines = exact.value.into_iter();
            CommandLine::Exact(
                lines
                    .inspect(|line| check_line("command_line.exact", line, problems))
                    .map(|line| line.value)
                    .collect(),
            )
        }
        None if by_tokens => CommandLine::Tokens { allowed, required, forbidden },
        None => {
            problems.push(
                table_at(places),
                "command_line: expected exact, or allowed, required and forbidden, found neither",
            );
            CommandLine::None
        }
    }
}

fn table_at(places: &Places) -> usize {
    places.command_line.unwrap_or_default()
}

fn check_line(name: &str, line: &At<String>, problems: &mut Problems<'_>) {
    if line.value.trim_ascii().is_empty()
        || line.value.len() > MAX_LINE
        || line.value.chars().any(char::is_control)
    {
        problems.push(
            line.at,
            format!("{name}: expected 1 to {MAX_LINE} bytes of one line, found {:?}", clip(&line.value)),
        );
    }
}

fn tokens(
    table: &mut Table<'_>,
    key: &'static str,
    places: &mut Places,
    problems: &mut Problems<'_>,
) -> Option<Vec<Token>> {
    let list = table.strings(key, "tokens", MAX_TOKENS, problems)?;
    let mut tokens = Vec::with_capacity(list.value.len());
    for At { value, at } in list.value {
        let name = table.name(key);
        if value.is_empty()
            || value.len() > MAX_LINE
            || value.chars().any(|char| char.is_whitespace() || char.is_control())
        {
            problems.push(at, format!("{name}: expected a token without blanks, found {:?}", clip(&value)));
        } else if value.strip_suffix('*').unwrap_or(&value).contains('*') {
            problems.push(
                at,
                format!("{name}: expected `*` only at the end of a token, found {:?}", clip(&value)),
            );
        } else if key != "forbidden" && value.ends_with('*') && value.find('=').is_none_or(|at| at == 0) {
            problems.floor(
                at,
                format!(
                    "{name}: expected `*` only behind the = of one parameter, found {:?}: it would allow options that nobody has thought of",
                    clip(&value)
                ),
            );
        }
        places.tokens.push((key, At { value: Token(value.clone()), at }));
        tokens.push(Token(value));
    }
    Some(tokens)
}

fn boots(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> Vec<Boot> {
    let tables = table.tables("boot", MAX_BOOTS, problems);
    tables.into_iter().map(|mut table| boot(&mut table, places, problems)).collect()
}

fn boot(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> Boot {
    let mut at = BootPlaces { table: table.at, ..BootPlaces::default() };
    let name = named(table, problems);
    at.name = name.as_ref().map_or(table.at, |name| name.at);
    let line = table.string("command_line", problems);
    at.command_line = line.as_ref().map_or(table.at, |line| line.at);
    if let Some(line) = &line {
        check_line("boot.command_line", line, problems);
    }
    let initrd = initrd(table, &mut at, problems);
    let sections = sections(table, &mut at, problems);
    let images = table.tables("image", MAX_IMAGES, problems);
    let images = images.into_iter().map(|mut table| image(&mut table, &mut at, problems)).collect();
    let events = table.tables("event", MAX_EVENTS, problems);
    let events = events.into_iter().map(|mut table| event(&mut table, &mut at.events, problems)).collect();
    let kernel_measures_initrd =
        table.boolean("kernel_measures_initrd", problems).is_some_and(|says| says.value);
    table.finish(problems);
    places.boots.push(at);
    Boot {
        name: name.map_or_else(String::new, |name| name.value),
        command_line: line.map(|line| line.value),
        initrd,
        sections,
        images,
        events,
        kernel_measures_initrd,
        origin: Origin::Document,
    }
}

fn initrd(table: &mut Table<'_>, at: &mut BootPlaces, problems: &mut Problems<'_>) -> Initrd {
    // What it is when it is absent does not matter: the document is then below the floor.
    let Some(text) = table.string("initrd", problems) else { return Initrd::Signed };
    at.initrd = Some(text.at);
    match (text.value.as_str(), Digest::parse(&text.value)) {
        ("signed", _) => Initrd::Signed,
        ("in-uki", _) => Initrd::InUki,
        (_, Some(digest)) => Initrd::Digest(digest),
        _ => {
            problems.push(
                text.at,
                format!(
                    "boot.initrd: expected \"signed\", \"in-uki\" or a digest (sha256: or sha384: and lower-case hex), found {:?}",
                    clip(&text.value)
                ),
            );
            Initrd::Digest(Digest::of(PcrBank::Sha256, b""))
        }
    }
}

/// `"signed"`, or a list: a stub measures sections in an order, which keys of a table don't have.
fn sections(table: &mut Table<'_>, at: &mut BootPlaces, problems: &mut Problems<'_>) -> Option<Sections> {
    let value = table.value("sections")?;
    at.sections = value.span().start;
    if value.get_ref().as_str() == Some("signed") {
        return Some(Sections::Signed);
    }
    if value.get_ref().as_array().is_none() {
        problems.push(
            at.sections,
            "boot.sections: expected \"signed\" or a list of { name = \".linux\", digest = \"sha256:...\" }, found neither",
        );
        return None;
    }
    let tables = table.tables("sections", MAX_SECTIONS, problems);
    let list = tables.into_iter().filter_map(|mut table| {
        for key in ["name", "digest"] {
            if table.value(key).is_none() {
                table.missing(key, problems);
            }
        }
        let (name, by_digest) = (table.string("name", problems), table.string("digest", problems));
        table.finish(problems);
        let (name, by_digest) = (name?, by_digest?);
        let known = name.value.starts_with('.') && (2..=8).contains(&name.value.len());
        if !known || !name.value.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            let found = clip(&name.value);
            problems.push(
                name.at,
                format!("boot.sections.name: expected the name of a section (.linux), found {found:?}"),
            );
        }
        let digest = digest_at(&table, "digest", &by_digest, problems)?;
        Some((name.value, digest))
    });
    Some(Sections::Digests(list.collect()))
}

/// A digest that stands alone, not in a list.
fn digest_at(table: &Table<'_>, key: &str, text: &At<String>, problems: &mut Problems<'_>) -> Option<Digest> {
    let digest = Digest::parse(&text.value);
    if digest.is_none() {
        let found = clip(&text.value);
        problems.push(
            text.at,
            format!(
                "{}: expected a digest (sha256: or sha384: and lower-case hex), found {found:?}",
                table.name(key)
            ),
        );
    }
    digest
}

fn image(table: &mut Table<'_>, at: &mut BootPlaces, problems: &mut Problems<'_>) -> Image {
    at.images.push(table.at);
    let role = match table.string("role", problems) {
        Some(name) => Role::from_name(&name.value).unwrap_or_else(|| {
            let message = format!(
                "boot.image.role: expected shim, loader, uki, kernel or other, found {:?}",
                clip(&name.value)
            );
            problems.push(name.at, message);
            Role::Other
        }),
        None => {
            table.missing("role", problems);
            Role::Other
        }
    };
    let (authenticode, signer) =
        (digests(table, "authenticode", problems), fingerprints(table, "signer", problems));
    let also_signs = also_signs(table, problems);
    let allowed = match (authenticode, signer) {
        (Some(list), None) => Allowed::Authenticode(list.value),
        (None, Some(list)) => Allowed::Signer(list.value),
        (found, _) => {
            let found = if found.is_some() { "both" } else { "neither" };
            problems.push(table.at, format!("boot.image: expected authenticode or signer, found {found}"));
            table.finish(problems);
            return Image { role, allowed: Allowed::Authenticode(Vec::new()), signer_also_signs: also_signs };
        }
    };
    if matches!(&allowed, Allowed::Authenticode(list) | Allowed::Signer(list) if list.is_empty()) {
        problems.push(table.at, "boot.image: expected at least one digest or signer, found an empty list");
    }
    if let (false, Allowed::Authenticode(_)) = (also_signs.is_empty(), &allowed) {
        problems.push(table.at, "boot.image.signer_also_signs: expected signer beside it, found none");
    }
    table.finish(problems);
    Image { role, allowed, signer_also_signs: also_signs }
}

fn also_signs(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<Role> {
    let Some(list) = table.strings("signer_also_signs", "roles", MAX_IMAGES, problems) else {
        return Vec::new();
    };
    let mut roles = Vec::new();
    for At { value, at } in list.value {
        match Role::from_name(&value) {
            Some(role @ (Role::Shim | Role::Loader | Role::Kernel)) => roles.push(role),
            _ => {
                let message = format!(
                    "boot.image.signer_also_signs: expected shim, loader or kernel, found {:?}",
                    clip(&value)
                );
                problems.push(at, message);
            }
        }
    }
    roles
}

fn shared_events(table: &mut Table<'_>, places: &mut Places, problems: &mut Problems<'_>) -> Vec<EventRule> {
    let tables = table.tables("event", MAX_EVENTS, problems);
    tables.into_iter().map(|mut table| event(&mut table, &mut places.events, problems)).collect()
}

fn event(table: &mut Table<'_>, places: &mut Vec<usize>, problems: &mut Problems<'_>) -> EventRule {
    let pcr = table.integer("pcr", problems);
    places.push(pcr.as_ref().map_or(table.at, |pcr| pcr.at));
    if pcr.is_none() {
        table.missing("pcr", problems);
    }
    // A number that is no PCR of a policy is for the checks to refuse.
    let pcr = pcr.and_then(|pcr| u8::try_from(pcr.value).ok()).unwrap_or(u8::MAX);
    let (by_digest, text) = (table.string("digest", problems), table.string("text", problems));
    let is = match (by_digest, text) {
        (Some(found), None) => digest_at(table, "digest", &found, problems)
            .map_or_else(|| EventIs::Text(String::new()), EventIs::Digest),
        (None, Some(text)) => {
            if text.value.is_empty() || text.value.len() > MAX_LINE {
                problems.push(text.at, format!("{}: expected 1 to {MAX_LINE} bytes", table.name("text")));
            }
            EventIs::Text(text.value)
        }
        (found, _) => {
            let found = if found.is_some() { "both" } else { "neither" };
            problems.push(table.at, format!("{}: expected digest or text, found {found}", table.path()));
            EventIs::Text(String::new())
        }
    };
    let because = table.string("because", problems);
    if let Some(because) = &because {
        check_text(table, "because", because, MAX_NAME, problems);
    }
    table.finish(problems);
    EventRule { pcr, is, because: because.map(|because| because.value) }
}
