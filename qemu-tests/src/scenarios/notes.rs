//! What a boot of the machine of [`super::Group::Fence`] is to meet in its initramfs. It is written on the second disk, so that
//! what is measured, and was approved, is the same in all its boots.

use crate::image::guest::DATA_LUKS;
use crate::image::initrd::ExtraFile;
use crate::image::system::{BootPath, System};
use crate::test_env::TestEnv;

/// The gate is killed before it has done anything.
pub const KILL_THE_GATE: &str = " kill-the-gate";
/// The same, and a loop device is over the second volume.
pub const SOMETHING_STAYS: &str = " something-stays";
/// The gate begins when the third disk is gone.
pub const SECOND_DISK_GOES: &str = " second-disk-goes";
/// The gate begins when /var of the root is mounted.
pub const MOUNTED_IN_ROOT: &str = " mounted-in-root";
/// Another mapping has the name of the second volume.
pub const TAKE_THE_NAME: &str = " take-the-name";
/// When the agent has opened its volumes, the fourth disk is to be opened as `other`.
pub const OTHER_VOLUME_ASKS: &str = " other-volume-asks";

const NOTE: &str = include_str!("../../guest/note.sh");

/// Files of the initramfs.
const FILES: &[(&str, &str)] = &[
    (
        "halfkey-unlock.service.d/zzz-test.conf",
        "[Service]\nExecStartPre=/usr/lib/rig/note before\nExecStartPost=/usr/lib/rig/note opened\n",
    ),
    // Behind the agent's own, which closes everything first.
    ("systemd-cryptsetup@.service.d/zzz-test.conf", "[Service]\nExecStartPre=/usr/lib/rig/note asks %I\n"),
    (
        "initrd-switch-root.service.d/zzz-test.conf",
        "[Service]\nExecStart=\nExecStart=/bin/sh -c '/usr/lib/rig/note gate; \
         exec /usr/bin/halfkey-agent gate --exec /usr/bin/systemctl --no-block switch-root /sysroot'\n",
    ),
    // As systemd's generator writes it. What the command line named would be missed in each boot without that disk.
    (
        "systemd-cryptsetup@other.service",
        "[Unit]\nDefaultDependencies=no\nAfter=cryptsetup-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         TimeoutSec=infinity\nKeyringMode=shared\n\
         ExecStart=/usr/lib/systemd/systemd-cryptsetup attach other /dev/vdd none\n",
    ),
];

/// What the operator approves. The owner of this machine has SysRq, which the agent must see to.
pub fn system(env: &TestEnv) -> System {
    let mut system = env.system(BootPath::Uki);
    let unit = |(path, content): &(&str, &str)| ExtraFile {
        path: format!("usr/lib/systemd/system/{path}"),
        content: content.as_bytes().to_vec(),
    };
    system.extra = FILES.iter().map(unit).collect();
    let note = NOTE.replace("@DATA@", DATA_LUKS).into_bytes();
    system.extra.push(ExtraFile { path: "usr/lib/rig/note".into(), content: note });
    // Else dracut waits minutes for a file system that is not there.
    system.cmdline += " rd.retry=30 sysctl.kernel.sysrq=1";
    system
}
