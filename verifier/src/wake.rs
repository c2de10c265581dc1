//! Requests that are held open until something happens.

use crate::limit::{Counted, Counts};
use halfkey_protocol::NodeId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Waits of one node, and from one source: nobody needs a credential to wait in a node's name.
const PER_NODE: usize = 4;
const PER_SOURCE: usize = 64;
/// Waits for the audit trail: operators' own, whatever nodes do.
const FOR_AUDIT: usize = 64;

/// Who waits for what.
pub struct Hub {
    nodes: Mutex<HashMap<NodeId, watch::Sender<()>>>,
    audit: watch::Sender<()>,
    stop: watch::Sender<bool>,
    seats: Arc<Semaphore>,
    sources: Arc<Counts>,
    audit_seats: Arc<Semaphore>,
}

/// A place in the waiting room. What happens after it was taken is not missed:
/// take it first, then look at the state, then wait.
pub struct Waiter {
    events: watch::Receiver<()>,
    stop: watch::Receiver<bool>,
    node: Option<(Arc<Hub>, NodeId)>,
    _seat: OwnedSemaphorePermit,
    _of_source: Option<Counted>,
}

impl Hub {
    /// With room for so many waiting requests of nodes; operators have their own.
    pub fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self {
            nodes: Mutex::default(),
            audit: watch::Sender::new(()),
            stop: watch::Sender::new(false),
            seats: Arc::new(Semaphore::new(seats)),
            sources: Arc::default(),
            audit_seats: Arc::new(Semaphore::new(FOR_AUDIT)),
        })
    }

    /// Something about these nodes changed, and so did the audit trail.
    pub fn wake_all(&self, changed: &[NodeId]) {
        let nodes = self.nodes();
        for sender in changed.iter().filter_map(|node| nodes.get(node)) {
            sender.send_replace(());
        }
        drop(nodes);
        self.audit.send_replace(());
    }

    /// Ends every wait, also those to come.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A place to wait for changes of a node; `None` if the room, this node's or this source's part of it is full.
    pub fn wait_for_node(self: &Arc<Self>, node: NodeId, source: IpAddr) -> Option<Waiter> {
        let of_source = self.sources.take(source, PER_SOURCE)?;
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let mut nodes = self.nodes();
        if nodes.get(&node).is_some_and(|sender| sender.receiver_count() >= PER_NODE) {
            return None;
        }
        let events = nodes.entry(node).or_default().subscribe();
        Some(Waiter {
            events,
            stop: self.stop.subscribe(),
            node: Some((self.clone(), node)),
            _seat: seat,
            _of_source: Some(of_source),
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
            _of_source: None,
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
        let Some((hub, node)) = &self.node else { return };
        let mut nodes = hub.nodes();
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
        let hub = Hub::new(2);
        let here = IpAddr::from([127, 0, 0, 1]);
        let (one, two) = (NodeId([1; 16]), NodeId([2; 16]));
        let mut first = hub.wait_for_node(one, here).unwrap();
        let mut second = hub.wait_for_node(two, here).unwrap();
        let mut trail = hub.wait_for_audit().unwrap();
        assert!(hub.wait_for_node(one, here).is_none(), "two seats, and the trail has its own");
        hub.wake_all(&[one]);
        assert!(first.happens(Duration::from_secs(60)).await);
        assert!(trail.happens(Duration::from_secs(60)).await);
        assert!(!second.happens(Duration::ZERO).await);
        hub.stop();
        assert!(!second.happens(Duration::from_secs(60)).await);
        drop((first, second));
        assert!(hub.nodes().is_empty());
    }

    #[test]
    fn nobody_takes_all_seats() {
        let hub = Hub::new(1000);
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let one: Vec<_> = (0..5).filter_map(|_| hub.wait_for_node(NodeId([1; 16]), here)).collect();
        assert_eq!(one.len(), PER_NODE);
        let node = |index: u8| NodeId([index; 16]);
        let many: Vec<_> = (2..200).filter_map(|index| hub.wait_for_node(node(index), here)).collect();
        assert_eq!(one.len() + many.len(), PER_SOURCE, "what was refused took no seat");
        assert!(hub.wait_for_node(node(200), there).is_some() && hub.wait_for_audit().is_some());
        drop(one);
        assert!(hub.wait_for_node(node(1), here).is_some());
    }
}
