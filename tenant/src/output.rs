//! Data on standard output, all else on standard error.

use crate::error::{Error, Exit, Result};
use crate::render::Style;
use crate::render::text::{clean_json, clean_lines};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Where results go.
pub struct Out {
    json: bool,
    style: Style,
}

impl Out {
    /// `json`: documents instead of tables. The colour choice of anstream is made before.
    pub fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { json, style: Style { terminal, color } }
    }

    /// How tables look.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// Whether documents are wanted instead of text.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// The result of a command: one JSON document, or text.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn value<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        self.write(if self.json { json(value, serde_json::to_string_pretty) } else { text() })
    }

    /// One entry of a stream: one line of JSON, or of text.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn line<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        self.write(if self.json { json(value, serde_json::to_string) } else { text() })
    }

    /// For people, on standard error: clean, an error's text may be part of it.
    pub fn note(&self, text: &str) {
        // Nobody is left to tell if this fails.
        let _ = writeln!(anstream::stderr(), "{}", clean_lines(text));
    }

    fn write(&self, text: String) -> Result<()> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Error::new(Exit::Done, ""),
            _ => Error::failed(format!("can't write to standard output: {e}")),
        })
    }
}

fn json<T>(value: &T, form: impl Fn(&T) -> serde_json::Result<String>) -> String {
    clean_json(&form(value).expect("wire types have a JSON form"))
}
