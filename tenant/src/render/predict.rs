//! What the next boot will measure.

use crate::commands::policy::predict::{Predicted, Prediction};
use crate::render::text::clean;
use crate::render::words;
use std::fmt::Write;

/// `halfkey policy predict`: comments and blocks, fit to be appended to a policy.
pub fn all(predicted: &Predicted) -> String {
    let base = predicted.base.as_ref().map(|base| format!("# base: {}\n", clean(base))).unwrap_or_default();
    base + &predicted.boots.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn one(boot: &Prediction) -> String {
    let secure = if boot.secure_boot { "on" } else { "off" };
    let mut text = format!("# {}: {}, Secure Boot {secure}\n", clean(&boot.path), clean(&boot.name));
    let mut line = |line: String| writeln!(text, "# {line}").expect("a String takes everything");
    for event in &boot.events {
        line(format!("  PCR {:<2}  {}  {}", event.pcr, event.digest, event.what));
    }
    for pcr in &boot.pcrs {
        let value = pcr.value.as_deref().unwrap_or("not known");
        line(format!("PCR {:<2}  {value}  {}: {}", pcr.pcr, words::pcr(pcr.pcr), pcr.why));
    }
    for missing in &boot.missing {
        line(format!("missing: {missing}"));
    }
    if let Some(name) = &boot.allowed_by {
        line(format!("allowed already by boot \"{}\"", clean(name)));
    }
    if let Some(block) = &boot.block {
        text.push('\n');
        text.push_str(block.trim_end());
    }
    text.trim_end().to_owned()
}
