//! Policies: what nodes may boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`apply`], [`withdraw`] | signing and handing in |
//! | [`learn`], [`explain`], [`mod@test`], [`predict`] | the commands of these names |
//! | [`read`] | `check`, `diff`, `show`, `list` |

pub mod apply;
pub mod explain;
pub mod learn;
pub mod predict;
pub mod read;
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
        PolicyCommand::Check { file, additions } => read::check(app, &file, additions),
        PolicyCommand::Diff { before, after } => read::diff(app, &before, &after),
        PolicyCommand::Show { scope, version } => read::show(app, &scope, version),
        PolicyCommand::List => read::list(app),
        PolicyCommand::Apply { file, target, yes } => apply::run(app, &file, &target, yes),
        PolicyCommand::Withdraw { node, additions, yes } => withdraw::run(app, &node, additions, yes),
        PolicyCommand::Test { file, against, cmdline, bank } => {
            test::run(app, &file, &against, cmdline.as_deref(), bank)
        }
        PolicyCommand::Explain { node, boot } => explain::run(app, &node, boot),
    }
}
