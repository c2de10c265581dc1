//! Real LUKS2 volumes, made by cryptsetup in plain files: no device-mapper is needed to test keys.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

#[path = "common/volume.rs"]
mod volume;

use halfkey_agent::deadline::Deadline;
use halfkey_agent::enroll::bind;
use halfkey_agent::luks::cryptsetup::{self, Existing};
use halfkey_agent::luks::header::Found;
use halfkey_agent::luks::{Header, HeaderCopy};
use halfkey_protocol::NodeId;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;
use volume::{PASSPHRASE, Volume, key, token};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn header(volume: &Volume) -> Header {
    match Header::read(&File::open(volume.path()).unwrap()).unwrap() {
        Found::Luks2(header) => *header,
        _ => panic!("expected LUKS2"),
    }
}

fn copy(volume: &Volume, slot: u32) -> halfkey_agent::error::Result<HeaderCopy> {
    header(volume).check(slot, volume.size())?.copy(&File::open(volume.path()).unwrap(), &[])
}

fn opens(volume: &Volume, slot: u32, key: &[u8]) -> bool {
    cryptsetup::test(volume.path(), &copy(volume, slot).unwrap(), key, soon()).unwrap()
}

#[test]
fn the_copy_opens_with_the_right_key_only() {
    let volume = Volume::new();
    assert!(opens(&volume, 0, PASSPHRASE));
    assert!(!opens(&volume, 0, b"another"));
}

/// One that does not answer must not hold who has the key in a pipe.
#[test]
fn a_key_is_tested_without_the_disk() {
    let volume = Volume::new();
    let copy = copy(&volume, 0).unwrap();
    std::fs::remove_file(volume.path()).unwrap();
    assert!(cryptsetup::test(volume.path(), &copy, PASSPHRASE, soon()).unwrap());
    assert!(!cryptsetup::test(volume.path(), &copy, b"another", soon()).unwrap());
}

#[test]
fn the_copy_is_what_was_checked_whatever_becomes_of_the_device() {
    let volume = Volume::new();
    let copy = copy(&volume, 0).unwrap();
    let writable = File::options().write(true).open(copy.path()).unwrap();
    assert!(writable.write_all_at(b"x", 0).is_err() && writable.set_len(0).is_err());
    // A header with another key takes the place of the checked one.
    let other = Volume::with(&["--uuid", &header(&volume).uuid], b"attacker");
    std::fs::copy(other.path(), volume.path()).unwrap();
    assert!(cryptsetup::test(volume.path(), &copy, PASSPHRASE, soon()).unwrap());
    assert!(!cryptsetup::test(volume.path(), &copy, b"attacker", soon()).unwrap());
}

#[test]
fn the_second_copy_serves_when_the_first_is_damaged() {
    let volume = Volume::new();
    let uuid = header(&volume).uuid;
    volume.damage(5000);
    assert_eq!(header(&volume).uuid, uuid);
    assert!(opens(&volume, 0, PASSPHRASE));
    volume.damage(0x4000 + 5000);
    assert!(Header::read(&File::open(volume.path()).unwrap()).is_err());
}

#[test]
fn the_newer_of_two_copies_counts() {
    let volume = Volume::new();
    let mut old = vec![0; 0x4000];
    let file = File::options().read(true).write(true).open(volume.path()).unwrap();
    file.read_exact_at(&mut old, 0).unwrap();
    volume.cryptsetup(&["config", "--label", "newer"], b"").unwrap();
    assert_eq!(header(&volume).label(), "newer");
    // A power cut between the two writes.
    file.write_all_at(&old, 0).unwrap();
    assert_eq!(header(&volume).label(), "newer");
}

#[test]
fn a_copy_stands_where_it_says() {
    let volume = Volume::new();
    let mut area = vec![0; 0x4000];
    File::open(volume.path()).unwrap().read_exact_at(&mut area, 0).unwrap();
    assert!(Header::parse(&area, 0).is_ok());
    // A header of another place, with the right checksum.
    area[256..264].copy_from_slice(&0x4000u64.to_be_bytes());
    volume::mend(&mut area);
    let error = Header::parse(&area, 0).err().unwrap();
    assert!(error.message.contains("stands elsewhere"), "{error}");
}

