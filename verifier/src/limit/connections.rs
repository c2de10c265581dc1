//! Slots for connections. Whoever comes gets one; when there is none left, somebody has to go.

use super::proved::ProvedAddresses;
use super::source::{Holder, Source, first_to_go};
use halfkey_protocol::NodeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that count as a movement: a byte now and then does not.
const MOVEMENT: usize = 256;

/// What a peer has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerClass {
    /// Nothing.
    Stranger,
    /// It, or another one at its address lately, sent evidence that a node's AK signed.
    Node,
    /// It has a client certificate that is listed.
    Client,
}

/// Who proved something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proved {
    /// This node, by a quote that is newer than its last.
    Node(NodeId),
    /// A client whose certificate is listed.
    Client,
}

/// All slots of a listener.
pub struct ConnectionTable {
    slots: usize,
    for_nodes: usize,
    for_clients: usize,
    turned_away: AtomicU64,
    pushed_out: AtomicU64,
    /// Strangers that it works for and does not disturb.
    working: AtomicUsize,
    inner: Mutex<Inner>,
}

/// A table at a moment, and what came of those for whom there was no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// All slots.
    pub slots: usize,
    /// Connections of strangers, nodes and clients: [`PeerClass`].
    pub taken: [usize; 3],
    /// Those that got no slot, so far.
    pub turned_away: u64,
    /// Those that had to make room for others, so far.
    pub pushed_out: u64,
}

#[derive(Default)]
struct Inner {
    next: u64,
    taken: HashMap<u64, Arc<Slot>>,
    proved: ProvedAddresses,
}

/// A connection's slot; given back on drop.
pub struct Permit {
    table: Arc<ConnectionTable>,
    slot: Arc<Slot>,
}

/// What is known about who has a slot.
pub struct Slot {
    id: u64,
    source: Mutex<Source>,
    start: Instant,
    /// Milliseconds after `start`.
    moved: AtomicU64,
    bytes: AtomicUsize,
    working: AtomicUsize,
    class: Mutex<PeerClass>,
    leave: Notify,
}

/// While it lives its connection waits for the server, and not the server for it.
pub struct Work(Option<Undisturbed>);

/// A slot that nobody is given meanwhile.
struct Undisturbed {
    slot: Arc<Slot>,
    /// Where a stranger is counted.
    stranger_of: Option<Arc<ConnectionTable>>,
}

