//! Addresses where nodes proved themselves lately.

use super::source::{Holder, Source, first_to_go};
use halfkey_protocol::NodeId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an address is remembered from which a node has proved itself.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Addresses, or IPv6 /64, that are remembered.
const ADDRESSES: usize = 16_384;
/// Of these, so many are by the word of one node: a machine has one, or two, and moves now and then.
const OF_NODE: usize = 4;

/// Of each, who proved itself there first, and when somebody did last.
#[derive(Default)]
pub struct ProvedAddresses {
    at: HashMap<IpAddr, (NodeId, Instant)>,
    by: HashMap<NodeId, Vec<IpAddr>>,
}

impl ProvedAddresses {
    /// Whether a node proved itself there lately.
    pub fn has(&self, source: Source, now: Instant) -> bool {
        self.at.get(&source.host()).is_some_and(|(_, last)| now.saturating_duration_since(*last) < REMEMBERED)
    }

    /// A node proved itself there. It makes room among what is remembered by its own word; if all is full, so does the source that
    /// has most.
    pub fn add(&mut self, source: Source, node: NodeId, now: Instant) {
        let host = source.host();
        if let Some((_, last)) = self.at.get_mut(&host) {
            // It is the first one's still: nobody makes another's address be forgotten with their own.
            *last = now;
            return;
        }
        let own = self.by.get(&node).map_or(&[][..], Vec::as_slice);
        if own.len() >= OF_NODE
            && let Some(oldest) = own.iter().copied().min_by_key(|host| self.at.get(host).map(|(_, at)| *at))
        {
            self.forget(oldest);
        }
        if self.at.len() >= ADDRESSES {
            self.make_room(now);
        }
        self.at.insert(host, (node, now));
        self.by.entry(node).or_default().push(host);
    }

    fn make_room(&mut self, now: Instant) {
        let idle = |last: &Instant| now.saturating_duration_since(*last);
        let over = self.at.iter().filter(|(_, (_, last))| idle(last) >= REMEMBERED);
        let over: Vec<_> = over.map(|(host, _)| *host).collect();
        over.into_iter().for_each(|host| self.forget(host));
        if self.at.len() < ADDRESSES {
            return;
        }
        let hosts: Vec<_> = self.at.iter().map(|(host, (_, last))| (*host, idle(last))).collect();
        let holders = hosts.iter().zip(0..);
        let holders = holders.map(|((host, idle), id)| Holder {
            id,
            source: Source::from(*host),
            weight: 1,
            idle: *idle,
        });
        if let Some((host, _)) = first_to_go(holders.collect()).and_then(|gone| hosts.get(gone as usize)) {
            self.forget(*host);
        }
    }

    fn forget(&mut self, host: IpAddr) {
        let Some((node, _)) = self.at.remove(&host) else { return };
        if let Some(own) = self.by.get_mut(&node) {
            own.retain(|other| *other != host);
            if own.is_empty() {
                self.by.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(site: u16, network: u16) -> Source {
        Source::from(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]))
    }

    fn node(number: u16) -> NodeId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn a_node_is_remembered_where_it_was_last() {
        let (mut proved, start) = (ProvedAddresses::default(), Instant::now());
        for network in 0..1000 {
            proved.add(of(1, network), node(1), start + Duration::from_secs(network.into()));
        }
        let now = start + Duration::from_secs(1000);
        let known: Vec<u16> = (0..1000).filter(|network| proved.has(of(1, *network), now)).collect();
        assert_eq!(known, [996, 997, 998, 999], "not wherever it was");
        assert!(!proved.has(of(1, 999), now + REMEMBERED));
    }

    /// Behind one address of a site.
    #[test]
    fn a_node_does_not_have_the_address_of_another_forgotten() {
        let (mut proved, now) = (ProvedAddresses::default(), Instant::now());
        proved.add(of(1, 0), node(1), now);
        for network in 0..100 {
            proved.add(of(1, network), node(2), now + Duration::from_secs(1));
        }
        assert!(proved.has(of(1, 0), now + REMEMBERED), "it is remembered from the last time on");
        proved.forget(of(1, 0).host());
        assert_eq!((proved.by.len(), proved.by[&node(2)].len()), (1, OF_NODE));
    }

    #[test]
    fn the_source_that_has_most_makes_room() {
        let (mut proved, now) = (ProvedAddresses::default(), Instant::now());
        proved.add(of(1, 0), node(0), now);
        for number in 1..ADDRESSES as u16 {
            proved.add(of(2, number), node(number), now + Duration::from_secs(number.into()));
        }
        let later = now + Duration::from_secs(ADDRESSES as u64);
        proved.add(of(3, 0), node(u16::MAX), later);
        assert!(proved.has(of(1, 0), later) && proved.has(of(3, 0), later) && proved.has(of(2, 1), later));
        // Of that /48 the /56 that has most, and longest.
        assert!(!proved.has(of(2, 256), later) && proved.has(of(2, 257), later));
        assert_eq!((proved.at.len(), proved.by.len()), (ADDRESSES, ADDRESSES));
    }
}
