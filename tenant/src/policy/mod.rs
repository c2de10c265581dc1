//! Policies: what nodes may boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`scope`] | what a policy is for |
//! | [`document`] | documents from files, and those that this desk signed |
//! | [`problems`] | what is wrong with one, with line and column |
//! | [`ledger`] | the versions that were signed here |
//! | [`boot`] | stored boots, checked here |
//! | [`waiting`] | the boot that waits for an operator, checked here |
//! | [`node`] | what a node is judged by |
//! | [`apply`], [`withdraw`] | signing and handing in |
//! | [`trial`] | a policy on stored boots |
//! | [`learn`], [`explain`], [`mod@test`], [`predict`] | the commands of these names |
//! | [`measure`], [`machine`], [`package`] | what a boot will measure, on which machine; images in a package |
//! | [`read`] | `check`, `diff`, `show`, `list` |

pub mod apply;
pub mod boot;
pub mod document;
pub mod explain;
pub mod learn;
pub mod ledger;
pub mod machine;
pub mod measure;
pub mod node;
pub mod package;
pub mod predict;
pub mod problems;
pub mod read;
pub mod scope;
pub mod test;
pub mod trial;
pub mod waiting;
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
