//! Requests that are held open until something happens.

use crate::events::Event;
use crate::limit::{Counted, Counts, Source};
use halfkey_protocol::NodeId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Waits of one node; apart for who knows a boot of it, and for who knows no more than its id.
const PER_NODE: usize = 4;
/// Waits from one source of those that know no more than ids: nobody needs a credential for these. By its /48, /56 and /64, or
/// IPv4 address: who has one has all below it. They have one in [`STRANGERS`] of the places.
const PER_SOURCE: [usize; 3] = [128, 96, 64];
const STRANGERS: usize = 4;
/// Waits for the audit trail: operators' own, whatever nodes do.
const FOR_AUDIT: usize = 64;

/// Who waits for what.
pub struct LongPolls {
    nodes: Mutex<HashMap<NodeId, watch::Sender<()>>>,
    audit: watch::Sender<()>,
    stop: watch::Sender<bool>,
    seats: [Arc<Semaphore>; 2],
    of_node: Arc<Counts<(NodeId, Known)>>,
    of_source: [Arc<Counts<IpAddr>>; 3],
    audit_seats: Arc<Semaphore>,
    room: usize,
}

/// Places of those that wait, and how many there are: for who knows no more than an id, for who knows a boot, for the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Taken.
    pub taken: [usize; 3],
    /// All.
    pub places: [usize; 3],
}

/// What who waits has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// The id of the node.
    Id,
    /// The ticket of a boot of the node: it is told to nobody else.
    Boot,
}

/// A place in the waiting room. What happens after it was taken is not missed:
/// take it first, then look at the state, then wait.
pub struct Waiter {
    events: watch::Receiver<()>,
    stop: watch::Receiver<bool>,
    node: Option<(Arc<LongPolls>, NodeId)>,
    _seat: OwnedSemaphorePermit,
    _of_node: Option<Counted<(NodeId, Known)>>,
    _of_source: Vec<Counted<IpAddr>>,
}

