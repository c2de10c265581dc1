//! The man page `halfkey-agent(8)`, from the definition. `agent/share/halfkey-agent.8` is this text.

use super::defs::{ABOUT, COMMANDS, Cmd, EXIT_CODES, GLOBAL, Opt, PROGRAM, TPM_VARIABLE, USAGE};
use super::help;

/// The page, in man(7) macros.
pub fn page() -> String {
    let mut out = format!(
        ".TH HALFKEY\\-AGENT 8 \"\" \"halfkey {}\" \"System Administration\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
        escaped(env!("CARGO_PKG_VERSION")),
        escaped(PROGRAM),
        escaped(ABOUT),
    );
    synopsis(&mut out, USAGE);
    out.push_str(".SH OPTIONS\n");
    for option in GLOBAL {
        entry(&mut out, option);
    }
    tagged(&mut out, "--help", "help; after a command, that of the command");
    tagged(&mut out, "--version", "the version");
    out.push_str(".SH COMMANDS\n");
    for command in COMMANDS {
        section(&mut out, command);
    }
    out.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in EXIT_CODES {
        tagged(&mut out, &code.to_string(), meaning);
    }
    out.push_str(".SH ENVIRONMENT\n");
    tagged(
        &mut out,
        TPM_VARIABLE,
        "what --tpm says, if it is not given. Counts for nothing in the initramfs",
    );
    out.push_str(
        ".SH SEE ALSO\n.BR halfkey\\-verifier (8),\n.BR cryptsetup (8),\n.BR crypttab (5),\n.BR dracut (8)\n",
    );
    out
}

fn section(out: &mut String, command: &Cmd) {
    out.push_str(&format!(".SS \"{}\"\n", escaped(&format!("{}: {}", command.name, command.about))));
    for usage in command.usage {
        synopsis(out, usage);
    }
    for text in command.text {
        out.push_str(&format!(".PP\n{}\n", line(text)));
    }
    for option in command.options {
        entry(out, option);
    }
    for note in command.notes {
        out.push_str(&format!(".PP\n{}\n", line(note)));
    }
}

fn synopsis(out: &mut String, usage: &str) {
    out.push_str(&format!(".PP\n.B {}\n{}\n", escaped(PROGRAM), line(usage)));
}

fn entry(out: &mut String, option: &Opt) {
    tagged(out, &option.spelled(), &help::words(option));
}

fn tagged(out: &mut String, tag: &str, text: &str) {
    out.push_str(&format!(".TP\n.B {}\n{}\n", escaped(tag), line(text)));
}

/// Text as a line of its own: a dot or an apostrophe at its begin would make it a request.
fn line(text: &str) -> String {
    let text = escaped(text);
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
