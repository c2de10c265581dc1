//! The little of HTTP/1.1 (RFC 9112) that a POST and its answer need.
//!
//! A library for all of HTTP is a quarter of a megabyte that firmware reads at every boot. What comes
//! in is hostile: strict, bounded in every direction, and what the RFC leaves to taste is refused.

use super::Error;
use std::io::{BufRead, Read};

/// Status line and fields together, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Answers like `100 Continue` before the answer.
const MAX_INTERIM: usize = 4;
/// The line before a chunk: its size, and perhaps an extension that nobody uses.
const MAX_CHUNK_LINE: usize = 256;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// At most as long as asked for.
    pub body: Vec<u8>,
    /// Whether the connection can carry another request.
    pub keep: bool,
}

/// A request with a JSON body, and what servers find it by in their logs.
pub fn post(authority: &str, target: &str, body: &str, trace: Option<&str>) -> String {
    let (name, end) = if trace.is_some() { ("traceparent: ", "\r\n") } else { ("", "") };
    format!(
        "POST {target} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: halfkey-agent/{}\r\n{name}{}{end}\
         content-type: application/json\r\naccept: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        trace.unwrap_or_default(),
        body.len()
    )
}

/// Reads an answer whose body has at most `max` bytes.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Malformed`], or what the connection says.
pub fn read(reader: &mut impl BufRead, max: usize) -> Result<Answer, Error> {
    for _ in 0..MAX_INTERIM {
        let head = Head::read(reader)?;
        if head.status < 200 {
            continue;
        }
        let (body, to_the_end) = match head.length {
            _ if head.status == 204 || head.status == 304 => (Vec::new(), false),
            Length::Exactly(length) if length > max as u64 => return Err(Error::TooLarge),
            Length::Exactly(length) => (exactly(reader, length as usize)?, false),
            Length::Chunked => (chunks(reader, max)?, false),
            Length::UntilTheEnd => (until_the_end(reader, max)?, true),
        };
        return Ok(Answer { status: head.status, body, keep: head.keep && !to_the_end });
    }
    Err(malformed("interim answers without end"))
}

struct Head {
    status: u16,
    length: Length,
    keep: bool,
}

enum Length {
    Exactly(u64),
    Chunked,
    UntilTheEnd,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self, Error> {
        let mut left = MAX_HEAD;
        let status_line = line(reader, &mut left)?;
        let (version, rest) = status_line.split_at_checked(9).ok_or_else(|| malformed("no status line"))?;
        let keep = match version {
            "HTTP/1.1 " => true,
            "HTTP/1.0 " => false,
            _ => return Err(malformed("no status line of HTTP/1.1")),
        };
        let digits = rest.get(..3).filter(|_| rest.len() == 3 || rest.as_bytes()[3] == b' ');
        let status = digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|status| (100..600).contains(status))
            .ok_or_else(|| malformed("no status code"))?;

        let mut head = Self { status, length: Length::UntilTheEnd, keep };
        let mut length = None;
        let mut chunked = false;
        loop {
            let line = line(reader, &mut left)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("a field without a colon"))?;
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(malformed("a field without a name"));
            }
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-length") {
                let number = number(value, 10)?;
                if length.is_some_and(|before| before != number) {
                    return Err(malformed("two lengths"));
                }
                length = Some(number);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(malformed("a transfer encoding other than chunked"));
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                head.keep &= !value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
            }
        }
        head.length = match (length, chunked) {
            // Which of the two counts is how requests are smuggled.
            (Some(_), true) => return Err(malformed("a length and chunks")),
            (Some(length), false) => Length::Exactly(length),
            (None, true) => Length::Chunked,
            (None, false) => Length::UntilTheEnd,
        };
        Ok(head)
    }
}

/// A line without its CR LF, taken from what is `left`.
fn line(reader: &mut impl BufRead, left: &mut usize) -> Result<String, Error> {
    let mut line = Vec::new();
    let read = reader.take(*left as u64).read_until(b'\n', &mut line);
    read.map_err(|e| Error::from_io(e, "waiting for the answer"))?;
    *left -= line.len();
    match line.strip_suffix(b"\r\n") {
        Some(text) => String::from_utf8(text.to_vec()).map_err(|_| malformed("a line that is no text")),
        None if line.ends_with(b"\n") => Err(malformed("a line that ends without CR")),
        None if *left == 0 => Err(Error::TooLarge),
        None => Err(ended()),
    }
}

