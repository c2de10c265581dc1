//! Files read with a bound: most of what the agent reads is not in its hands.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// All of a file, if it has at most `max` bytes. Kernel files report a size of 0, so the
/// bound is on what is read.
///
/// # Errors
/// When it can't be read, or is larger ([`io::ErrorKind::FileTooLarge`]).
pub fn read(path: impl AsRef<Path>, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// The same as text; a value of sysfs without its line feed.
///
/// # Errors
/// As [`read`], or when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, max: usize) -> io::Result<String> {
    let text =
        String::from_utf8(read(path, max)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(text.trim_end().to_owned())
}
