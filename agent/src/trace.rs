//! A name for this run, by which what a boot says on the console and what the servers log of it are found together. It proves
//! nothing, and nothing depends on it.

use crate::{console, words};
use std::sync::OnceLock;

/// None without random bytes: then there is no name.
static TRACE: OnceLock<Option<String>> = OnceLock::new();

/// Says the name, unless something was asked by it already.
pub fn announce() {
    let mut new = false;
    let made = TRACE.get_or_init(|| {
        new = true;
        make()
    });
    if let Some(trace) = made.as_deref().filter(|_| new).and_then(|parent| parent.get(3..35)) {
        console::say(&words::trace(trace));
    }
}

/// The value of `traceparent` (W3C Trace Context, 3.2).
pub fn parent() -> Option<&'static str> {
    TRACE.get_or_init(make).as_deref()
}

fn make() -> Option<String> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).ok()?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let (trace, parent) = digits.split_at(32);
    Some(format!("00-{trace}-{parent}-01"))
}
