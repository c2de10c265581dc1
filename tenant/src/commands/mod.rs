//! What each command does, and how it is shown.
//!
//! | module | what |
//! | --- | --- |
//! | [`node`] | nodes |
//! | [`enroll`] | a new key for a node |
//! | [`approve`] | the boot that waits: once, learn it, replace the policy |
//! | [`decide`] | deny, revoke, restore, hold, release |
//! | [`policy`] | what nodes may boot: learn, predict, check, apply, explain |
//! | [`proposal`], [`group`] | what nodes want to boot next; nodes with one policy |
//! | [`evidence`], [`eventlog`] | what a node sent; a firmware event log from a file |
//! | [`audit`] | the audit trail as it grows |

pub mod approve;
pub mod audit;
pub mod decide;
pub mod enroll;
pub mod eventlog;
pub mod evidence;
pub mod group;
pub mod node;
pub mod policy;
pub mod proposal;

use crate::cli::{Cli, Color, Command, NodeCommand};
use crate::client::resolve;
use crate::commands::approve::{Approval, How};
use crate::context::{App, create};
use crate::error::{Error, Exit, Result};
use crate::home::Home;
use crate::home::bundle::{Bundle, MAX_BUNDLE};
use crate::output::Out;
use crate::render::text::clean;
use crate::render::{self, time};
use crate::trust::sequence;
use clap::CommandFactory;
use halfkey_evidence::policy::Assured;
use halfkey_protocol::wire::operator::NodeList;
use serde::Serialize;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// `halfkey login --json`.
#[derive(Serialize)]
struct LoggedIn<'a> {
    operator: &'a str,
    servers: &'a [String],
    home: &'a Path,
    tenant_key: String,
}

/// `halfkey key --json`.
#[derive(Serialize)]
struct Fingerprint {
    tenant_key: String,
}

/// Runs a command line.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(cli: Cli) -> Result<()> {
    match cli.global.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let out = Out::new(cli.global.json);
    if let Command::Completions { shell } = cli.command {
        return completions(shell);
    }
    let app = App::new(Home::locate(cli.global.home)?, out, cli.global.timeout);
    match cli.command {
        Command::Login { bundle, replace } => login(&app, &bundle, replace),
        Command::Key => key(&app),
        Command::Nodes { pending } => nodes(&app, pending),
        Command::Node { command: NodeCommand::Show { node } } => node_show(&app, &node),
        Command::Enroll(args) => enroll::run(&app, &args),
        Command::Approve {
            node,
            once,
            learn,
            replace,
            kernel_measures_initrd,
            trust_returned_images,
            wait,
            yes,
        } => {
            let how = How::of(once, learn, replace);
            let assured = Assured { kernel_measures_initrd, trust_returned_images };
            approve::run(&app, &Approval { node: &node, how, assured, wait, yes })
        }
        Command::Deny { node, because } => decide::deny(&app, &node, &because),
        Command::Revoke { node, because } => decide::revoke(&app, &node, &because),
        Command::Restore { node, because } => decide::restore(&app, &node, &because),
        Command::Hold { node, because } => decide::hold(&app, &node, &because),
        Command::Release { node, because } => decide::release(&app, &node, &because),
        Command::Policy { command } => policy::run(&app, command),
        Command::Proposals { node, all } => proposal::list(&app, node.as_deref(), all),
        Command::Proposal { command } => proposal::run(&app, &command),
        Command::Group { command } => group::run(&app, &command),
        Command::Eventlog { file } => eventlog::run(&app, &file),
        Command::Evidence { id: Some(number), event_log, .. } => evidence(&app, number, event_log.as_deref()),
        Command::Evidence { node, limit, .. } => evidence_list(&app, &node.unwrap_or_default(), limit),
        Command::AcceptRollback { yes } => sequence::accept_rollback(&app, yes),
        Command::Audit { node, limit, follow } => audit(&app, node.as_deref(), limit, follow),
        Command::Watch { node, after } => watch_from(&app, node.as_deref(), after),
        Command::Completions { .. } => Ok(()),
    }
}