impl ConnectionTable {
    /// With so many slots. Of these, so many are kept for nodes that proved themselves and for clients whose
    /// certificate is listed: nobody else pushes them out.
    pub fn new(slots: usize, for_nodes: usize, for_clients: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: slots.max(1),
            for_nodes,
            for_clients,
            turned_away: AtomicU64::new(0),
            pushed_out: AtomicU64::new(0),
            working: AtomicUsize::new(0),
            inner: Mutex::default(),
        })
    }

    /// Who is connected.
    pub fn occupancy(&self) -> Occupancy {
        let mut taken = [0; 3];
        for slot in self.inner().taken.values() {
            taken[match slot.class() {
                PeerClass::Stranger => 0,
                PeerClass::Node => 1,
                PeerClass::Client => 2,
            }] += 1;
        }
        let [turned_away, pushed_out] =
            [&self.turned_away, &self.pushed_out].map(|count| count.load(Ordering::Relaxed));
        Occupancy { slots: self.slots, taken, turned_away, pushed_out }
    }

    /// A slot for a new connection; who had it before is told to leave. `None` if all are in use by others
    /// that must not be disturbed.
    pub fn admit(self: &Arc<Self>, source: Source) -> Option<Permit> {
        self.admit_at(source, Instant::now())
    }

    fn admit_at(self: &Arc<Self>, source: Source, now: Instant) -> Option<Permit> {
        let mut inner = self.inner();
        if inner.taken.len() >= self.slots {
            let Some(gone) = self.first_to_go(&inner, now) else {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            self.pushed_out.fetch_add(1, Ordering::Relaxed);
            if let Some(slot) = inner.taken.remove(&gone) {
                slot.leave.notify_one();
            }
        }
        let id = inner.next;
        inner.next += 1;
        let slot = Arc::new(Slot {
            id,
            source: Mutex::new(source),
            start: now,
            moved: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            class: Mutex::new(PeerClass::Stranger),
            leave: Notify::new(),
        });
        inner.taken.insert(id, slot.clone());
        self.recognise(&inner, &slot, now);
        drop(inner);
        Some(Permit { table: self.clone(), slot })
    }

    /// A node proved itself at this address lately.
    fn recognise(&self, inner: &Inner, slot: &Slot, now: Instant) {
        if inner.proved.has(slot.source(), now) {
            self.promote(inner, slot, PeerClass::Node);
        }
    }

    /// Of those that may be disturbed, the longest idle of the source that holds most. To move costs little: it does not excuse
    /// who holds most, and only counts among their own.
    fn first_to_go(&self, inner: &Inner, now: Instant) -> Option<u64> {
        let candidates: Vec<_> = inner
            .taken
            .values()
            .filter(|slot| slot.class() == PeerClass::Stranger && slot.working.load(Ordering::Relaxed) == 0)
            .map(|slot| Holder { id: slot.id, source: slot.source(), weight: 1, idle: slot.idle(now) })
            .collect();
        first_to_go(candidates)
    }

    /// Who has proved something keeps its slot, within what is reserved, and one address not all of that.
    fn promote(&self, inner: &Inner, slot: &Slot, to: PeerClass) {
        let (reserved, of_one) = match to {
            PeerClass::Stranger => return,
            PeerClass::Node => (self.for_nodes, self.for_nodes.div_ceil(4)),
            PeerClass::Client => (self.for_clients, self.for_clients),
        };
        let (mut all, mut same) = (0, 0);
        for other in inner.taken.values().filter(|other| other.id != slot.id && other.class() == to) {
            all += 1;
            same += usize::from(other.source().host() == slot.source().host());
        }
        if all < reserved && same < of_one {
            slot.set(&slot.class, to);
        }
    }

    /// Slots that are reserved for nobody.
    fn for_strangers(&self) -> usize {
        self.slots.saturating_sub(self.for_nodes + self.for_clients).max(1)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The maps are whole after each statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// What is known of who sits here.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The server works for it now: it is not disturbed meanwhile. Strangers beyond what is not reserved are: requests that take long
    /// must not keep out those for whom the rest is.
    pub fn work(&self) -> Work {
        let (table, slot) = (&self.table, &self.slot);
        let stranger = slot.class() == PeerClass::Stranger;
        if stranger && table.working.fetch_add(1, Ordering::Relaxed) >= table.for_strangers() {
            table.working.fetch_sub(1, Ordering::Relaxed);
            return Work(None);
        }
        slot.working.fetch_add(1, Ordering::Relaxed);
        Work(Some(Undisturbed { slot: slot.clone(), stranger_of: stranger.then(|| table.clone()) }))
    }

    /// A proxy says where the connection really comes from.
    pub fn comes_from(&self, source: Source) {
        let inner = self.table.inner();
        // What was known is about the proxy.
        self.slot.set(&self.slot.class, PeerClass::Stranger);
        self.slot.set(&self.slot.source, source);
        self.table.recognise(&inner, &self.slot, Instant::now());
    }

    /// The peer proved something. With a node its address is remembered, for its next connections.
    pub fn prove(&self, who: Proved) {
        let mut inner = self.table.inner();
        let class = match who {
            Proved::Node(node) => {
                inner.proved.add(self.slot.source(), node, Instant::now());
                PeerClass::Node
            }
            Proved::Client => PeerClass::Client,
        };
        // Pushed out already, or proved more before.
        if inner.taken.contains_key(&self.slot.id) && self.slot.class() == PeerClass::Stranger {
            self.table.promote(&inner, &self.slot, class);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.table.inner().taken.remove(&self.slot.id);
    }
}

impl Slot {
    /// Where the peer is.
    pub fn source(&self) -> Source {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the peer proved.
    pub fn class(&self) -> PeerClass {
        *self.class.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes came or went.
    pub fn moved(&self, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= MOVEMENT {
            self.bytes.store(0, Ordering::Relaxed);
            self.stir();
        }
    }

    /// Ends when the slot is needed for somebody else.
    pub async fn leave(&self) {
        self.leave.notified().await;
    }

    fn set<T>(&self, what: &Mutex<T>, value: T) {
        *what.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn stir(&self) {
        self.moved.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn idle(&self, now: Instant) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(moved)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(Undisturbed { slot, stranger_of }) = &self.0 else { return };
        slot.working.fetch_sub(1, Ordering::Relaxed);
        slot.stir();
        if let Some(table) = stranger_of {
            table.working.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const NODE: NodeId = NodeId([7; 16]);

    fn source(last: u8) -> Source {
        IpAddr::from([192, 0, 2, last]).into()
    }

    fn holds(table: &ConnectionTable, permit: &Permit) -> bool {
        table.inner().taken.contains_key(&permit.slot.id)
    }

    #[test]
    fn a_newcomer_gets_the_place_of_who_holds_most() {
        let table = ConnectionTable::new(3, 0, 0);
        let (a, b, honest) = (table.admit(source(1)), table.admit(source(1)), table.admit(source(2)));
        let later = Instant::now() + Duration::from_secs(2);
        let newcomer = table.admit_at(source(3), later).unwrap();
        assert!(holds(&table, &newcomer) && holds(&table, &honest.unwrap()));
        assert!(!holds(&table, &a.unwrap()) && holds(&table, &b.unwrap()), "its longest idle went");
    }

    #[test]
    fn who_holds_most_is_not_excused_by_moving() {
        let table = ConnectionTable::new(4, 0, 0);
        let still = table.admit(source(1)).unwrap();
        let moving = [(); 3].map(|()| table.admit(source(2)).unwrap());
        let later = Instant::now() + Duration::from_secs(60);
        for (permit, moved) in moving.iter().zip([59_900, 58_000, 59_900]) {
            permit.slot.moved.store(moved, Ordering::Relaxed);
        }
        let newcomer = table.admit_at(source(3), later).unwrap();
        assert!(holds(&table, &newcomer) && holds(&table, &still), "an idle stranger keeps its slot");
        assert_eq!(moving.each_ref().map(|permit| holds(&table, permit)), [true, false, true]);
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_host() {
        let of = |last: u16| Source::from(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        let table = ConnectionTable::new(20, 8, 0);
        let seats: Vec<_> = (0..4).map(|last| table.admit(of(last)).unwrap()).collect();
        seats.iter().for_each(|permit| permit.prove(Proved::Node(NODE)));
        let proved = seats.iter().filter(|permit| permit.slot.class() == PeerClass::Node).count();
        assert_eq!(proved, 2, "a quarter of what is kept for nodes, not one slot for each address");
        drop(seats);
        assert_eq!(table.admit(of(99)).unwrap().slot.class(), PeerClass::Node);
    }

    #[test]
    fn what_is_reserved_and_who_works_is_not_disturbed() {
        let table = ConnectionTable::new(4, 1, 1);
        let (client, node) = (table.admit(source(1)).unwrap(), table.admit(source(1)).unwrap());
        client.prove(Proved::Client);
        node.prove(Proved::Node(NODE));
        let busy = table.admit(source(1)).unwrap();
        let work = busy.work();
        let stranger = table.admit(source(9)).unwrap();
        let again = table.admit(source(9)).unwrap();
        assert!(!holds(&table, &stranger), "the only one that could go");
        assert!(holds(&table, &client) && holds(&table, &node) && holds(&table, &busy));
        let known = again.work();
        assert!(table.admit(source(9)).is_none(), "nobody can go");
        drop((work, known));
        assert!(table.admit(source(9)).is_some());
        assert!(holds(&table, &client) && holds(&table, &node));
    }

    #[test]
    fn strangers_that_are_worked_for_leave_what_is_reserved() {
        let table = ConnectionTable::new(5, 2, 1);
        let busy = [(); 5].map(|()| table.admit(source(1)).unwrap());
        let mut work: Vec<_> = busy.iter().map(Permit::work).collect();
        let comes = [(); 3].map(|()| {
            let permit = table.admit(source(2)).expect("there is a place for who may prove something");
            permit.prove(Proved::Node(NODE));
            permit
        });
        assert!(holds(&table, &busy[0]) && holds(&table, &busy[1]), "so many are not disturbed");
        assert_eq!(busy.iter().filter(|permit| holds(&table, permit)).count(), 2);
        let classes = comes.each_ref().map(|permit| permit.slot.class());
        assert_eq!(
            classes,
            [PeerClass::Node, PeerClass::Stranger, PeerClass::Stranger],
            "half of one address"
        );
        // Whoever is done makes room for another one.
        drop(work.remove(0));
        let next = comes[1].work();
        assert!(next.0.is_some() && comes[2].work().0.is_none());
        drop((work, next));
        assert_eq!(table.working.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_is_remembered_and_gets_no_more_than_its_part() {
        let table = ConnectionTable::new(20, 8, 0);
        let node = table.admit(source(1)).unwrap();
        node.prove(Proved::Node(NODE));
        assert_eq!(node.slot.class(), PeerClass::Node);
        let next = table.admit(source(1)).unwrap();
        let third = table.admit(source(1)).unwrap();
        assert_eq!((next.slot.class(), third.slot.class()), (PeerClass::Node, PeerClass::Stranger));
        assert_eq!(table.admit(source(2)).unwrap().slot.class(), PeerClass::Stranger);
        drop((node, next));
        assert_eq!(table.admit(source(1)).unwrap().slot.class(), PeerClass::Node);
    }

    #[test]
    fn a_byte_now_and_then_is_no_movement() {
        let table = ConnectionTable::new(1, 0, 0);
        let permit = table.admit(source(1)).unwrap();
        let later = permit.slot.start + Duration::from_secs(60);
        for _ in 0..10 {
            permit.slot.moved(23);
        }
        assert!(permit.slot.idle(later) >= Duration::from_secs(60));
    }
}