#[test]
fn other_sizes_of_the_metadata_are_read() {
    let volume = Volume::with(&["--luks2-metadata-size", "128k", "--luks2-keyslots-size", "16m"], PASSPHRASE);
    assert!(opens(&volume, 0, PASSPHRASE));
    volume.damage(5000);
    assert!(opens(&volume, 0, PASSPHRASE));
    let huge = Volume::with(&["--luks2-metadata-size", "512k", "--luks2-keyslots-size", "16m"], PASSPHRASE);
    let error = Header::read(&File::open(huge.path()).unwrap()).err().unwrap();
    assert!(error.message.contains("16 to 256 KiB"), "{error}");
    // The owner of a healthy disk is not told to repair it.
    assert!(!error.hint.unwrap().contains("repair"));
}

#[test]
fn a_number_has_one_name() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    let bound = bind::bind(volume.path(), &token(1), &key(), &existing).unwrap();
    assert_eq!(header(&volume).halfkey_tokens().len(), 1);
    for name in ["01", "+1", " 1", "32", "4294967297", "-0", ""] {
        let crafted = volume.clone_file();
        crafted.rewrite(&|json| {
            for (field, number) in [("tokens", bound.token), ("keyslots", bound.slot)] {
                let map = json[field].as_object_mut().unwrap();
                let value = map.remove(&number.to_string()).unwrap();
                map.insert(name.to_owned(), value);
            }
        });
        let header = header(&crafted);
        assert!(header.halfkey_tokens().is_empty() && header.token_numbers().is_empty(), "'{name}'");
        assert_eq!(header.keyslots(), [0], "'{name}'");
    }
}

#[test]
fn what_is_no_luks2_is_told_apart() {
    let luks1 = Volume::with(&["--type", "luks1"], PASSPHRASE);
    assert!(matches!(Header::read(&File::open(luks1.path()).unwrap()).unwrap(), Found::Luks1));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Header::read(empty.as_file()).unwrap(), Found::Nothing));
    empty.as_file().set_len(1 << 20).unwrap();
    assert!(matches!(Header::read(empty.as_file()).unwrap(), Found::Nothing));
}

