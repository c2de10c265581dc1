//! halfkey-qemu-tests
use halfkey_qemu_tests::machine::{Machine, Reached};
use halfkey_qemu_tests::paths::Paths;
use halfkey_qemu_tests::rig::Rig;
use std::sync::Arc;

fn main() {
    let paths = Paths::find().expect("paths");
    let start = std::time::Instant::now();
    let tap = Arc::new(move |line: &str| {
        if line.contains("STUB") || line.contains("halfkey") || line.contains("passphrase") {
            eprintln!("{:6.1} | {line}", start.elapsed().as_secs_f64());
        }
    });
    let rig = Rig::new(paths, &mut |text| eprintln!("{text}"), Some(tap)).expect("rig");
    eprintln!("{:?} {:?}", rig.accel, start.elapsed());
    let uki = rig.images.uki(&rig.cmdline(), None).expect("uki");
    let mut machine = Machine::new(&rig, "first", &uki).expect("machine");
    eprintln!("machine made {:?}", start.elapsed());
    for _ in 0..2 {
        let mut boot = machine.boot().expect("boot");
        boot.expect(Reached::Prompt).expect("prompt");
        eprintln!("prompt {:?}", start.elapsed());
        boot.type_passphrase().expect("type");
        boot.expect(Reached::System).expect("system");
        eprintln!("{:?} {:?}", start.elapsed(), boot.marker().expect("marker").root);
        eprintln!("{}", boot.run("systemd-analyze; systemd-analyze blame | head -20; ls -la /run/halfkey; cat /sys/class/tpm/tpm0/pcr-sha256/*").expect("run"));
        boot.power_off().expect("off");
        eprintln!("off {:?}", start.elapsed());
    }
}