impl LongPolls {
    /// With room for so many waiting requests of nodes; operators have their own.
    pub fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self {
            nodes: Mutex::default(),
            audit: watch::Sender::new(()),
            stop: watch::Sender::new(false),
            seats: [seats.div_ceil(STRANGERS), seats].map(|seats| Arc::new(Semaphore::new(seats))),
            of_node: Arc::default(),
            of_source: Default::default(),
            audit_seats: Arc::new(Semaphore::new(FOR_AUDIT)),
            room: seats,
        })
    }

    /// Who waits now.
    pub fn waiting(&self) -> Waiting {
        let free = [&self.seats[0], &self.seats[1], &self.audit_seats].map(|seats| seats.available_permits());
        let places = [self.room.div_ceil(STRANGERS), self.room, FOR_AUDIT];
        Waiting { taken: std::array::from_fn(|of| places[of].saturating_sub(free[of])), places }
    }

    /// Wakes who waits for one of these.
    pub fn notify(&self, events: &[Event]) {
        let nodes = self.nodes();
        for sender in events.iter().flat_map(Event::nodes).filter_map(|node| nodes.get(node)) {
            sender.send_replace(());
        }
        drop(nodes);
        if events.iter().any(|event| matches!(event, Event::Audited(_))) {
            self.audit.send_replace(());
        }
    }

    /// Ends every wait, also those to come.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A place to wait for changes of a node; `None` if the room, this node's part of it or, for who knows no
    /// boot, this source's part is full.
    pub fn wait_for_node(self: &Arc<Self>, node: NodeId, known: Known, source: Source) -> Option<Waiter> {
        let of_node = self.of_node.take((node, known), PER_NODE)?;
        let (seats, of_source) = match known {
            Known::Id => {
                let of_each = self.of_source.iter().zip(source.prefixes()).zip(PER_SOURCE);
                let taken = of_each.map(|((counts, prefix), most)| counts.take(prefix, most));
                (&self.seats[0], taken.collect::<Option<Vec<_>>>()?)
            }
            Known::Boot => (&self.seats[1], Vec::new()),
        };
        let seat = seats.clone().try_acquire_owned().ok()?;
        let events = self.nodes().entry(node).or_default().subscribe();
        Some(Waiter {
            events,
            stop: self.stop.subscribe(),
            node: Some((self.clone(), node)),
            _seat: seat,
            _of_node: Some(of_node),
            _of_source: of_source,
        })
    }

    /// A place to wait for entries of the audit trail; `None` if the room is full.
    pub fn wait_for_audit(&self) -> Option<Waiter> {
        let seat = self.audit_seats.clone().try_acquire_owned().ok()?;
        Some(Waiter {
            events: self.audit.subscribe(),
            stop: self.stop.subscribe(),
            node: None,
            _seat: seat,
            _of_node: None,
            _of_source: Vec::new(),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, watch::Sender<()>>> {
        // The map is whole after each statement.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Waits at most so long; whether something happened.
    pub async fn happens(&mut self, within: Duration) -> bool {
        tokio::select! {
            happened = self.events.changed() => happened.is_ok(),
            _ = self.stop.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep(within) => false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some((long_polls, node)) = &self.node else { return };
        let mut nodes = long_polls.nodes();
        // This one still counts.
        if nodes.get(node).is_some_and(|sender| sender.receiver_count() <= 1) {
            nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_waiter_wakes_and_nothing_is_left_behind() {
        let long_polls = LongPolls::new(8);
        let here = Source::from(IpAddr::from([127, 0, 0, 1]));
        let (one, two) = (NodeId([1; 16]), NodeId([2; 16]));
        let mut first = long_polls.wait_for_node(one, Known::Id, here).unwrap();
        let mut second = long_polls.wait_for_node(two, Known::Id, here).unwrap();
        let mut trail = long_polls.wait_for_audit().unwrap();
        assert!(
            long_polls.wait_for_node(one, Known::Id, here).is_none(),
            "two seats, and the trail has its own"
        );
        long_polls.notify(&[Event::NodeChanged(one), Event::Audited(1)]);
        assert!(first.happens(Duration::from_secs(60)).await);
        assert!(trail.happens(Duration::from_secs(60)).await);
        assert!(!second.happens(Duration::ZERO).await);
        long_polls.stop();
        assert!(!second.happens(Duration::from_secs(60)).await);
        drop((first, second));
        assert!(long_polls.nodes().is_empty());
    }

    #[test]
    fn nobody_takes_all_seats() {
        let long_polls = LongPolls::new(1000);
        let [here, there] = [1, 2].map(|last| Source::from(IpAddr::from([127, 0, 0, last])));
        let one: Vec<_> =
            (0..5).filter_map(|_| long_polls.wait_for_node(NodeId([1; 16]), Known::Id, here)).collect();
        assert_eq!(one.len(), PER_NODE);
        let node = |index: u8| NodeId([index; 16]);
        let many: Vec<_> =
            (2..200).filter_map(|index| long_polls.wait_for_node(node(index), Known::Id, here)).collect();
        assert_eq!(one.len() + many.len(), PER_SOURCE[2], "what was refused took no seat");
        assert!(
            long_polls.wait_for_node(node(200), Known::Id, there).is_some()
                && long_polls.wait_for_audit().is_some()
        );
        let of_boots: Vec<_> =
            (1..200).filter_map(|index| long_polls.wait_for_node(node(index), Known::Boot, here)).collect();
        assert_eq!(of_boots.len(), 199, "whatever strangers do");
        drop(one);
        assert!(long_polls.wait_for_node(node(1), Known::Id, here).is_some());
    }

    #[test]
    fn one_site_does_not_take_all_seats_by_its_networks() {
        let long_polls = LongPolls::new(768);
        let source =
            |site: u16, network: u16| Source::from(IpAddr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]));
        let wait = |index: u16, source| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&index.to_be_bytes());
            long_polls.wait_for_node(NodeId(id), Known::Id, source)
        };
        let of_network: Vec<_> = (0..200).filter_map(|index| wait(index, source(0, index % 4))).collect();
        assert_eq!(of_network.len(), PER_SOURCE[1], "of one /56");
        let of_site: Vec<_> = (200..400).filter_map(|index| wait(index, source(0, index << 8))).collect();
        assert_eq!(of_network.len() + of_site.len(), PER_SOURCE[0], "of one /48");
        assert!(wait(400, source(1, 0)).is_some());
    }
}
