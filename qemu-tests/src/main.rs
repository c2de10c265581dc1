//! halfkey-qemu-tests
use halfkey_qemu_tests::{image::Images, paths::Paths};

fn main() {
    let paths = Paths::find().expect("paths");
    let images = Images::build(&paths, &mut |text| eprintln!("{text}")).expect("images");
    let uki = images.uki(&std::env::args().nth(1).expect("cmdline"), None).expect("uki");
    images.disk(&uki, &paths.run.join("disk.raw")).expect("disk");
}
