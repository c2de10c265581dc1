//! The header seal, on volumes that cryptsetup made: what breaks it, what must not, and what a boot makes of a set of volumes.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

#[path = "common/volume.rs"]
mod volume;

use halfkey_agent::boot::cmdline::Settings;
use halfkey_agent::boot::devices::{self, Devices};
use halfkey_agent::boot::target;
use halfkey_agent::deadline::Deadline;
use halfkey_agent::enroll::bind;
use halfkey_agent::enroll::plan::{self, Plan};
use halfkey_agent::error::{Kind, Result};
use halfkey_agent::luks::cryptsetup::{self, Existing};
use halfkey_agent::luks::header::Found;
use halfkey_agent::luks::{Header, Token};
use halfkey_protocol::Role;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use volume::{PASSPHRASE, Volume, key, other_key, token};

const OTHER_UUID: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn header(path: &Path) -> Header {
    match Header::read(&File::open(path).unwrap()).unwrap() {
        Found::Luks2(header) => *header,
        _ => panic!("expected LUKS2"),
    }
}

/// Volumes of one enrollment: the first is the root.
fn enrolled(count: usize) -> Vec<Volume> {
    let volumes: Vec<_> = (0..count).map(|_| Volume::new()).collect();
    enroll(&volumes, &token(1));
    volumes
}

fn enroll(volumes: &[Volume], common: &Token) {
    let plan = |(at, volume): (usize, &Volume)| Plan {
        uuid: header(volume.path()).uuid,
        mapping: format!("mapping{at}"),
        role: if at == 0 { Role::Root } else { Role::Data },
        flags: header(volume.path()).flags(),
    };
    let plans: Vec<_> = volumes.iter().enumerate().map(plan).collect();
    for (volume, plan) in volumes.iter().zip(&plans) {
        let existing = Existing::File(volume.key_file());
        bind::bind(volume.path(), &plan::token(common, plan, &plans), &key(), &existing).unwrap();
    }
}

fn only_token(volume: &Volume) -> (u32, Token) {
    let mut tokens = header(volume.path()).halfkey_tokens();
    assert_eq!(tokens.len(), 1);
    let (number, token) = tokens.remove(0);
    (number, token.unwrap())
}

/// Whether the seal holds. The header passes the allow-list, else that is the error.
fn holds(volume: &Volume) -> Result<bool> {
    let (_, token) = only_token(volume);
    let copy = header(volume.path())
        .check(token.slot, volume.size())?
        .copy(&File::open(volume.path()).unwrap(), &token.flags)?;
    assert!(!token.is_sealed_by(&other_key(), &copy));
    Ok(token.is_sealed_by(&key(), &copy))
}

/// What a boot would do with these volumes, up to the test of the keys.
fn boot(found: &Devices) -> Result<()> {
    let current = found.volumes[0].tokens[0].1.clone();
    let targets = target::targets(found, &current, &Settings::parse("", ""))?;
    targets.iter().try_for_each(|target| target.check_seal(&key()))
}

fn refused(found: &Devices, says: &str) {
    let error = boot(found).unwrap_err();
    assert!(error.message.contains(says) && error.hint.is_some(), "{error}");
}

fn found(volumes: &[Volume]) -> Devices {
    let paths: Vec<_> = volumes.iter().map(|volume| volume.path().to_owned()).collect();
    devices::explicit(&paths).unwrap()
}

