//! Policies: what nodes may boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`apply`], [`withdraw`] | signing and handing in |
//! | [`learn`], [`explain`], [`mod@test`], [`predict`] | the commands of these names |
//! | [`check`], [`diff`], [`show`], [`list`] | nothing is changed |

pub mod apply;
pub mod check;
pub mod diff;
pub mod explain;
pub mod learn;
pub mod list;
pub mod predict;
pub mod show;
pub mod test;
pub mod withdraw;

use crate::cli::PolicyCommand;
use crate::context::App;
use crate::error::Result;
use halfkey_evidence::policy::Assured;

/// Runs `halfkey policy`.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(app: &App, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Learn { node, boot, name, output, kernel_measures_initrd, trust_returned_images } => {
            let assured = Assured { kernel_measures_initrd, trust_returned_images };
            learn::run(app, &node, boot, assured, name.as_deref(), output.as_deref())
        }
        PolicyCommand::Predict(args) => predict::run(app, &args),
        PolicyCommand::Check { file, additions } => check::run(app, &file, additions),
        PolicyCommand::Diff { before, after } => diff::run(app, &before, &after),
        PolicyCommand::Show { scope, version } => show::run(app, &scope, version),
        PolicyCommand::List => list::run(app),
        PolicyCommand::Apply { file, target, yes } => apply::run(app, &file, &target, yes),
        PolicyCommand::Withdraw { node, additions, yes } => withdraw::run(app, &node, additions, yes),
        PolicyCommand::Test { file, against, cmdline, bank } => {
            test::run(app, &file, &against, cmdline.as_deref(), bank)
        }
        PolicyCommand::Explain { node, boot } => explain::run(app, &node, boot),
    }
}
