//! The text of a document with more entries in a list of its `[secure_boot]`. All else stays as somebody wrote it, comments too.

use super::write::Text;
use std::fmt::Display;
use toml::de::{DeArray, DeTable};

/// With these at the end of the list, each with what it is, a line each. `None` for a text whose `[secure_boot]` is written in a way that
/// is not known here. Whoever calls reads what came of it: what text it is was not looked at.
pub(super) fn listing(text: &str, key: &str, entries: &[(impl Display, &str)]) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let Some(table) = root.get_ref().get("secure_boot") else {
        return Some(format!("{}\n\n[secure_boot]\n{}", text.trim_end(), whole(key, entries)));
    };
    let table = table.get_ref().as_table()?;
    if let Some(list) = table.get(key) {
        let (elements, span) = (list.get_ref().as_array()?, list.span());
        return longer(text, span.start, span.end.checked_sub(1)?, elements, entries);
    }
    // Behind another key, and what stands beside that.
    let after = table.iter().map(|(_, value)| value.span().end).max()?;
    let end = text.get(after..)?.find('\n').map_or(text.len(), |newline| after + newline);
    Some(format!("{}\n{}{}", text.get(..end)?, whole(key, entries).trim_end(), text.get(end..)?))
}

fn whole(key: &str, entries: &[(impl Display, &str)]) -> String {
    let mut out = Text::default();
    out.line(&format!("{key} = ["));
    entries.iter().for_each(|(entry, what)| out.entry(entry, what));
    out.line("]");
    out.0
}

/// `open` and `close` are where the list's brackets stand.
fn longer(
    text: &str,
    open: usize,
    close: usize,
    elements: &DeArray<'_>,
    entries: &[(impl Display, &str)],
) -> Option<String> {
    let last = elements.iter().last().map(|element| element.span().end);
    let rest = text.get(last.unwrap_or(open + 1)..close)?;
    // Between the last element and the bracket stand comments, and a comma or none.
    let has_comma = rest.lines().any(|line| line.split('#').next().is_some_and(|code| code.contains(',')));
    let comma = if last.is_some() && !has_comma { "," } else { "" };
    let (before, rest) = (text.get(..close - rest.len())?, rest.trim_end_matches([' ', '\t']));
    let newline = if rest.ends_with('\n') { "" } else { "\n" };
    let mut out = Text(format!("{before}{comma}{rest}{newline}"));
    entries.iter().for_each(|(entry, what)| out.entry(entry, what));
    out.0.push_str(text.get(close..)?);
    Some(out.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(text: &str, key: &str, expected: &str) {
        let entries = [("x", "certificate \"X\""), ("y", "")];
        let found = listing(text, key, &entries).expect(text);
        assert_eq!(found, expected);
        let table: toml::Table = found.parse().expect(expected);
        let list = table["secure_boot"][key].as_array().expect(key);
        let last: Vec<_> = list[list.len() - 2..].iter().map(|entry| entry.as_str()).collect();
        assert_eq!(last, [Some("x"), Some("y")]);
    }

    #[test]
    fn a_list_gets_longer_and_nothing_else_changes() {
        let new = "  \"x\", # certificate \"X\"\n  \"y\",\n";
        for (before, after) in [
            ("db = []", format!("db = [\n{new}]")),
            ("db = [ ]", format!("db = [\n{new}]")),
            ("db = [\"a\"] # b, c", format!("db = [\"a\",\n{new}] # b, c")),
            ("db = [\"a\", ]", format!("db = [\"a\",\n{new}]")),
            ("db = [\n  \"a\", # b\n]", format!("db = [\n  \"a\", # b\n{new}]")),
            ("db = [\n  \"a\" # b, c\n  ]", format!("db = [\n  \"a\", # b, c\n{new}]")),
            ("db = [\n  \"a\"\n  # b\n  , # c\n]", format!("db = [\n  \"a\"\n  # b\n  , # c\n{new}]")),
        ] {
            let around = |list: &str| format!("# one\n[secure_boot]\n{list}\npk = [] # two\n[event]\na = 1");
            becomes(&around(before), "db", &around(&after));
        }
        let new = format!("kek = [\n{new}]");
        becomes("a = 1\n", "kek", &format!("a = 1\n\n[secure_boot]\n{new}\n"));
        for (end, rest) in [("", ""), ("\n", "\n"), (" # b\n[c]", "\n[c]")] {
            let comment = end.split('\n').next().expect("a line");
            becomes(
                &format!("[secure_boot]\nrequired = true\ndb = [\"a\"]{end}"),
                "kek",
                &format!("[secure_boot]\nrequired = true\ndb = [\"a\"]{comment}\n{new}{rest}"),
            );
        }
    }

    #[test]
    fn another_way_to_write_it_is_left_to_the_owner() {
        for text in ["secure_boot = 1", "[secure_boot]", "[secure_boot]\ndb = 1", "[secure_boot", "= 1"] {
            assert_eq!(listing(text, "db", &[("x", "")]), None, "{text}");
        }
    }
}