#[test]
fn each_sealed_field_that_is_changed_breaks_the_seal() {
    let volume = enrolled(1).remove(0);
    assert!(holds(&volume).unwrap());
    let (number, token) = only_token(&volume);
    assert_eq!((token.slot, number), (1, 0));
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("offset", |j| j["segments"]["0"]["offset"] = json!("16781312")),
        ("cipher", |j| j["segments"]["0"]["encryption"] = json!("xchacha12,aes-adiantum-plain64")),
        ("sector size", |j| {
            let sector = &mut j["segments"]["0"]["sector_size"];
            *sector = if *sector == json!(512) { json!(4096) } else { json!(512) };
        }),
        ("key size", |j| j["keyslots"]["1"]["key_size"] = json!(32)),
        ("kdf hash", |j| j["keyslots"]["1"]["kdf"]["hash"] = json!("sha512")),
        ("kdf iterations", |j| j["keyslots"]["1"]["kdf"]["iterations"] = json!(1001)),
        ("kdf salt", |j| j["keyslots"]["1"]["kdf"]["salt"] = j["keyslots"]["0"]["kdf"]["salt"].clone()),
        ("af hash", |j| j["keyslots"]["1"]["af"]["hash"] = json!("sha512")),
        ("area cipher", |j| {
            j["keyslots"]["1"]["area"]["encryption"] = json!("xchacha20,aes-adiantum-plain64")
        }),
        ("area key size", |j| j["keyslots"]["1"]["area"]["key_size"] = json!(32)),
        ("area offset", |j| {
            j["keyslots"]["1"]["area"]["offset"] = j["keyslots"]["0"]["area"]["offset"].clone()
        }),
        ("area size", |j| j["keyslots"]["1"]["area"]["size"] = json!("262144")),
        ("digest", |j| {
            let value = j["digests"]["0"]["salt"].clone();
            j["digests"]["0"]["digest"] = value;
        }),
        // In the token.
        ("enrollment", |j| j["tokens"]["0"]["enrollment"] = json!(OTHER_UUID)),
        ("volumes", |j| j["tokens"]["0"]["volumes"] = json!([OTHER_UUID])),
        ("mapping", |j| j["tokens"]["0"]["mapping"] = json!("swap")),
        ("role", |j| j["tokens"]["0"]["role"] = json!("data")),
        ("flags", |j| j["tokens"]["0"]["flags"] = json!(["allow-discards"])),
        ("seal", |j| j["tokens"]["0"]["seal"] = j["tokens"]["0"]["header_sha256"].clone()),
    ];
    for (what, change) in changes {
        let crafted = volume.clone_file();
        crafted.rewrite(change);
        assert!(!holds(&crafted).unwrap(), "{what}");
    }
    let area = volume.clone_file();
    area.damage(290_816 + 100_000);
    assert!(!holds(&area).unwrap(), "content of the area");
    // The same content, in another place: that of keyslot 0.
    let moved = volume.clone_file();
    let file = File::options().read(true).write(true).open(moved.path()).unwrap();
    let mut content = vec![0; 258_048];
    file.read_exact_at(&mut content, 290_816).unwrap();
    file.write_all_at(&content, 32_768).unwrap();
    moved.rewrite(&|j| {
        j["keyslots"]["1"]["area"]["offset"] = j["keyslots"]["0"]["area"]["offset"].clone();
    });
    assert!(!holds(&moved).unwrap(), "place of the area");
    let renamed = volume.clone_file();
    renamed.cryptsetup(&["luksUUID", "--batch-mode", "--uuid", OTHER_UUID], b"").unwrap();
    assert!(!holds(&renamed).unwrap(), "UUID");
    let same = volume.clone_file();
    same.rewrite(&|_| ());
    assert!(holds(&same).unwrap());
}

#[test]
fn without_a_seal_a_token_is_none() {
    let volume = enrolled(1).remove(0);
    volume.rewrite(&|j| {
        j["tokens"]["0"]["seal"] = Value::Null;
        j["tokens"]["0"]["header_sha256"] = Value::Null;
    });
    let (_, token) = only_token(&volume);
    assert!(!token.complete);
    assert!(devices::explicit(&[volume.path().to_owned()]).is_err());
    // An enrollment is then continued, not believed.
    enroll(std::slice::from_ref(&volume), &self::token(1));
    assert!(holds(&volume).unwrap());
}