#[test]
fn headers_outside_the_allow_list_are_refused() {
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("encryption", |j| j["segments"]["0"]["encryption"] = json!("cipher_null-ecb")),
        ("encryption", |j| j["keyslots"]["0"]["area"]["encryption"] = json!("cipher_null-ecb")),
        ("encryption", |j| j["segments"]["0"]["encryption"] = json!("aes-cbc-essiv:sha256")),
        ("segments", |j| j["segments"]["1"] = j["segments"]["0"].clone()),
        ("segments", |j| j["segments"] = json!({})),
        ("type", |j| j["segments"]["0"]["type"] = json!("linear")),
        ("size", |j| j["segments"]["0"]["size"] = json!("4096")),
        ("iv_tweak", |j| j["segments"]["0"]["iv_tweak"] = json!("8")),
        ("flags", |j| j["segments"]["0"]["flags"] = json!(["backup-final"])),
        ("integrity", |j| j["segments"]["0"]["integrity"] = json!({"type": "none"})),
        ("sector_size", |j| j["segments"]["0"]["sector_size"] = json!(8192)),
        ("offset", |j| j["segments"]["0"]["offset"] = json!("32768")),
        ("offset", |j| j["segments"]["0"]["offset"] = json!("16777217")),
        ("offset", |j| j["segments"]["0"]["offset"] = json!("9223372036854775808")),
        ("requirements", |j| j["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]})),
        ("type", |j| j["keyslots"]["1"] = json!({"type": "reencrypt", "mode": "encrypt"})),
        ("digests", |j| j["digests"]["1"] = j["digests"]["0"].clone()),
        ("bind", |j| j["digests"]["0"]["keyslots"] = json!([])),
        ("bind", |j| j["digests"]["0"]["segments"] = json!([])),
        ("iterations", |j| j["keyslots"]["0"]["kdf"]["iterations"] = json!(4_000_000_000u64)),
        ("iterations", |j| j["digests"]["0"]["iterations"] = json!(1)),
        ("type", |j| j["keyslots"]["0"]["kdf"]["type"] = json!("argon2id")),
        ("stripes", |j| j["keyslots"]["0"]["af"]["stripes"] = json!(1)),
        ("area", |j| j["keyslots"]["0"]["area"]["offset"] = json!("0")),
        ("area", |j| j["keyslots"]["0"]["area"]["size"] = json!("18446744073709551615")),
        ("key_size", |j| j["keyslots"]["0"]["key_size"] = json!(1)),
        ("keyslots.0", |j| j["keyslots"] = json!({})),
        ("json_size", |j| j["config"]["json_size"] = json!("4096")),
        ("keyslots_size", |j| j["config"]["keyslots_size"] = json!("17179869184")),
        ("opal", |j| j["opal"] = json!({})),
        ("salt", |j| j["keyslots"]["0"]["kdf"]["salt"] = json!("\",\"x\":\"")),
        // What is not understood is not opened.
        ("config: expected only", |j| j["config"]["x"] = json!(1)),
        ("config.requirements: expected only", |j| j["config"]["requirements"] = json!({"optional": []})),
        ("segments.0: expected only", |j| j["segments"]["0"]["x"] = json!(1)),
        ("keyslots.0: expected only", |j| j["keyslots"]["0"]["x"] = json!(1)),
        ("keyslots.0.af: expected only", |j| j["keyslots"]["0"]["af"]["x"] = json!(1)),
        ("keyslots.0.area: expected only", |j| j["keyslots"]["0"]["area"]["x"] = json!(1)),
        ("keyslots.0.kdf: expected only", |j| j["keyslots"]["0"]["kdf"]["x"] = json!(1)),
        ("digests.0: expected only", |j| j["digests"]["0"]["x"] = json!(1)),
        ("af.type", |j| j["keyslots"]["0"]["af"]["type"] = json!("luks2")),
        ("af.hash", |j| j["keyslots"]["0"]["af"]["hash"] = json!("sha1")),
        ("area.type", |j| j["keyslots"]["0"]["area"]["type"] = json!("none")),
        ("area.key_size", |j| j["keyslots"]["0"]["area"]["key_size"] = json!(1)),
        ("kdf.hash", |j| j["keyslots"]["0"]["kdf"]["hash"] = json!("sha1")),
        ("kdf.iterations", |j| j["keyslots"]["0"]["kdf"]["iterations"] = json!(999)),
        ("digests.0.type", |j| j["digests"]["0"]["type"] = json!("argon2id")),
        ("digests.0.hash", |j| j["digests"]["0"]["hash"] = json!("sha1")),
        ("digests.0.iterations", |j| j["digests"]["0"]["iterations"] = json!(10_000_001)),
        ("digests.0.salt", |j| j["digests"]["0"]["salt"] = json!("\",\"x\":\"")),
        ("digests.0.digest", |j| j["digests"]["0"]["digest"] = json!("\",\"x\":\"")),
        // Of an area of 16 MiB from 32 KiB.
        ("area: expected it between", |j| j["keyslots"]["0"]["area"]["offset"] = json!("33280")),
        ("area: expected it between", |j| j["keyslots"]["0"]["area"]["offset"] = json!("28672")),
        ("area: expected it between", |j| j["keyslots"]["0"]["area"]["offset"] = json!("16769024")),
        ("area: expected it between", |j| j["keyslots"]["0"]["area"]["size"] = json!("1052672")),
    ];
    let volume = Volume::new();
    for (what, change) in changes {
        let crafted = volume.clone_file();
        crafted.rewrite(change);
        let error =
            header(&crafted).check(0, crafted.size()).err().unwrap_or_else(|| panic!("{what} passed"));
        assert!(error.message.contains("allow-list") && error.message.contains(what), "{what}: {error}");
    }
    let beyond = volume.clone_file();
    beyond.rewrite(&|j| j["keyslots"]["32"] = j["keyslots"]["0"].clone());
    let error = header(&beyond).check(32, beyond.size()).err().unwrap();
    assert!(error.message.contains("expected a number below 32"), "{error}");
    let same = volume.clone_file();
    same.rewrite(&|_| ());
    assert!(opens(&same, 0, PASSPHRASE));
}

#[test]
fn a_reencryption_that_cryptsetup_began_is_refused() {
    let volume = Volume::with(&["--offset", "65536"], PASSPHRASE);
    let begun = volume.cryptsetup(&["reencrypt", "--encrypt", "--init-only"], b"").is_ok();
    let begun =
        begun || volume.cryptsetup(&["reencrypt", "--init-only", "--key-file", "-"], PASSPHRASE).is_ok();
    if begun {
        assert!(header(&volume).check(0, volume.size()).is_err());
    }
}

#[test]
fn tokens_and_keyslots_of_the_volume_do_not_reach_the_copy() {
    let volume = Volume::new();
    volume.cryptsetup(&["token", "import", "--json-file", "-"], br#"{"type":"x","keyslots":["0"]}"#).unwrap();
    let area = header(&volume).check(0, volume.size()).unwrap().header(0, &[]);
    let text = String::from_utf8_lossy(&area[4096..]).into_owned();
    let json: Value = serde_json::from_str(text.trim_end_matches('\0')).unwrap();
    assert_eq!(json["tokens"], json!({}));
    assert_eq!(json["keyslots"].as_object().unwrap().len(), 1);
}

#[test]
fn a_volume_is_bound_and_unbound() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    bind::check_device(volume.path(), 1000).unwrap();
    let bound = bind::bind(volume.path(), &token(1), &key(), &existing).unwrap();
    bind::remove_older(volume.path(), &existing, &bound, token(1).node).unwrap();

    let after = header(&volume);
    let (number, token) = after.halfkey_tokens().remove(0);
    let token = token.unwrap();
    assert!(token.complete && token.slot == bound.slot && number == bound.token);
    assert!(opens(&volume, token.slot, key().volume_key(&after.uuid).expose()));
    // The ordinary way still works.
    assert!(cryptsetup::opens(volume.path(), &existing, soon()).unwrap());

    bind::unbind(volume.path(), Some(&volume.key_file())).unwrap();
    let after = header(&volume);
    assert!(after.halfkey_tokens().is_empty());
    assert_eq!(after.keyslots(), [0]);
    assert!(bind::unbind(volume.path(), Some(&volume.key_file())).is_err());
}

#[test]
fn an_interrupted_binding_is_continued() {
    // After the token, after the keyslot, after a keyslot of another key: always one token, one new keyslot.
    for step in 0..3 {
        let volume = Volume::new();
        let existing = Existing::File(volume.key_file());
        let mut half_done = token(1);
        half_done.slot = 1;
        cryptsetup::import_token(volume.path(), 0, &half_done.to_json(), false, soon()).unwrap();
        let uuid = header(&volume).uuid;
        let passphrase = key().volume_key(&uuid);
        match step {
            0 => {}
            1 => cryptsetup::add_key(volume.path(), &existing, 1, passphrase.expose(), soon()).unwrap(),
            _ => cryptsetup::add_key(volume.path(), &existing, 1, &[b'x'; 64], soon()).unwrap(),
        }
        let bound = bind::bind(volume.path(), &token(2), &key(), &existing).unwrap();
        let after = header(&volume);
        assert_eq!(after.halfkey_tokens().len(), 1, "step {step}");
        assert_eq!(after.keyslots().len(), 2, "step {step}");
        assert!(opens(&volume, bound.slot, passphrase.expose()));
    }
}

#[test]
fn an_interrupted_token_does_not_take_a_passphrase_along() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    let mut stale = token(1);
    stale.slot = 1;
    cryptsetup::import_token(volume.path(), 0, &stale.to_json(), false, soon()).unwrap();
    // Since then somebody put a passphrase into the slot that the token names.
    volume
        .cryptsetup_with_new_key(
            &["luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--key-slot", "1"],
            b"mine",
        )
        .unwrap();
    bind::bind(volume.path(), &token(2), &key(), &existing).unwrap();
    assert!(cryptsetup::opens(volume.path(), &Existing::Typed(b"mine".to_vec().into()), soon()).unwrap());
}

