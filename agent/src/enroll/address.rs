//! An address that somebody gave this host, and nobody its initramfs: that would ask DHCP for another one.

use super::running::Warning;
use crate::bounded;
use crate::initramfs::tool;
use std::net::Ipv4Addr;
use std::path::Path;

/// What dracut's configuration installs from there, NetworkManager reads in the initramfs too.
const KEYFILES: &str = "/etc/NetworkManager/system-connections/";

/// What the address says of itself, and where the initramfs could have it from.
struct Host<'a> {
    interface: &'a str,
    gateway: Ipv4Addr,
    /// `ip -o -4 addr show dev INTERFACE`
    addresses: &'a str,
    /// Kernel command line, and dracut's configuration.
    told: &'a str,
}

/// The interface of the default route, if there is one (IPv4).
pub fn default_interface() -> Option<String> {
    Some(default_route(&bounded::read_text("/proc/net/route", 64 << 10).ok()?)?.0.to_owned())
}

/// A warning, if this host has its address from nobody and its initramfs is told none.
pub fn warning() -> Option<Warning> {
    let routes = bounded::read_text("/proc/net/route", 64 << 10).ok()?;
    let (interface, gateway) = default_route(&routes)?;
    let ip = tool("ip").args(["-o", "-4", "addr", "show", "dev", interface]).output().ok()?;
    let mut told = bounded::read_text("/proc/cmdline", 64 << 10).unwrap_or_default();
    for folder in
        ["/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d", "/etc/systemd/network", "/etc/cmdline.d"]
    {
        let files = Path::new(folder).read_dir().into_iter().flatten().flatten();
        for file in files {
            told.push('\n');
            told.push_str(&bounded::read_text(file.path(), 64 << 10).unwrap_or_default());
        }
    }
    told.push_str(&bounded::read_text("/etc/dracut.conf", 64 << 10).unwrap_or_default());
    Host { interface, gateway, addresses: &String::from_utf8_lossy(&ip.stdout), told: &told }.warning()
}

/// Interface and gateway of the first default route in /proc/net/route.
fn default_route(routes: &str) -> Option<(&str, Ipv4Addr)> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (interface, to, gateway) = (fields.next()?, fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (to == "00000000").then(|| (interface, Ipv4Addr::from(gateway.to_ne_bytes())))
    })
}

impl Host<'_> {
    fn warning(&self) -> Option<Warning> {
        // A lease has an end, and the kernel shows that.
        let line = self.addresses.lines().find(|line| line.contains(" scope global"))?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let address = words.iter().position(|word| *word == "inet").and_then(|at| words.get(at + 1))?;
        let words_told = |word: &str| {
            let word = word.trim_matches(['"', '\'']);
            word.strip_prefix("kernel_cmdline+=")
                .or(word.strip_prefix("kernel_cmdline="))
                .unwrap_or(word)
                .trim_matches(['"', '\''])
                .to_owned()
        };
        let is_told =
            self.told.split_ascii_whitespace().map(words_told).any(|word| {
                word.starts_with("ip=") || word.starts_with("Address=") || word.contains(KEYFILES)
            });
        if words.contains(&"dynamic") || is_told {
            return None;
        }
        let (host, prefix) = address.split_once('/')?;
        let (interface, gateway) = (self.interface, self.gateway);
        Some(Warning {
            what: format!(
                "this host has the address {address} on {interface} from no DHCP server, and its initramfs would ask one"
            ),
            hint: format!(
                "if none answers there: ip={host}::{gateway}:{prefix}::{interface}:none on the kernel command line, or kernel_cmdline+=\" ip=.. \" in a file of /etc/dracut.conf.d"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
        eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\n";
    const STATIC: &str = "2: eth0    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0\\       valid_lft forever preferred_lft forever";
    const LEASE: &str = "2: eth0    inet 10.0.2.15/24 metric 100 brd 10.0.2.255 scope global dynamic eth0\\       valid_lft 86000sec";

    fn warned(addresses: &str, told: &str) -> Option<Warning> {
        let (interface, gateway) = default_route(ROUTES).unwrap();
        Host { interface, gateway, addresses, told }.warning()
    }

    #[test]
    fn an_address_that_the_initramfs_has_not_is_warned_of() {
        let found = warned(STATIC, "root=UUID=5 quiet zip=1").unwrap();
        assert!(found.what.contains("10.0.2.15/24 on eth0"), "{found:?}");
        assert!(found.hint.contains("ip=10.0.2.15::10.0.2.2:24::eth0:none"), "{found:?}");
        for (addresses, told) in [
            (LEASE, ""),
            ("", ""),
            (STATIC, "quiet ip=10.0.2.15::10.0.2.2:24::eth0:none"),
            (STATIC, "kernel_cmdline=\"ip=10.0.2.15::10.0.2.2:24::eth0:none\""),
            (STATIC, "kernel_cmdline+=\" ip=10.0.2.15::10.0.2.2:24::eth0:none \""),
            (STATIC, "[Network]\nAddress=10.0.2.15/24"),
            (STATIC, "install_items+=\" /etc/NetworkManager/system-connections/eth0.nmconnection \""),
        ] {
            assert_eq!(warned(addresses, told), None, "{addresses} {told}");
        }
        assert_eq!(default_route("Iface\tDestination\n"), None);
    }
}