#[test]
fn what_an_owner_may_change_does_not_break_it() {
    let volume = enrolled(1).remove(0);
    let backup = volume.path().with_extension("backup");
    let backup = backup.to_str().unwrap();
    volume.cryptsetup(&["luksHeaderBackup", "--header-backup-file", backup], b"").unwrap();
    type Step<'a> = (&'a str, &'a dyn Fn());
    let steps: &[Step] = &[
        ("label", &|| volume.cryptsetup(&["config", "--label", "mine", "--subsystem", "x"], b"").unwrap()),
        ("priority", &|| {
            volume.cryptsetup(&["config", "--key-slot", "1", "--priority", "ignore"], b"").unwrap();
            volume.cryptsetup(&["config", "--key-slot", "0", "--priority", "prefer"], b"").unwrap();
        }),
        ("another keyslot", &|| {
            volume.cryptsetup_with_new_key(&["luksAddKey", "--key-slot", "7"], b"another").unwrap();
            volume.cryptsetup_with_new_key(&["luksAddKey", "--key-slot", "2"], b"a third").unwrap();
        }),
        ("one less", &|| {
            let args = ["luksKillSlot", "--batch-mode", "--key-file", "-"];
            let device = volume.path().to_str().unwrap();
            let mut command = std::process::Command::new("cryptsetup");
            command.args(args).args([device, "2"]).stdin(File::open(volume.key_file()).unwrap());
            assert!(command.status().unwrap().success());
        }),
        ("another token", &|| {
            volume
                .cryptsetup(&["token", "import", "--json-file", "-"], br#"{"type":"x","keyslots":["7"]}"#)
                .unwrap();
        }),
        ("flags, one of them unheard of", &|| {
            volume.rewrite(&|j| j["config"]["flags"] = json!(["no-read-workqueue", "high-priority"]));
        }),
        ("numbers of token and keyslot", &|| {
            volume.rewrite(&|j| {
                let token = j["tokens"].as_object_mut().unwrap().remove("0").unwrap();
                j["tokens"]["9"] = token;
            });
        }),
        ("a header restored from its backup", &|| {
            volume
                .cryptsetup(&["luksHeaderRestore", "--batch-mode", "--header-backup-file", backup], b"")
                .unwrap();
        }),
    ];
    for (what, step) in steps {
        step();
        assert!(holds(&volume).unwrap(), "{what}");
        assert!(boot(&found(std::slice::from_ref(&volume))).is_ok(), "{what}");
    }
}

#[test]
fn flags_are_those_that_were_sealed() {
    let volume = Volume::new();
    volume.rewrite(&|j| j["config"]["flags"] = json!(["same-cpu-crypt", "allow-discards"]));
    enroll(std::slice::from_ref(&volume), &token(1));
    volume.rewrite(&|j| j["config"]["flags"] = json!(["no-write-workqueue"]));
    let (_, token) = only_token(&volume);
    assert_eq!(token.flags, ["allow-discards", "same-cpu-crypt"]);
    let found = found(std::slice::from_ref(&volume));
    let targets = target::targets(&found, &token, &Settings::parse("", "")).unwrap();
    targets[0].check_seal(&key()).unwrap();
    assert_eq!(targets[0].copy.flags, ["no-write-workqueue"]);
    let copy = std::fs::read(targets[0].copy.path()).unwrap();
    let text = copy[4096..].split(|byte| *byte == 0).next().unwrap();
    let json: Value = serde_json::from_slice(text).unwrap();
    assert_eq!(json["config"]["flags"], json!(["allow-discards", "same-cpu-crypt"]));
    assert!(
        cryptsetup::test(
            volume.path(),
            &targets[0].copy,
            key().volume_key(&targets[0].copy.uuid).expose(),
            soon()
        )
        .unwrap()
    );
}

#[test]
fn the_volumes_of_an_enrollment_vouch_for_each_other() {
    let volumes = enrolled(2);
    boot(&found(&volumes)).unwrap();
    // One that is not there could be somebody else's when the running system looks for it.
    let missing = boot(&found(&volumes[..1])).unwrap_err();
    assert_eq!(missing.kind, Kind::Volume);
    assert!(missing.message.contains(&header(volumes[1].path()).uuid), "{missing}");
    refused(&found(&volumes[1..]), "is not there");

    let craft = |at: usize, change: &dyn Fn(&mut Value)| {
        let copies: Vec<_> = volumes.iter().map(Volume::clone_file).collect();
        copies[at].rewrite(change);
        copies
    };
    // Names or roles of the two exchanged.
    let swapped = craft(0, &|j| j["tokens"]["0"]["mapping"] = json!("mapping1"));
    refused(&found(&swapped), "would both be");
    swapped[1].rewrite(&|j| j["tokens"]["0"]["mapping"] = json!("mapping0"));
    refused(&found(&swapped), "not those that were sealed");
    let roles = craft(1, &|j| j["tokens"]["0"]["role"] = json!("root"));
    refused(&found(&roles), "not those that were sealed");

    // A copy of one beside it, and lists that do not fit.
    let copies = [volumes[0].clone_file(), volumes[0].clone_file(), volumes[1].clone_file()];
    refused(&found(&copies), "have the same LUKS UUID");
    let second = header(volumes[1].path()).uuid;
    let alone = craft(1, &|j| j["tokens"]["0"]["volumes"] = json!([second]));
    refused(&found(&alone), "names other volumes");
    let foreign = craft(0, &|j| j["tokens"]["0"]["volumes"] = json!([OTHER_UUID]));
    refused(&found(&foreign[..1]), "names other volumes");

    // The other's token is gone: as a volume without one, or as one of another enrollment.
    let uuid = header(volumes[1].path()).uuid;
    let mut stripped = found(&volumes[..1]);
    stripped.others.push((volumes[1].path().to_owned(), uuid.clone()));
    refused(&stripped, "has no token of it");
    let foreign = craft(1, &|j| j["tokens"]["0"]["enrollment"] = json!(OTHER_UUID));
    let mut first = found(&foreign);
    first.volumes.sort_by_key(|volume| volume.header.uuid == uuid);
    refused(&first, "has no token of it");
    // And the list is sealed, too.
    let own = header(volumes[0].path()).uuid;
    let alone = craft(0, &|j| j["tokens"]["0"]["volumes"] = json!([own]));
    let mut forgotten = found(&alone[..1]);
    forgotten.others.push((volumes[1].path().to_owned(), uuid));
    refused(&forgotten, "not those that were sealed");

    // A volume of no enrollment is not the seal's business.
    let mut beside = found(&volumes);
    beside.others.push(("/dev/other".into(), OTHER_UUID.into()));
    boot(&beside).unwrap();
}

#[test]
fn an_attackers_header_with_the_volume_key_of_the_attacker_is_refused_before_the_test() {
    let volume = enrolled(1).remove(0);
    let uuid = header(volume.path()).uuid;
    // The attacker's own volume with the genuine token; the seal covers area and digest.
    let other = Volume::with(&["--uuid", &uuid], PASSPHRASE);
    let mut start = vec![0; 1 << 20];
    File::open(volume.path()).unwrap().read_exact_at(&mut start, 0).unwrap();
    let genuine: Value =
        serde_json::from_slice(start[4096..0x4000].split(|byte| *byte == 0).next().unwrap()).unwrap();
    other.rewrite(&|j| {
        j["tokens"] = genuine["tokens"].clone();
        let slot = j["keyslots"]["0"].clone();
        j["keyslots"]["1"] = slot;
        j["digests"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    refused(&found(std::slice::from_ref(&other)), "not those that were sealed");
}