fn login(app: &App, path: &Path, replace: bool) -> Result<()> {
    let fail = |e| {
        Error::failed(format!("can't read {}: {e}", path.display()))
            .hint("give the file operator-NAME.bundle that `halfkey-verifier init` made")
    };
    let file = fs::File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut json = Zeroizing::new(Vec::with_capacity(size.min(MAX_BUNDLE) as usize + 1));
    file.take(MAX_BUNDLE + 1).read_to_end(&mut json).map_err(fail)?;
    if json.len() as u64 > MAX_BUNDLE {
        return Err(Error::failed(format!(
            "{} is larger than {MAX_BUNDLE} bytes: not a bundle",
            path.display()
        )));
    }
    let bundle = Bundle::parse(&json)?;
    app.home.import(&bundle, replace)?;
    let (key, new) = app.home.tenant_key_or_new()?;
    if new {
        app.out.note(&format!(
            "created the tenant key: back up {}, nodes must be enrolled again without it",
            app.home.path().join("tenant.key").display()
        ));
    }
    app.out.note(&format!("imported; {} holds a private key and is no longer needed", path.display()));
    let result = LoggedIn {
        operator: &bundle.name,
        servers: &bundle.servers,
        home: app.home.path(),
        tenant_key: key.fingerprint(),
    };
    app.out.value(&result, || {
        format!(
            "operator    {}\nservers     {}\ntenant key  {}",
            clean(&bundle.name),
            bundle.servers.join(", "),
            result.tenant_key
        )
    })
}

fn key(app: &App) -> Result<()> {
    let result = Fingerprint { tenant_key: app.home.tenant_key()?.fingerprint() };
    app.out.value(&result, || result.tenant_key.clone())
}

fn nodes(app: &App, pending: bool) -> Result<()> {
    let mut list: NodeList = app.logged_in()?.nodes()?;
    list.nodes.retain(|node| node.pending || !pending);
    app.out.value(&list, || render::nodes(&list, &app.style(), time::now()))
}

fn node_show(app: &App, node: &str) -> Result<()> {
    let client = app.logged_in()?;
    let id = resolve::resolve(&client, node)?;
    let record = client.node(id)?;
    let judged = record.enrollment.is_some().then(|| client.node_policy(id)).transpose()?;
    // A desk without a tenant key can still look.
    let key = app.home.tenant_key().ok();
    app.out
        .value(&record, || render::node(&record, judged.as_ref(), key.as_ref(), &app.style(), time::now()))?;
    render::check(&record).map_err(|why| {
        Error::untrusted(why)
            .hint("this record can't come from an honest node and an honest server; do not enroll it")
    })
}

fn evidence_list(app: &App, node: &str, limit: u32) -> Result<()> {
    let client = app.logged_in()?;
    let list = client.evidence_of(resolve::resolve(&client, node)?, limit)?;
    app.out.value(&list, || render::evidence_list(&list, &app.style(), time::now()))
}

fn evidence(app: &App, number: u64, event_log: Option<&Path>) -> Result<()> {
    let record = app.logged_in()?.evidence(number)?;
    if let Some(path) = event_log {
        let log = record.evidence.event_log.as_ref().ok_or_else(|| {
            Error::new(Exit::NotFound, format!("evidence {number} has no event log of the firmware"))
        })?;
        create(path, log)?;
        app.out.note(&format!("saved {} bytes to {}", log.len(), path.display()));
    }
    app.out.value(&record, || render::evidence(&record, &app.style(), time::now()))
}

fn audit(app: &App, node: Option<&str>, limit: u32, follow: bool) -> Result<()> {
    let client = app.logged_in()?;
    let node = node.map(|node| resolve::resolve(&client, node)).transpose()?;
    let list = client.audit(node, limit)?;
    if !follow {
        return app.out.value(&list, || {
            let lines: Vec<_> =
                list.entries.iter().map(|entry| render::audit_entry(entry, &app.style())).collect();
            if lines.is_empty() { "no entries".to_owned() } else { lines.join("\n") }
        });
    }
    for entry in &list.entries {
        audit::print(app, entry)?;
    }
    audit::follow(app, &client, node, audit::newest(&list.entries).unwrap_or(0))
}

fn watch_from(app: &App, node: Option<&str>, after: Option<u64>) -> Result<()> {
    let client = app.logged_in()?;
    let node = node.map(|node| resolve::resolve(&client, node)).transpose()?;
    let after = match after {
        Some(after) => after,
        None => audit::newest(&client.audit(None, 1)?.entries).unwrap_or(0),
    };
    app.out.note(&format!("watching from entry {after} on"));
    audit::follow(app, &client, node, after)
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "halfkey", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("can't write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
