//! One request, one answer.

use super::connect::{self, Stream};
use super::{Error, Server, http};
use crate::deadline::Deadline;
use crate::timing::Timeline;
use crate::trace;
use halfkey_protocol::{MAX_ANSWER, Reason, wire};
use rustls::ClientConfig;
use std::cell::RefCell;
use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server and the connection to it, which is kept from one request to the next.
pub struct Client {
    server: Server,
    tls: Arc<ClientConfig>,
    timeline: Timeline,
    idle: RefCell<Option<BufReader<Stream>>>,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(server: Server, tls: Arc<ClientConfig>, timeline: Timeline) -> Self {
        Self { server, tls, timeline, idle: RefCell::default() }
    }

    /// Which server this talks to.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Sends `body` to `path` and reads the answer, all within `at_most` and the deadline.
    ///
    /// # Errors
    /// Each with its own [`Error`]; an answer of 400 or above is one, too.
    pub fn post<Q, A>(&self, path: &str, body: &Q, at_most: Duration, deadline: Deadline) -> Result<A, Error>
    where
        Q: miniserde::Serialize,
        A: miniserde::Deserialize,
    {
        let left = deadline.within(at_most).remaining();
        if left.is_zero() {
            return Err(Error::Timeout("starting a request"));
        }
        let body = miniserde::json::to_string(body);
        let (status, text) = self.timeline.time("network", path, || self.exchange(path, &body, left))?;
        read_answer(status, &text)
    }

    fn exchange(&self, path: &str, body: &str, left: Duration) -> Result<(u16, String), Error> {
        let until = Instant::now() + left;
        let idle = self.idle.take().and_then(|mut idle| connect::is_open(idle.get_mut()).then_some(idle));
        let mut connection = match idle {
            Some(idle) => idle,
            None => BufReader::new(connect::open(&self.server, self.tls.clone(), until, &self.timeline)?),
        };
        let stream = connection.get_mut();
        stream.sock.until = until;
        let request = http::post(self.server.authority(), &self.server.target(path), body, trace::parent());
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.flush())
            .map_err(|e| Error::from_io(e, "sending the request"))?;
        let answer = http::read(&mut connection, MAX_ANSWER)?;
        // Bytes behind the answer belong to nothing that was asked.
        if answer.keep && connection.buffer().is_empty() {
            self.idle.replace(Some(connection));
        }
        let text = String::from_utf8(answer.body).map_err(|_| Error::Malformed("not UTF-8".into()))?;
        Ok((answer.status, text))
    }
}

/// An answer of the protocol from HTTP's status and body.
///
/// # Errors
/// [`Error::Problem`], [`Error::Http`] or [`Error::Malformed`].
pub fn read_answer<A: miniserde::Deserialize>(status: u16, text: &str) -> Result<A, Error> {
    if (200..300).contains(&status) {
        return miniserde::json::from_str(text).map_err(|_| {
            Error::Malformed(format!("expected a message of protocol version 1, found {} bytes", text.len()))
        });
    }
    match miniserde::json::from_str::<wire::Problem>(text) {
        Ok(problem) => Err(Error::Problem {
            status,
            code: printable(&problem.code, 64),
            message: printable(&problem.message, 500),
            hint: advice(problem.hint.as_deref(), Some(&problem.code)),
        }),
        Err(_) => Err(Error::Http(status)),
    }
}

/// What is to be done, as the server says it; where it says nothing, as the reason says it that it gave.
pub fn advice(said: Option<&str>, code: Option<&str>) -> Option<String> {
    let of_reason = || code.and_then(Reason::from_code).and_then(Reason::hint).map(str::to_owned);
    said.map(|hint| printable(hint, 500)).or_else(of_reason)
}

/// What a server says is shown on a console: no control characters, not without end.
pub fn printable(text: &str, at_most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(at_most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_problem_keeps_its_code_and_loses_its_control_characters() {
        let text = r#"{"code":"revoked","message":"no\u001b[2J","hint":null}"#;
        let Err(Error::Problem { code, message, .. }) = read_answer::<wire::Begun>(403, text) else {
            panic!()
        };
        assert_eq!((code.as_str(), message.as_str()), ("revoked", "no [2J"));
        assert!(matches!(read_answer::<wire::Begun>(500, "<html>"), Err(Error::Http(500))));
        assert!(matches!(read_answer::<wire::Begun>(302, ""), Err(Error::Http(302))));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(status: u16, text in ".{0,200}") {
            let _ = read_answer::<wire::Verdict>(status, &text);
            let _ = read_answer::<wire::Registered>(200, &text);
        }

        #[test]
        fn any_nesting_is_read_or_refused(depth in 0usize..20_000) {
            let _ = read_answer::<wire::Verdict>(200, &format!(r#"{{"x":{}"#, "[".repeat(depth)));
        }
    }
}
