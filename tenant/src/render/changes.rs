//! What one policy says and another does not.

use crate::render::text::clean;
use halfkey_evidence::policy::Change;
use std::fmt::Write;

/// What one policy says and another does not.
pub fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "  nothing: both allow the same".to_owned();
    }
    let text = changes.iter().fold(String::new(), |mut text, change| {
        writeln!(text, "  {}", clean(&change.path)).expect("a String takes everything");
        for (sign, value) in [('-', &change.before), ('+', &change.after)] {
            for line in value.iter().flat_map(|value| value.lines()) {
                writeln!(text, "    {sign} {}", clean(line)).expect("a String takes everything");
            }
        }
        text
    });
    text.trim_end().to_owned()
}
