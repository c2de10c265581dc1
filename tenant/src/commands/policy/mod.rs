//! Policies: what nodes may boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`apply`], [`withdraw`] | signing and submitting |
//! | [`learn`], [`explain`], [`mod@test`], [`predict`] | the commands of these names |
//! | [`measured`] | `test` on an IMA list |
//! | [`check`], [`diff`], [`show`], [`list`] | nothing is changed |

pub mod apply;
pub mod check;
pub mod diff;
pub mod explain;
pub mod learn;
pub mod list;
pub mod measured;
pub mod predict;
pub mod show;
pub mod test;
pub mod withdraw;

use crate::cli::PolicyCommand;
use crate::context::Context;
use crate::error::Result;
use halfkey_evidence::policy::Assured;

/// Runs `halfkey policy`.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(context: &Context, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Learn {
            node,
            boot,
            name,
            output,
            kernel_measures_initrd,
            trust_returned_images,
            trust_unknown_events,
        } => {
            let assured = Assured {
                kernel_measures_initrd,
                trust_returned_images,
                trust_unknown_events,
                ..Assured::default()
            };
            learn::run(context, &node, boot, assured, name.as_deref(), output.as_deref())
        }
        PolicyCommand::Predict(args) => predict::run(context, &args),
        PolicyCommand::Check { file, additions } => check::run(context, &file, additions),
        PolicyCommand::Diff { before, after } => diff::run(context, &before, &after),
        PolicyCommand::Show { scope, version } => show::run(context, &scope, version),
        PolicyCommand::List => list::run(context),
        PolicyCommand::Apply { file, target, yes } => apply::run(context, &file, &target, yes),
        PolicyCommand::Withdraw { node, additions, yes } => withdraw::run(context, &node, additions, yes),
        PolicyCommand::Test { file, against, cmdline, digests, bank } => {
            let tried =
                test::Against { against: &against, cmdline: cmdline.as_deref(), digests: &digests, bank };
            test::run(context, &file, &tried)
        }
        PolicyCommand::Explain { node, boot } => explain::run(context, &node, boot),
    }
}
