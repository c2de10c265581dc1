//! An address that somebody gave this host, and nobody its initramfs: that would ask DHCP for another one.

use super::running::Warning;
use crate::bounded;
use crate::initramfs::dracut_conf::DracutConf;
use crate::initramfs::tool;
use crate::propose::find::System;
use std::net::Ipv4Addr;
use std::path::Path;

/// What dracut's configuration installs from there, NetworkManager reads in the initramfs too.
const KEYFILES: &str = "/etc/NetworkManager/system-connections/";

/// What brings a network up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    NetworkManager,
    Networkd,
}

impl Manager {
    fn name(self) -> &'static str {
        match self {
            Self::NetworkManager => "NetworkManager",
            Self::Networkd => "systemd-networkd",
        }
    }
}

/// What the address says of itself, and where the initramfs could have it from.
struct Host<'a> {
    interface: &'a str,
    gateway: Ipv4Addr,
    /// `ip -o -4 addr show dev INTERFACE`
    addresses: &'a str,
    /// What configured it, if that is one that is known.
    by: Option<Manager>,
    /// What the initramfs has.
    image: Manager,
    /// What the kernel and the initramfs have on their command lines.
    told: &'a str,
    dracut: &'a DracutConf,
    /// Each file of networkd's.
    networks: &'a [String],
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
    let root = Path::new("/");
    let dracut = DracutConf::of(root);
    let mut told = System::running(None).lines_of_an_image();
    told.push(dracut.value("kernel_cmdline"));
    told.extend(texts("/etc/cmdline.d"));
    let host = Host {
        interface,
        gateway,
        addresses: &String::from_utf8_lossy(&ip.stdout),
        by: configured_by(root, interface),
        image: of_image(root, &dracut),
        told: &told.join(" "),
        dracut: &dracut,
        networks: &texts("/etc/systemd/network").collect::<Vec<_>>(),
    };
    host.warning()
}

/// All files of a folder.
fn texts(folder: &str) -> impl Iterator<Item = String> {
    let files = Path::new(folder).read_dir().into_iter().flatten().flatten();
    files.filter_map(|file| bounded::read_text(file.path(), 64 << 10).ok())
}

/// By what both keep of each link: an interface may be unmanaged by one, or by both.
fn configured_by(root: &Path, interface: &str) -> Option<Manager> {
    let read = |path: String| bounded::read_text(root.join(path), 64 << 10).unwrap_or_default();
    let index = read(format!("sys/class/net/{interface}/ifindex"));
    let has = |text: String, words: &[&str]| text.lines().any(|line| words.contains(&line));
    if has(read(format!("run/NetworkManager/devices/{index}")), &["managed=true", "managed=1"]) {
        return Some(Manager::NetworkManager);
    }
    let states = ["ADMIN_STATE=configured", "ADMIN_STATE=configuring"];
    has(read(format!("run/systemd/netif/links/{index}")), &states).then_some(Manager::Networkd)
}

/// As the dracut module takes one: what dracut was asked for, else NetworkManager where it is.
fn of_image(root: &Path, dracut: &DracutConf) -> Manager {
    let asked = |name| dracut.lists(&["add_dracutmodules", "force_add_dracutmodules", "dracutmodules"], name);
    let generators = ["usr/libexec/nm-initrd-generator", "usr/lib/nm-initrd-generator"];
    let is_there = generators.iter().any(|path| root.join(path).exists());
    let omitted = dracut.lists(&["omit_dracutmodules"], "network-manager");
    if asked("network-manager") || !asked("systemd-networkd") && is_there && !omitted {
        Manager::NetworkManager
    } else {
        Manager::Networkd
    }
}

