//! Who has to go, one after the other, at little cost each.

use super::source::{Holder, PREFIXES};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// Holders in the order in which [`super::first_to_go`] names them. A change costs the logarithm of their number.
#[derive(Default)]
pub struct Ranking {
    holders: HashMap<u64, Holder>,
    levels: [Level; PREFIXES.len()],
}

/// Sources of one length of prefix.
#[derive(Default)]
struct Level {
    /// What each holds, and its holders by how long they have not moved.
    sums: HashMap<IpAddr, (u64, BTreeSet<(Duration, u64)>)>,
    /// Those within a wider prefix, the heaviest last; of the same weight, the one with the longest idle holder.
    order: HashMap<Option<IpAddr>, BTreeSet<(u64, Duration, IpAddr)>>,
}

impl Ranking {
    /// One more, whose id no other has.
    pub fn insert(&mut self, holder: Holder) {
        self.change(&holder, true);
        self.holders.insert(holder.id, holder);
    }

    /// Takes out who has to go first.
    pub fn pop(&mut self) -> Option<Holder> {
        let mut at = None;
        for level in &self.levels {
            at = Some(level.order.get(&at)?.last()?.2);
        }
        let (_, idle) = self.levels.last()?.sums.get(&at?)?;
        let (_, id) = idle.last()?;
        let gone = self.holders.remove(&id.clone())?;
        self.change(&gone, false);
        Some(gone)
    }

    fn change(&mut self, holder: &Holder, comes: bool) {
        let mut wider = None;
        for (level, prefix) in self.levels.iter_mut().zip(holder.source.prefixes()) {
            let (sum, idle) = level.sums.entry(prefix).or_default();
            let order = level.order.entry(wider).or_default();
            if let Some((longest, _)) = idle.last() {
                order.remove(&(*sum, *longest, prefix));
            }
            if comes {
                *sum = sum.saturating_add(holder.weight);
                idle.insert((holder.idle, holder.id));
            } else {
                *sum = sum.saturating_sub(holder.weight);
                idle.remove(&(holder.idle, holder.id));
            }
            if let Some((longest, _)) = idle.last() {
                order.insert((*sum, *longest, prefix));
            }
            wider = Some(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::{Source, first_to_go};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Each holder gives up one at a time, and is then less idle than before, as with registrations.
        #[test]
        fn all_go_in_the_order_of_the_rule(hosts in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3, 1u64..5), 1..40)) {
            let mut holders: Vec<Holder> = hosts.iter().zip(0..).map(|((site, part, host, weight), id)| {
                let address = match site {
                    0 => format!("192.0.2.{host}"),
                    _ => format!("2001:db8:{site}:{part:x}0{host:x}::1"),
                };
                let source = Source::from(address.parse::<IpAddr>().unwrap());
                Holder { id, source, weight: *weight, idle: Duration::from_secs(1000 + (id * 37) % 101) }
            }).collect();
            let mut ranking = Ranking::default();
            holders.iter().for_each(|holder| ranking.insert(*holder));
            for turn in 0..200 {
                let expected = first_to_go(holders.clone());
                let gone = ranking.pop();
                prop_assert_eq!(gone.map(|gone| gone.id), expected);
                let Some(gone) = gone else { return Ok(()) };
                holders.retain(|holder| holder.id != gone.id);
                if gone.weight > 1 {
                    let less = Holder { weight: gone.weight - 1, idle: Duration::from_secs(999 - turn), ..gone };
                    ranking.insert(less);
                    holders.push(less);
                }
            }
            prop_assert!(ranking.pop().is_none());
        }
    }
}
