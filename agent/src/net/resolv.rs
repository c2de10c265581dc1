//! A resolver configuration where nobody wrote one.
//!
//! In an initramfs with systemd-networkd and without systemd-resolved the name
//! servers that DHCP gave are known to networkd, but /etc/resolv.conf is missing.
//! A DHCP server chooses name servers anyway: it can make the unlocking fail, not more.

use std::net::IpAddr;
use std::path::Path;

/// Where networkd keeps what it knows.
const NETWORKD_STATE: &str = "/run/systemd/netif/state";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Writes /etc/resolv.conf from networkd's state, in the initramfs, if it is not there.
/// Best effort: a name that can't be resolved is reported where it is needed.
pub fn provide() {
    if !crate::console::in_initramfs() || Path::new(RESOLV_CONF).exists() {
        return;
    }
    let state = crate::bounded::read(NETWORKD_STATE, 64 << 10).unwrap_or_default();
    let servers = name_servers(&String::from_utf8_lossy(&state));
    if !servers.is_empty() {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        // A dangling link to resolved's file stands in the way.
        let _ = std::fs::remove_file(RESOLV_CONF);
        let _ = std::fs::write(RESOLV_CONF, text);
    }
}

/// The addresses in `DNS=` of networkd's state, at most three: more the C library does not use.
pub fn name_servers(state: &str) -> Vec<IpAddr> {
    state
        .lines()
        .filter_map(|line| line.strip_prefix("DNS="))
        .flat_map(str::split_whitespace)
        .filter_map(|address| address.parse().ok())
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::name_servers;
    use proptest::prelude::*;

    #[test]
    fn what_networkd_writes() {
        let state = "OPER_STATE=routable\nDNS=10.0.2.3 fd00::3\nDOMAINS=lan\n";
        assert_eq!(
            name_servers(state),
            ["10.0.2.3".parse::<std::net::IpAddr>().unwrap(), "fd00::3".parse().unwrap()]
        );
    }

    proptest! {
        #[test]
        fn any_state_is_read(state in ".{0,200}") {
            prop_assert!(name_servers(&state).len() <= 3);
        }
    }
}
