//! What a policy does not allow.

use crate::render::text::clean;
use crate::render::words;
use halfkey_protocol::wire::policies::Finding;
use std::fmt::Write;

/// What a policy does not allow, a paragraph each.
pub fn findings(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        let event = finding.event.map(|event| format!(", event {event}")).unwrap_or_default();
        let place = match finding.pcr {
            Some(pcr) => format!("PCR {pcr} ({}){event}: ", words::pcr(pcr)),
            None => String::new(),
        };
        writeln!(
            text,
            "  {place}{}\n    rule      {}\n    expected  {}\n    found     {}",
            clean(&finding.what),
            clean(&finding.rule),
            clean(&finding.expected),
            clean(&finding.found)
        )
        .expect("a String takes everything");
        if let Some(hint) = &finding.hint {
            writeln!(text, "    hint      {}", clean(hint)).expect("a String takes everything");
        }
        text
    })
}