/// Whether a file of networkd's gives this interface an address; one that matches by something else than a name may.
fn gives_address(network: &str, interface: &str) -> bool {
    let value = |line: &str, key: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    };
    let names: Vec<String> = network.lines().filter_map(|line| value(line, "Name")).collect();
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(begin) => interface.starts_with(begin),
        None => name == interface || name.contains(['*', '?', '[', '!']),
    };
    let matches = names.is_empty() || names.iter().flat_map(|names| names.split_ascii_whitespace()).any(fits);
    matches && network.lines().any(|line| value(line, "Address").is_some())
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
        let has_ip = self.told.split_ascii_whitespace().any(|word| word.starts_with("ip="));
        let installs = |variable| self.dracut.value(variable).contains(KEYFILES);
        let is_told = has_ip
            || match self.image {
                Manager::NetworkManager => {
                    ["install_items", "install_optional_items"].into_iter().any(installs)
                }
                Manager::Networkd => {
                    self.networks.iter().any(|network| gives_address(network, self.interface))
                }
            };
        if words.contains(&"dynamic") || is_told {
            return None;
        }
        let (host, prefix) = address.split_once('/')?;
        let (interface, gateway) = (self.interface, self.gateway);
        Some(Warning {
            what: format!(
                "this host has the address {address} on {interface} from no DHCP server{}, and its initramfs would ask one, by {}",
                self.by.map(|by| format!(" but from {}", by.name())).unwrap_or_default(),
                self.image.name()
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

    fn warned_by(image: Manager, addresses: &str, conf: &str, networks: &[&str]) -> Option<Warning> {
        let dracut = DracutConf::with(conf);
        let told = dracut.value("kernel_cmdline");
        let (interface, gateway) = default_route(ROUTES).unwrap();
        let networks: Vec<String> = networks.iter().map(|text| (*text).to_owned()).collect();
        let by = Some(Manager::NetworkManager);
        Host { interface, gateway, addresses, by, image, told: &told, dracut: &dracut, networks: &networks }
            .warning()
    }

    fn warned(addresses: &str, conf: &str) -> Option<Warning> {
        warned_by(Manager::NetworkManager, addresses, conf, &[])
    }

    #[test]
    fn an_address_that_the_initramfs_has_not_is_warned_of() {
        let found = warned(STATIC, "kernel_cmdline=\"root=UUID=5 quiet zip=1\"").unwrap();
        assert!(found.what.contains("10.0.2.15/24 on eth0"), "{found:?}");
        assert!(found.hint.contains("ip=10.0.2.15::10.0.2.2:24::eth0:none"), "{found:?}");
        for (addresses, told) in [
            (LEASE, ""),
            ("", ""),
            (STATIC, "kernel_cmdline=\"ip=10.0.2.15::10.0.2.2:24::eth0:none\""),
            (STATIC, "kernel_cmdline+=\" ip=10.0.2.15::10.0.2.2:24::eth0:none \""),
            (STATIC, "install_items+=\" /etc/NetworkManager/system-connections/eth0.nmconnection \""),
        ] {
            assert_eq!(warned(addresses, told), None, "{addresses} {told}");
        }
        // What is no word of the image's.
        for conf in [
            "# kernel_cmdline+=\" ip=10.0.2.15::10.0.2.2:24::eth0:none \"",
            "kernel_cmdline=ip=x\nkernel_cmdline=quiet",
            "omit_drivers+=\" /etc/NetworkManager/system-connections/eth0.nmconnection \"",
        ] {
            assert!(warned(STATIC, conf).is_some(), "{conf}");
        }
        assert_eq!(default_route("Iface\tDestination\n"), None);
    }

    #[test]
    fn what_the_other_network_manager_reads_tells_the_initramfs_nothing() {
        const NETWORK: &str = "[Match]\nName = eth0\n[Network]\nAddress=10.0.2.15/24\n";
        const KEYFILE: &str = "install_items+=\" /etc/NetworkManager/system-connections/eth0.nmconnection \"";
        let found = warned_by(Manager::NetworkManager, STATIC, "", &[NETWORK]).unwrap();
        assert!(
            found.what.ends_with(
                "no DHCP server but from NetworkManager, and its initramfs would ask one, by NetworkManager"
            ),
            "{found:?}"
        );
        let found = warned_by(Manager::Networkd, STATIC, KEYFILE, &[]).unwrap();
        assert!(found.what.ends_with("by systemd-networkd"), "{found:?}");
        for (network, told) in [
            (NETWORK, true),
            ("[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\n", true),
            ("[Match]\nMACAddress=52:54:00:00:00:01\n[Address]\nAddress=10.0.2.15/24\n", true),
            ("[Match]\nName=br0\n[Network]\nAddress=10.0.3.1/24\n", false),
            ("[Match]\nName=eth0\n[Network]\nDHCP=yes\n", false),
        ] {
            assert_eq!(warned_by(Manager::Networkd, STATIC, "", &[network]).is_none(), told, "{network}");
        }
    }

    #[test]
    fn which_one_has_the_interface_and_which_the_initramfs() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(
            (configured_by(root, "eth0"), of_image(root, &DracutConf::default())),
            (None, Manager::Networkd)
        );
        write("sys/class/net/eth0/ifindex", "2\n");
        write(
            "run/systemd/netif/links/2",
            "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/a.network\n",
        );
        write("run/NetworkManager/devices/2", "[device]\nmanaged=false\n");
        assert_eq!(configured_by(root, "eth0"), Some(Manager::Networkd));
        write("run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\n");
        assert_eq!(configured_by(root, "eth0"), None);
        write("run/NetworkManager/devices/2", "[device]\nmanaged=true\nconnection-uuid=1\n");
        assert_eq!(configured_by(root, "eth0"), Some(Manager::NetworkManager));
        write("usr/libexec/nm-initrd-generator", "");
        for (told, image) in [
            ("", Manager::NetworkManager),
            ("add_dracutmodules+=\" halfkey \"", Manager::NetworkManager),
            ("  add_dracutmodules+=\" systemd-networkd \"", Manager::Networkd),
            ("omit_dracutmodules+=\" network-manager \"", Manager::Networkd),
            ("# add_dracutmodules+=\" systemd-networkd \"", Manager::NetworkManager),
        ] {
            assert_eq!(of_image(root, &DracutConf::with(told)), image, "{told}");
        }
    }
}
