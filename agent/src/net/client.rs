//! One request, one answer.

use super::connect::{NameFailure, Names, Secure};
use super::{Error, Server};
use crate::deadline::Deadline;
use crate::timing::Timeline;
use halfkey_protocol::{MAX_ANSWER, wire};
use rustls::ClientConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::config::Config;

/// A server and the connection to it, which is kept from one request to the next.
pub struct Client {
    server: Server,
    agent: Agent,
    timeline: Timeline,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(server: Server, tls: Arc<ClientConfig>, timeline: Timeline) -> Self {
        let config = Config::builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("halfkey-agent/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(16 << 10)
            .input_buffer_size(16 << 10)
            .output_buffer_size(16 << 10)
            .max_idle_connections(1)
            .build();
        let connector = Secure { tls, timeline: timeline.clone() };
        let agent = Agent::with_parts(config, connector, Names { timeline: timeline.clone() });
        Self { server, agent, timeline }
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
        let (status, text) = self.timeline.time("network", path, || self.exchange(path, body, left))?;
        read_answer(status, &text)
    }

    fn exchange(&self, path: &str, body: String, left: Duration) -> Result<(u16, String), Error> {
        let mut response = self
            .agent
            .post(self.server.join(path))
            .config()
            .timeout_global(Some(left))
            .build()
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .send(body)
            .map_err(classify)?;
        let bytes =
            response.body_mut().with_config().limit(MAX_ANSWER as u64).read_to_vec().map_err(classify)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::Malformed("not UTF-8".into()))?;
        Ok((response.status().as_u16(), text))
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
            hint: problem.hint.map(|hint| printable(&hint, 500)),
        }),
        Err(_) => Err(Error::Http(status)),
    }
}

/// What a server says is shown on a console: no control characters, not without end.
pub fn printable(text: &str, at_most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(at_most).collect()
}

fn classify(error: ureq::Error) -> Error {
    match error {
        ureq::Error::Io(e) => classify_io(e),
        ureq::Error::Timeout(at) => Error::Timeout(match at {
            ureq::Timeout::Resolve => "resolving the name",
            ureq::Timeout::Connect => "connecting",
            ureq::Timeout::SendRequest | ureq::Timeout::SendBody => "sending the request",
            ureq::Timeout::RecvBody => "receiving the answer",
            _ => "waiting for the answer",
        }),
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => Error::TooLarge,
        ureq::Error::HostNotFound => Error::Name("no address".into()),
        ureq::Error::Other(e) if e.is::<NameFailure>() => Error::Name(e.to_string()),
        ureq::Error::Tls(what) => Error::Tls(what.into()),
        other => Error::Malformed(format!("not http: {other}")),
    }
}

fn classify_io(error: io::Error) -> Error {
    use io::ErrorKind as K;
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Error::Tls(tls_words(tls));
    }
    if error.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) {
        return classify(error.into());
    }
    match error.kind() {
        K::TimedOut | K::WouldBlock => Error::Timeout("waiting for the server"),
        K::ConnectionRefused => Error::Refused(error.to_string()),
        K::NetworkUnreachable | K::HostUnreachable | K::AddrNotAvailable | K::NetworkDown => {
            Error::Unreachable(error.to_string())
        }
        _ => Error::Broken(error.to_string()),
    }
}

fn tls_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "the server's certificate is not from the CA that this machine pins".into()
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("the server's certificate is for another name: {error}")
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            format!("the server's certificate has expired: {error}")
        }
        other => other.to_string(),
    }
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