#[test]
fn a_new_enrollment_replaces_the_old_one_only_at_the_end() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    let first = bind::bind(volume.path(), &token(1), &key(), &existing).unwrap();
    let second = bind::bind(volume.path(), &token(2), &volume::other_key(), &existing).unwrap();
    assert_eq!(header(&volume).halfkey_tokens().len(), 2);
    assert!(opens(&volume, first.slot, key().volume_key(&header(&volume).uuid).expose()));
    // token(N) is of one node; another node's enrollments do not count.
    let (devices, node) = ([volume.path().to_owned()], token(1).node);
    let newest = token(1).enrolled_at.max(token(2).enrolled_at);
    assert_eq!(bind::newest_in_use(&devices, node).unwrap(), Some(newest));
    assert_eq!(bind::newest_in_use(&devices, NodeId([0x99; 16])).unwrap(), None);
    bind::remove_older(volume.path(), &existing, &second, node).unwrap();
    let after = header(&volume);
    assert_eq!(after.halfkey_tokens().len(), 1);
    assert_eq!(after.keyslots(), [0, second.slot]);
    assert!(opens(&volume, second.slot, volume::other_key().volume_key(&after.uuid).expose()));
}

#[test]
fn only_keyslots_of_this_nodes_own_tokens_are_removed() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    let add = |slot: &str, key: &[u8]| {
        let args =
            ["luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-slot", slot];
        volume.cryptsetup_with_new_key(&args, key).unwrap();
    };
    // Slot 5 is that of another program, which stretches as little and has a token of its own. A token of ours
    // that was interrupted long ago names the same slot; so does one of another machine for slot 6.
    let mut stale = token(1);
    stale.slot = 5;
    cryptsetup::import_token(volume.path(), 3, &stale.to_json(), false, soon()).unwrap();
    add("5", b"clevis");
    volume
        .cryptsetup(&["token", "import", "--json-file", "-"], br#"{"type":"clevis","keyslots":["5"]}"#)
        .unwrap();
    let mut foreign = token(1);
    (foreign.slot, foreign.node) = (6, NodeId([0x99; 16]));
    cryptsetup::import_token(volume.path(), 4, &foreign.to_json(), false, soon()).unwrap();
    add("6", b"another machine's");
    let theirs = |volume: &Volume| {
        for key in [&b"clevis"[..], b"another machine's"] {
            assert!(cryptsetup::opens(volume.path(), &Existing::Typed(key.to_vec().into()), soon()).unwrap());
        }
    };

    let bound = bind::bind(volume.path(), &token(2), &key(), &existing).unwrap();
    theirs(&volume);
    // What it opens with nobody can deny, so its owner is told; but for one that is typed, and one that opens nothing.
    let typed = br#"{"type":"systemd-recovery","keyslots":["0"]}"#;
    volume.cryptsetup(&["token", "import", "--json-file", "-"], typed).unwrap();
    volume
        .cryptsetup(&["token", "import", "--json-file", "-"], br#"{"type":"other","keyslots":[]}"#)
        .unwrap();
    let warnings: Vec<_> = bind::warnings_of_others(volume.path(), &header(&volume)).collect();
    assert!(warnings.len() == 1 && warnings[0].what.contains("(clevis) opens it as well"), "{warnings:?}");
    bind::remove_older(volume.path(), &existing, &bound, token(2).node).unwrap();
    theirs(&volume);
    let left: Vec<_> = header(&volume).halfkey_tokens().into_iter().map(|(number, _)| number).collect();
    assert!(left.contains(&4) && left.contains(&bound.token) && !left.contains(&3), "{left:?}");
}

#[test]
fn what_unlock_would_refuse_or_has_no_room_is_said_before_anything_is_written() {
    // Sectors that do not divide the data: dm-crypt would refuse the mapping when the fence is extended.
    let volume = Volume::with(&["--sector-size", "4096"], PASSPHRASE);
    assert!(header(&volume).check(0, volume.size()).is_ok());
    let error = header(&volume).check(0, volume.size() + 512).err().unwrap();
    assert!(error.message.contains("sector_size"), "{error}");

    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("hash", |j| j["digests"]["0"]["hash"] = json!("sha1")),
        ("iterations", |j| j["digests"]["0"]["iterations"] = json!(20_000_000)),
        ("key_size", |j| j["keyslots"]["0"]["key_size"] = json!(48)),
        ("keyslots are taken", |j| {
            for slot in 1..32 {
                j["keyslots"][slot.to_string()] = j["keyslots"]["0"].clone();
            }
        }),
        // The last one is named by a token whose keyslot is still to come.
        ("keyslots are taken", |j| {
            for slot in 1..31 {
                j["keyslots"][slot.to_string()] = j["keyslots"]["0"].clone();
            }
            j["tokens"]["0"] = json!({"type": "x", "keyslots": ["31"]});
        }),
        ("tokens are taken", |j| {
            for number in 0..32 {
                j["tokens"][number.to_string()] = json!({"type": "x", "keyslots": []});
            }
        }),
        ("for its JSON", |j| j["tokens"]["0"] = json!({"type": "x", "keyslots": [], "x": "x".repeat(9000)})),
        ("in a row", |j| {
            j["keyslots"]["0"]["area"]["size"] = json!((16 << 20) - 65536 - 8192).to_string().into()
        }),
    ];
    for (what, change) in changes {
        let crafted = volume.clone_file();
        crafted.rewrite(change);
        // Also where an interrupted run has left room.
        let refused = header(&crafted).check_volume(crafted.size()).is_err();
        assert_eq!(refused, ["hash", "iterations", "key_size"].contains(what), "{what}");
        let before = std::fs::read(crafted.path()).unwrap();
        let error = bind::check_device(crafted.path(), 1000).err().unwrap_or_else(|| panic!("{what} passed"));
        assert!(error.message.contains(what) && error.hint.is_some(), "{what}: {error}");
        assert!(before == std::fs::read(crafted.path()).unwrap());
    }
    let quick = volume.clone_file();
    quick.rewrite(&|j| j["digests"]["0"]["iterations"] = json!(4_000_000));
    bind::check_device(quick.path(), 1000).unwrap();
}

