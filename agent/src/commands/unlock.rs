//! `unlock`: what the initramfs runs, and what is printed of it.

use super::report;
use crate::boot::cmdline::Settings;
use crate::boot::unlock;
use crate::{console, fence, words};
use std::process::ExitCode;

/// Unlocks, unless the command line of the kernel says `rd.halfkey=off`.
pub fn run(options: unlock::Options, json: bool) -> ExitCode {
    let settings = Settings::of_this_boot();
    let dry_run = options.dry_run;
    if settings.off && !dry_run {
        console::say(words::OFF);
        if let Err(error) = fence::ensure_closed(&options.tpm) {
            console::complain(&error);
        }
        return ExitCode::SUCCESS;
    }
    let mut unlock = unlock::Unlock::new(options, settings);
    let result = unlock.run();
    if json {
        report::print_json(&unlock, &result);
    } else if dry_run {
        report::print(&unlock, &result);
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Unless dry, the unlocking said it before it closed the fence.
            if dry_run {
                console::complain(&error);
            }
            ExitCode::from(error.kind.exit_code())
        }
    }
}
