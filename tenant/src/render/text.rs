//! Text from elsewhere on an operator's terminal.

/// The same text without anything that a terminal could take for a command, or
/// that could make one line look like two: control and format characters become `\u{..}`.
///
/// Labels, messages and hints come from nodes and servers. Escape sequences in them
/// could repaint the very fingerprint that the operator is comparing.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same, at most `max` characters.
pub fn clean_short(text: &str, max: usize) -> String {
    let mut short: String = clean(text).chars().take(max + 1).collect();
    if short.chars().count() > max {
        short = short.chars().take(max.saturating_sub(1)).collect();
        short.push('…');
    }
    short
}

/// Text of several lines, each clean. Tabs stay: they move nothing backwards.
pub fn clean_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(clean).collect::<Vec<_>>().join("\t");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A JSON document that has the same meaning and is clean: what JSON lets stand in a string as it is becomes `\uXXXX`.
pub fn clean_json(json: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || is_format(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a String takes everything");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that reorder or hide their neighbours (bidirectional controls,
/// zero-width characters, line separators, tags).
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes everything");
        out
    })
}

/// The algorithm and the first 8 bytes: enough to tell digests apart, `--json` has all of it.
pub fn short_digest(digest: &str) -> String {
    match digest.split_once(':') {
        Some((name, digits)) if digits.len() > 16 => {
            format!("{name}:{}…", clean(&digits.chars().take(16).collect::<String>()))
        }
        _ => clean(digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_and_direction_marks_are_spelled_out() {
        assert_eq!(clean("web\x1b[2J\n1"), "web\\u{1b}[2J\\u{a}1");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(clean("Zürich 東京"), "Zürich 東京");
        assert_eq!(clean_short("abcdef", 4), "abc…");
        assert_eq!(clean_short("abcd", 4), "abcd");
        assert_eq!(clean_json("[\n\"\u{9b}\u{e0041}é\"]"), "[\n\"\\u009b\\udb40\\udc41é\"]");
        assert_eq!(clean_lines("a\tb\r\n\x1b[2Jc\n"), "a\tb\n\\u{1b}[2Jc");
    }

    proptest! {
        #[test]
        fn nothing_that_moves_a_cursor_survives(text: String, max in 0usize..40) {
            let clean = clean_short(&text, max);
            prop_assert!(!clean.chars().any(|c| c.is_control() || is_format(c)));
            prop_assert!(clean.chars().count() <= max.max(1));
        }

        #[test]
        fn clean_json_means_the_same(text: String) {
            let json = clean_json(&serde_json::to_string_pretty(&[&text]).unwrap());
            prop_assert!(!json.chars().any(|c| c != '\n' && c.is_control() || is_format(c)));
            prop_assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [text]);
        }
    }
}
