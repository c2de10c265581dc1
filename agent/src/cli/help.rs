//! The help, from the definition.

use super::defs::{ABOUT, COMMANDS, Cmd, EXIT_CODES, GLOBAL, Opt, PROGRAM, USAGE};

/// Width of the help, in columns.
const WIDTH: usize = 96;
/// Where the words about an option of a command begin.
const OPTION_COLUMN: usize = 25;

/// `halfkey-agent --help`.
pub fn program() -> String {
    let column = 4 + COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let mut out = format!("{PROGRAM}: {ABOUT}\n\nusage: {PROGRAM} {USAGE}\n\n");
    for command in COMMANDS {
        item(&mut out, command.name, command.about, column);
    }
    out.push('\n');
    for option in GLOBAL {
        item(&mut out, &option.spelled(), option.help, column);
    }
    item(&mut out, "--help", &format!("this; {PROGRAM} COMMAND --help for one command"), column);
    item(&mut out, "--version", "the version", column);
    out.push('\n');
    let codes: Vec<String> = EXIT_CODES.iter().map(|(code, meaning)| format!("{code} {meaning}")).collect();
    paragraph(&mut out, &format!("exit codes: {}", codes.join("; ")), 0);
    out
}

/// `halfkey-agent COMMAND --help`.
pub fn command(command: &Cmd) -> String {
    let mut out = String::new();
    for (lead, usage) in ["usage:"].into_iter().chain(std::iter::repeat("      ")).zip(command.usage) {
        out.push_str(&format!("{lead} {PROGRAM} {usage}\n"));
    }
    for text in command.text {
        out.push('\n');
        paragraph(&mut out, text, 0);
    }
    if !command.options.is_empty() {
        out.push('\n');
    }
    for option in command.options {
        item(&mut out, &option.spelled(), &words(option), OPTION_COLUMN);
    }
    for note in command.notes {
        out.push('\n');
        paragraph(&mut out, note, 0);
    }
    out
}

/// What is said about an option.
pub fn words(option: &Opt) -> String {
    let more = if option.repeated { "; may be repeated" } else { "" };
    format!("{}{more}", option.help)
}

/// A name and, from `column` on, the words about it; on the next line if the name is too long for that.
fn item(out: &mut String, name: &str, text: &str, column: usize) {
    let used = 2 + name.len();
    out.push_str("  ");
    out.push_str(name);
    if used + 2 > column {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', column));
    } else {
        out.extend(std::iter::repeat_n(' ', column - used));
    }
    paragraph(out, text, column);
}

/// Breaks `text` between words, so that lines end before [`WIDTH`], and indents all but the first, which begins at that
/// column already.
fn paragraph(out: &mut String, text: &str, indent: usize) {
    let (mut used, mut first) = (indent, true);
    for word in text.split_ascii_whitespace() {
        let width = word.chars().count();
        if !first && used + 1 + width > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            used = indent;
        } else if !first {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += width;
        first = false;
    }
    out.push('\n');
}
