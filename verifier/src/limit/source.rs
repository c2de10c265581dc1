//! What counts as one source, and which one holds most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Where a connection comes from. Who has one IPv6 address has a /64 of them, often a /56, sometimes a /48:
/// each of these is one source. An IPv4 address is one by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

/// Prefixes that are weighed, widest first, in bits.
pub const PREFIXES: [u32; 3] = [48, 56, 64];

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl Source {
    /// The whole address.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// The narrowest of its prefixes: an IPv4 address or an IPv6 /64.
    pub fn host(self) -> IpAddr {
        self.prefix(64)
    }

    /// The widest, for people: an IPv4 address or an IPv6 /48.
    pub fn site(self) -> String {
        match self.prefix(48) {
            IpAddr::V6(v6) => format!("{v6}/48"),
            IpAddr::V4(v4) => v4.to_string(),
        }
    }

    /// Its prefixes, widest first.
    pub fn prefixes(self) -> [IpAddr; 3] {
        PREFIXES.map(|bits| self.prefix(bits))
    }

    fn prefix(self, bits: u32) -> IpAddr {
        match self.0 {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> (128 - bits) << (128 - bits))),
            v4 => v4,
        }
    }
}

/// One who holds something that is scarce.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// Who, for the caller.
    pub id: u64,
    /// Where from.
    pub source: Source,
    /// How much.
    pub weight: u64,
    /// For how long it has not moved.
    pub idle: Duration,
}

/// Who has to go: of the /48 that holds most, within it of the /56, within that of the /64, who has not moved
/// for longest. Among sources that hold equally much, the one with the longest idle holder.
pub fn first_to_go(mut holders: Vec<Holder>) -> Option<u64> {
    for level in 0..PREFIXES.len() {
        let mut sums: HashMap<IpAddr, (u64, Duration)> = HashMap::new();
        for holder in &holders {
            let sum = sums.entry(holder.source.prefixes()[level]).or_default();
            *sum = (sum.0.saturating_add(holder.weight), sum.1.max(holder.idle));
        }
        let heaviest = sums.into_iter().max_by_key(|(_, sum)| *sum)?.0;
        holders.retain(|holder| holder.source.prefixes()[level] == heaviest);
    }
    holders.into_iter().max_by_key(|holder| holder.idle).map(|holder| holder.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(id: u64, address: &str, weight: u64, idle: u64) -> Holder {
        let source = Source::from(address.parse::<IpAddr>().unwrap());
        Holder { id, source, weight, idle: Duration::from_secs(idle) }
    }

    #[test]
    fn the_longest_idle_of_the_heaviest_goes() {
        let small = holder(1, "192.0.2.1", 1, 99);
        let holders = vec![small, holder(2, "192.0.2.2", 1, 1), holder(3, "192.0.2.2", 1, 5)];
        assert_eq!(first_to_go(holders), Some(3));
        assert_eq!(first_to_go(vec![small, holder(2, "192.0.2.2", 1, 1)]), Some(1), "equals: by time");
        assert_eq!(first_to_go(vec![]), None);
    }

    #[test]
    fn many_networks_of_one_site_are_one_source() {
        // Each /64 of the site holds one, the other site two in one /64.
        let mut holders: Vec<_> = (0..16)
            .map(|network| holder(network, &format!("2001:db8:0:{network:x}::1"), 1, network))
            .collect();
        holders.extend([holder(90, "2001:db8:1::1", 1, 50), holder(91, "2001:db8:1::2", 1, 60)]);
        assert_eq!(first_to_go(holders), Some(15));
    }

    #[test]
    fn an_address_in_ipv6_clothes_is_the_same() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source("2001:db8::1").host(), source("2001:db8::2").host());
        assert_ne!(source("2001:db8:0:1::1").host(), source("2001:db8::1").host());
    }

    proptest! {
        #[test]
        fn somebody_goes_and_nobody_lighter(addresses in proptest::collection::vec((any::<u8>(), 0u64..9), 1..50)) {
            let holders: Vec<_> = addresses
                .iter()
                .zip(0..)
                .map(|((host, idle), id)| holder(id, &format!("192.0.2.{}", host % 8), 1, *idle))
                .collect();
            let gone = first_to_go(holders.clone()).unwrap();
            let count = |id: u64| {
                let of = holders[id as usize].source;
                holders.iter().filter(|holder| holder.source == of).count()
            };
            prop_assert!(holders.iter().all(|holder| count(holder.id) <= count(gone)));
        }
    }
}
