//! The initramfs that this system builds: whether what boots next has all that it takes to unlock itself, before the reboot shows
//! it.
//!
//! | module | what |
//! | --- | --- |
//! | [`look`] | what is in an image, and what is missing |
//! | [`build`] | dracut, and what it says when it can't |
//! | [`alone`] | whether it gets to the root when Halfkey does not open it |
//! | [`dracut_conf`] | dracut's configuration |
//! | [`run`] | both programs with a bound of time |
//! | [`always`] | the file that has dracut add the module |

pub mod alone;
pub mod always;
pub mod build;
pub mod dracut_conf;
pub mod look;
pub mod run;

use std::process::Command;

/// What brings a network into an initramfs. dracut has NetworkManager or systemd-networkd, whichever the host has.
const NETWORK_PACKAGES: &str =
    "install dracut-network (not on SUSE), and NetworkManager where there is no systemd-networkd";

/// Where dracut's programs come from.
const FROM: &str = "it comes with dracut (Debian: dracut-core)";

/// A program of the host, wherever root's shell has it.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command
}