fn exactly(reader: &mut impl BufRead, length: usize) -> Result<Vec<u8>, Error> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body).map_err(|e| Error::from_io(e, "receiving the answer"))?;
    Ok(body)
}

fn chunks(reader: &mut impl BufRead, max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    // At least one byte of body in each chunk but the last: the loop ends.
    loop {
        let line = self::line(reader, &mut MAX_CHUNK_LINE.clone())?;
        let size = number(line.split(';').next().unwrap_or_default().trim_end(), 16)?;
        if size > (max - body.len()) as u64 {
            return Err(Error::TooLarge);
        }
        if size == 0 {
            let mut left = MAX_HEAD;
            while !self::line(reader, &mut left)?.is_empty() {}
            return Ok(body);
        }
        body.extend(exactly(reader, size as usize)?);
        if exactly(reader, 2)? != b"\r\n" {
            return Err(malformed("a chunk that does not end where it says"));
        }
    }
}

fn until_the_end(reader: &mut impl BufRead, max: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let read = reader.take(max as u64 + 1).read_to_end(&mut body);
    read.map_err(|e| Error::from_io(e, "receiving the answer"))?;
    if body.len() > max { Err(Error::TooLarge) } else { Ok(body) }
}

/// A number of digits only: no sign, no space, at most 16.
fn number(text: &str, radix: u32) -> Result<u64, Error> {
    let digits = (1..=16).contains(&text.len()) && text.chars().all(|c| c.is_digit(radix));
    let number = if digits { u64::from_str_radix(text, radix).ok() } else { None };
    number.ok_or_else(|| malformed("a length that is no number"))
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("not http: {what}"))
}

fn ended() -> Error {
    Error::Broken("it ended in the middle of the answer".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(text: &str) -> Result<Answer, Error> {
        read(&mut text.as_bytes(), 64)
    }

    #[test]
    fn the_three_ways_to_end_a_body() {
        let exact = answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP").unwrap();
        assert_eq!(exact, Answer { status: 200, body: b"{}".into(), keep: true });
        let chunked = answer("HTTP/1.1 403\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1 \r\n}\r\n0\r\nTrailer: x\r\n\r\n").unwrap();
        assert_eq!(chunked, Answer { status: 403, body: b"{}".into(), keep: true });
        let closed = answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 500 Oh no\r\n\r\n{}").unwrap();
        assert_eq!(closed, Answer { status: 500, body: b"{}".into(), keep: false });
        assert!(
            !answer("HTTP/1.1 200 OK\r\nConnection: x, Close\r\ncontent-length: 0\r\n\r\n").unwrap().keep
        );
        assert!(answer("HTTP/1.1 204 No Content\r\n\r\n").unwrap().body.is_empty());
    }

    #[test]
    fn hostile_answers_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(20_000));
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(5_000));
        let too_large = [
            "HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n41\r\n",
            &long,
            &endless,
        ];
        for text in too_large {
            assert!(matches!(answer(text), Err(Error::TooLarge)), "{}", &text[..40]);
        }
        let until_the_end = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(65));
        assert!(matches!(answer(&until_the_end), Err(Error::TooLarge)));
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxxx\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        ] {
            assert!(matches!(answer(text), Err(Error::Malformed(_))), "{text}: {:?}", answer(text));
        }
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx",
        ] {
            assert!(matches!(answer(text), Err(Error::Broken(_))), "{text}: {:?}", answer(text));
        }
        assert!(answer(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(9)).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(
            status in "HTTP/1\\.[01] [0-9]{1,3}.{0,5}|.{0,20}",
            fields in "((content-length|transfer-encoding|connection|x):? ?[a-z0-9]{0,7}\r\n){0,4}",
            body in "([0-9a-f]{1,3}\r\n[a-z]{0,8}\r\n){0,4}.{0,80}",
        ) {
            if let Ok(answer) = answer(&format!("{status}\r\n{fields}\r\n{body}")) {
                prop_assert!(answer.body.len() <= 64);
                prop_assert!((200..600).contains(&answer.status));
            }
        }
    }
}
