//! What each command does, and how it is shown: a file for each verb, where `run` (or the verb) does it, and `shown` makes the text for
//! people.
//!
//! | module | what |
//! | --- | --- |
//! | [`login`] | the operator bundle, the tenant key |
//! | [`node`] | nodes: the list, one of them |
//! | [`enroll`] | a new key for a node |
//! | [`approve`] | the boot that waits: once, learn it, replace the policy |
//! | [`decide`] | deny, revoke, restore, hold, release |
//! | [`policy`] | what nodes may boot: learn, predict, check, apply, explain |
//! | [`ima`] | lists of digests, for what runs |
//! | [`proposal`], [`group`] | what nodes want to boot next; nodes with one policy |
//! | [`evidence`], [`eventlog`] | what a node sent; a firmware event log from a file |
//! | [`audit`] | the audit trail, as it is and as it grows |
//! | [`rollback`] | a verifier that was restored from a backup |
//! | [`completions`], [`man_pages`] | for shells, for packages |

pub mod approve;
pub mod audit;
pub mod completions;
pub mod decide;
pub mod enroll;
pub mod eventlog;
pub mod evidence;
pub mod group;
pub mod ima;
pub mod login;
pub mod man_pages;
pub mod node;
pub mod policy;
pub mod proposal;
pub mod rollback;

use crate::cli::{Cli, Color, Command, NodeCommand};
use crate::commands::approve::{Approval, How};
use crate::context::Context;
use crate::error::Result;
use crate::home::Home;
use crate::output::Out;
use halfkey_evidence::policy::Assured;

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
        return completions::run(shell);
    }
    if let Command::ManPages { folder } = cli.command {
        return man_pages::run(&folder);
    }
    let context = Context::new(Home::locate(cli.global.home)?, out, cli.global.timeout);
    match cli.command {
        Command::Login { bundle, replace } => login::login(&context, &bundle, replace),
        Command::Key => login::key(&context),
        Command::Nodes { only } => node::list(&context, &only),
        Command::Node { command: NodeCommand::Show { node } } => node::show(&context, &node),
        Command::Enroll(args) => enroll::run(&context, &args),
        Command::Approve {
            node,
            once,
            learn,
            for_group,
            replace,
            kernel_measures_initrd,
            trust_returned_images,
            trust_unknown_events,
            trust_command_line,
            wait,
            yes,
        } => {
            let how = How::of(once, learn, replace);
            let assured = Assured {
                kernel_measures_initrd,
                trust_returned_images,
                trust_unknown_events,
                trust_command_line,
            };
            approve::run(&context, &Approval { node: &node, how, for_group, assured, wait, yes })
        }
        Command::Deny { node, because } => decide::deny(&context, &node, &because),
        Command::Revoke { node, because } => decide::revoke(&context, &node, &because),
        Command::Restore { node, because } => decide::restore(&context, &node, &because),
        Command::Hold { node, because } => decide::hold(&context, &node, &because),
        Command::Release { node, because } => decide::release(&context, &node, &because),
        Command::Policy { command } => policy::run(&context, command),
        Command::Proposals { node, all } => proposal::list(&context, node.as_deref(), all),
        Command::Proposal { command } => proposal::run(&context, &command),
        Command::Group { command } => group::run(&context, &command),
        Command::Eventlog { file } => eventlog::run(&context, &file),
        Command::Ima { command } => ima::run(&context, &command),
        Command::Evidence { id: Some(number), event_log, .. } => {
            evidence::one(&context, number, event_log.as_deref())
        }
        Command::Evidence { node, limit, .. } => evidence::list(&context, &node.unwrap_or_default(), limit),
        Command::AcceptRollback { yes } => rollback::accept_rollback(&context, yes),
        Command::Audit { node, limit, follow } => audit::audit(&context, node.as_deref(), limit, follow),
        Command::Watch { node, after } => audit::watch(&context, node.as_deref(), after),
        Command::Completions { .. } | Command::ManPages { .. } => Ok(()),
    }
}
