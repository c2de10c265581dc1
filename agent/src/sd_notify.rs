//! What the service manager is told (sd_notify(3)).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Asks for this much time before what the unit does now counts as failed: a deadline from the kernel command line may be
/// longer than its TimeoutStartSec, and the fence takes longer than its TimeoutStopSec. Without a service manager nobody listens, and nobody has to.
pub fn extend(time: Duration) {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        let message = format!("EXTEND_TIMEOUT_USEC={}", time.as_micros());
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
    }
}
