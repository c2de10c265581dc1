//! Networks of a lab. Each machine has a card on QEMU's user network, where this host and its servers are 10.0.2.2; what joins
//! machines with each other is made here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A segment that joins machines of a lab, and nobody else: QEMU's socket network over a multicast group of the loopback.
#[derive(Clone, Debug)]
pub struct Network {
    /// Of this program and this network: others on this host have others.
    group: String,
    /// Cables that were plugged in.
    cables: Arc<AtomicU32>,
}

/// A machine's end of a network.
#[derive(Clone, Debug)]
pub struct Cable {
    group: String,
    /// Also of the card that it ends in.
    pub mac: String,
}

impl Network {
    /// An empty one.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let port = 20000 + COUNT.fetch_add(1, Ordering::Relaxed) % 10000;
        Self { group: format!("239.{a}.{b}.{c}:{port}"), cables: Arc::default() }
    }

    /// Plugs one more machine in.
    pub fn cable(&self) -> Cable {
        let [.., high, low] = (self.cables.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes();
        Cable { group: self.group.clone(), mac: format!("52:54:00:f0:{high:02x}:{low:02x}") }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Cable {
    /// QEMU's options for it; `id` tells a machine's cables apart.
    pub fn options(&self, id: usize) -> [String; 4] {
        let Self { group, mac } = self;
        [
            "-netdev".into(),
            format!("socket,id=cable{id},mcast={group},localaddr=127.0.0.1"),
            "-device".into(),
            format!("virtio-net-pci,netdev=cable{id},mac={mac},romfile="),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_their_cables_are_told_apart() {
        let (one, other) = (Network::new(), Network::new());
        let (a, b, c) = (one.cable(), one.cable(), other.cable());
        assert_eq!((&a.group, a.mac == b.mac), (&b.group, false));
        assert_ne!(a.group, c.group);
    }
}
