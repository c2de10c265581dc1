//! Which enrollments the disks have, and where each is asked about.
//!
//! While an enrollment takes the place of another, a volume has tokens of both, and it is the verifier that knows which
//! counts. They can even name different verifiers: then one is asked after the other.

use super::cmdline::Settings;
use super::devices::Volume;
use crate::error::Result;
use crate::luks::Token;
use crate::net::Server;
use crate::words;
use halfkey_protocol::wire::Begun;
use halfkey_protocol::{MAX_VOLUMES, NodeId};

/// More than an owner can have; a planted token must not take the time of the true one.
const MAX_ROUTES: usize = 4;

/// What one exchange can be about: enrollments of one node at the same servers.
#[derive(Debug)]
pub struct Route {
    /// Node id, the same in all tokens of the route.
    pub node: NodeId,
    /// URLs of its verifiers, as its tokens have them.
    pub servers: Vec<Server>,
    /// The CA that those must have, PEM; no other root counts.
    pub ca: String,
    /// A token of each enrollment: that of a volume which the boot names first, else the newest. Not empty.
    pub tokens: Vec<Token>,
}

/// The routes for these volumes, best first.
pub fn routes(volumes: &[Volume], settings: &Settings) -> Vec<Route> {
    let mut tokens: Vec<(bool, &Token)> = Vec::new();
    for volume in volumes {
        let named = settings.named.iter().any(|named| named.uuid == volume.header.uuid);
        tokens.extend(volume.tokens.iter().map(|(_, token)| (named, token)));
    }
    group(tokens)
}

fn group(mut tokens: Vec<(bool, &Token)>) -> Vec<Route> {
    tokens.sort_by_key(|(named, token)| std::cmp::Reverse((*named, token.enrolled_at)));
    let mut routes: Vec<Route> = Vec::new();
    for (_, token) in tokens {
        let same = |route: &Route| {
            (route.node, &route.servers, &route.ca) == (token.node, &token.servers, &token.ca)
        };
        if let Some(at) = routes.iter().position(same) {
            let tokens = &mut routes[at].tokens;
            if tokens.len() < MAX_VOLUMES && tokens.iter().all(|other| other.enrollment != token.enrollment) {
                tokens.push(token.clone());
            }
        } else if routes.len() < MAX_ROUTES {
            routes.push(Route {
                node: token.node,
                servers: token.servers.clone(),
                ca: token.ca.clone(),
                tokens: vec![token.clone()],
            });
        }
    }
    routes
}

impl Route {
    /// For `begin`.
    pub fn enrollments(&self) -> Vec<String> {
        self.tokens.iter().map(|token| token.enrollment.clone()).collect()
    }

    /// The token of the enrollment that the verifier says is current.
    ///
    /// # Errors
    /// When there is none.
    pub fn current(&self, begun: &Begun) -> Result<&Token> {
        let named = |token: &&Token| begun.enrollment.as_ref() == Some(&token.enrollment);
        self.tokens.iter().find(named).ok_or_else(|| words::none_on_these_disks(&self.enrollments()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks::token::tests::token;

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const B: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

    fn made(enrollment: &str, enrolled_at: u64) -> Token {
        Token { enrollment: enrollment.into(), enrolled_at, ..token(1, true) }
    }

    fn begun(enrollment: Option<&str>) -> Begun {
        Begun {
            version: 1,
            nonce: vec![].into(),
            bank: "sha256".into(),
            enrollment: enrollment.map(str::to_owned),
        }
    }

    #[test]
    fn two_enrollments_at_one_verifier_are_one_question() {
        let (old, new) = (made(A, 1), made(B, 2));
        // Two volumes, both with both.
        let routes = group(vec![(true, &old), (true, &new), (false, &old), (false, &new)]);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].enrollments(), [B, A]);
        assert_eq!(*routes[0].current(&begun(Some(A))).unwrap(), old);
        assert_eq!(*routes[0].current(&begun(Some(B))).unwrap(), new);
        for none in [None, Some("2afd6329-fe84-4fc3-be1c-f947e595762f")] {
            assert!(routes[0].current(&begun(none)).unwrap_err().message.contains(B));
        }
    }

    #[test]
    fn other_servers_and_other_nodes_are_asked_one_after_the_other() {
        let old = made(A, 1);
        let moved = Token { servers: vec![Server::parse("https://new:8443").unwrap()], ..made(B, 2) };
        let foreign = Token { node: NodeId([0x99; 16]), ..made(B, 9) };
        let routes = group(vec![(true, &old), (true, &moved), (false, &foreign)]);
        let order: Vec<_> = routes.iter().map(|route| route.tokens[0].clone()).collect();
        assert_eq!(order, [moved, old, foreign]);
    }

    #[test]
    fn planted_tokens_are_bounded() {
        let planted: Vec<_> =
            (0..100u8).map(|n| Token { node: NodeId([n; 16]), ..made(A, u64::MAX) }).collect();
        assert_eq!(group(planted.iter().map(|token| (false, token)).collect()).len(), MAX_ROUTES);
        let many: Vec<_> =
            (0..100).map(|n| made(&format!("{n:08x}-fe84-4fc3-be1c-f947e595762f"), 1)).collect();
        let routes = group(many.iter().map(|token| (false, token)).collect());
        assert_eq!(routes[0].tokens.len(), MAX_VOLUMES);
    }
}