#[test]
fn the_last_way_into_a_volume_is_not_removed() {
    let volume = Volume::new();
    let existing = Existing::File(volume.key_file());
    bind::bind(volume.path(), &token(1), &key(), &existing).unwrap();
    volume.cryptsetup(&["luksRemoveKey", "--batch-mode", "--key-file", "-"], PASSPHRASE).unwrap();
    assert_eq!(header(&volume).keyslots(), [1]);
    let error = bind::unbind(volume.path(), Some(&volume.key_file())).unwrap_err();
    assert!(error.message.contains("only way"), "{error}");
}

/// What the scripts of packages ask before they remove the agent.
#[test]
fn the_agent_can_be_removed_while_each_volume_has_another_way_in() {
    let asked = |volume: &Volume| {
        let agent = Command::new(env!("CARGO_BIN_EXE_halfkey-agent"))
            .args(["status", "--removable"])
            .arg(volume.path())
            .output()
            .unwrap();
        (agent.status.code().unwrap(), String::from_utf8_lossy(&agent.stderr).into_owned())
    };
    let volume = Volume::new();
    assert_eq!(asked(&volume).0, 3);
    bind::bind(volume.path(), &token(1), &key(), &Existing::File(volume.key_file())).unwrap();
    assert_eq!(asked(&volume), (0, String::new()));

    // A keyslot of no segment opens nothing.
    let unbound = volume.clone_file();
    unbound.rewrite(&|j| {
        let mut digest = j["digests"]["0"].clone();
        digest["keyslots"] = json!(["0"]);
        digest["segments"] = json!([]);
        j["digests"]["0"]["keyslots"] = json!(["1"]);
        j["digests"]["1"] = digest;
    });
    assert_eq!(header(&unbound).keyslots(), [0, 1]);
    let (code, said) = asked(&unbound);
    assert!(code == 8 && said.contains("only way in") && said.contains("luksAddKey"), "{code} {said}");

    // Nor is the keyslot of a token that can't be read anybody else's.
    let damaged = volume.clone_file();
    damaged.rewrite(&|j| {
        j["tokens"]["0"]["version"] = json!(99);
        j["tokens"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    assert_eq!(asked(&damaged).0, 8);
    volume.cryptsetup(&["luksRemoveKey", "--batch-mode", "--key-file", "-"], PASSPHRASE).unwrap();
    assert_eq!(asked(&volume).0, 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With the checksum mended, so that the bytes behind it are reached.
    #[test]
    fn any_header_is_read_or_refused(at in 0usize..8192, with: u8, mend: bool, text in ".{0,40}") {
        let volume = volume::shared();
        let mut area = vec![0; 0x4000];
        File::open(volume.path()).unwrap().read_exact_at(&mut area, 0).unwrap();
        area[at] = with;
        let end = (at + text.len()).min(area.len());
        if at > 4096 {
            area[at..end].copy_from_slice(&text.as_bytes()[..end - at]);
        }
        if mend {
            volume::mend(&mut area);
        }
        if let Ok(header) = Header::parse(&area, 0) {
            header.halfkey_tokens();
            header.slots_of_tokens(&[]);
            let _ = header.check(0, volume.size());
        }
        let _ = Header::parse(&area[..at], 0);
    }
}
