//! `halfkey policy test`: a dry run over stored boots.

use crate::cli::Bank;
use crate::client::{resolve, scope};
use crate::commands::policy::measured;
use crate::context::Context;
use crate::documents::signing::SigningContext;
use crate::documents::source::{self, Source};
use crate::documents::trial::{self, Trial, Tried};
use crate::error::{Error, Exit, Result};
use crate::render::text::clean_short;
use crate::render::{Style, painted, table};
use comfy_table::{Cell, Color};
use halfkey_evidence::appraise;
use halfkey_evidence::eventlog::{self, MAX_FILE};
use halfkey_evidence::ima::replay::MAX_LIST;
use halfkey_evidence::policy::{Claims, Policy};
use halfkey_protocol::NodeId;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Longest command line of a kernel that is worth reading.
const MAX_COMMAND_LINE: u64 = 64 << 10;

/// `halfkey policy test --json`.
#[derive(Serialize)]
struct Tests {
    policy: String,
    trials: Vec<Trial>,
}

/// What a policy is tried on.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// A node, a group, all, or a file.
    pub against: &'a str,
    /// The command line of a firmware log.
    pub cmdline: Option<&'a Path>,
    /// Lists that `[ima]` names.
    pub digests: &'a [PathBuf],
    /// The bank of a file.
    pub bank: Bank,
}

/// Tries a policy and says which boots it would deny.
///
/// # Errors
/// `Failed` when it would deny one.
pub fn run(context: &Context, file: &Path, on: &Against<'_>) -> Result<()> {
    let Against { against, cmdline, digests, bank } = *on;
    let source = Source::file(file)?;
    let policy = source.policy()?;
    let log = Path::new(against);
    let for_log = |option: &str| {
        Err(Error::usage(format!("{option} is for a LOG, and {} is no file", clean_short(against, 64))))
    };
    let tried = if against.contains('/') || log.is_file() {
        let bytes = source::read(log, MAX_LIST as u64)?;
        if measured::is_list(&bytes) {
            let policy = (source.name.as_str(), &policy);
            return measured::run(context, policy, log, &bytes, digests, bank.pcr_bank());
        }
        if !digests.is_empty() {
            return Err(Error::usage(format!("--digests is for an ima list, and {against} is none")));
        }
        vec![on_log(&policy, log, &bytes, cmdline, bank)?]
    } else if cmdline.is_some() {
        return for_log("--cmdline");
    } else if !digests.is_empty() {
        return for_log("--digests");
    } else {
        let signing = SigningContext::open(context)?;
        let nodes = nodes(&signing, against)?;
        trial::of_nodes(&signing, &nodes, &policy)?
    };
    let denied = tried.iter().filter(|trial| trial.denied()).count();
    let result = Tests { policy: source.name, trials: tried };
    context.out.value(&result, || shown(&result.trials, &context.style()))?;
    match (denied, result.trials.len()) {
        (0, _) => Ok(()),
        (denied, of) => Err(Error::new(Exit::Failed, format!("{denied} of {of} boots would be denied"))),
    }
}

/// A log that nobody vouches for.
fn on_log(policy: &Policy, path: &Path, log: &[u8], cmdline: Option<&Path>, bank: Bank) -> Result<Trial> {
    if log.len() > MAX_FILE {
        return Err(source::too_large(path, MAX_FILE as u64));
    }
    let command_line = cmdline.map(|path| source::read(path, MAX_COMMAND_LINE)).transpose()?;
    // /proc/cmdline ends with a newline that the kernel did not get.
    let command_line = command_line.as_deref().map(|text| text.strip_suffix(b"\n").unwrap_or(text));
    let assumed = eventlog::replay(log, bank.pcr_bank())
        .and_then(|log| log.assume())
        .map_err(|e| Error { exit: Exit::Failed, ..Error::from(e).context(path.display()) })?;
    let found = appraise::assume(&assumed, &Claims { command_line }, policy);
    Ok(Trial::found(None, &path.display().to_string(), None, found.findings))
}

/// `all`, a group or a node. A name that both a group and a node have is refused.
fn nodes(signing: &SigningContext<'_>, typed: &str) -> Result<Vec<NodeId>> {
    let client = &signing.client;
    if typed == "all" {
        return trial::enrolled(client);
    }
    if typed.contains(':') {
        return trial::nodes(client, &scope::typed(client, typed)?);
    }
    let group = client.groups()?.groups.iter().any(|group| group.name == typed);
    match (group, resolve::resolve(client, typed)) {
        (true, Err(error)) if error.exit == Exit::NotFound => trial::members(client, typed),
        (true, Ok(id)) => Err(Error::usage(format!("`{typed}` is a group and a node"))
            .hint(format!("say group:{typed} or node:{id}"))),
        (_, found) => Ok(vec![found?]),
    }
}

/// `halfkey policy test`.
pub fn shown(trials: &[Trial], style: &Style) -> String {
    if trials.is_empty() {
        return "no nodes".to_owned();
    }
    let mut table = table(style, &["NODE", "LABEL", "EVIDENCE", "RESULT", "WHY"]);
    for trial in trials {
        let (result, color) = match trial.result {
            Tried::Allowed => ("allowed", Some(Color::Green)),
            Tried::Denied => ("denied", Some(Color::Red)),
            Tried::NoBoot => ("no boot", None),
            Tried::Unusable => ("unusable", Some(Color::Yellow)),
        };
        table.add_row(vec![
            Cell::new(trial.node_id.as_deref().map_or("-".to_owned(), digits)),
            Cell::new(clean_short(&trial.label, 40)),
            Cell::new(trial.evidence_id.map_or("-".to_owned(), |id| id.to_string())),
            painted(style, result, color),
            Cell::new(trial::why(trial)),
        ]);
    }
    table.trim_fmt()
}

/// The first digits of an id.
fn digits(id: &str) -> String {
    clean_short(id, 36).chars().take(8).collect()
}
