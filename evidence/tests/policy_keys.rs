//! A vendor's update puts a certificate into KEK or db: what is denied, what is learned of it, and what never is.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Boot, Record, boot, log_of};
use halfkey_evidence::eventlog::replay;
use halfkey_evidence::eventlog::signature_file::SignatureFile;
use halfkey_evidence::policy::{Additions, Claims, Evaluation, KeyList, KeyUpdate, Policy, evaluate};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::hex;
use halfkey_testkit::secure_boot::{
    certificate, certificate_list, change, image_list, list, update, verified_by,
};

/// A UKI with Secure Boot and keys of the owner's own.
fn uki() -> &'static Boot {
    boot("uki-secure-boot-own-keys")
}

fn grown(variable: &str, lists: &[u8]) -> Vec<Record> {
    let mut records = uki().records();
    change(&mut records, variable, |value| value.extend(lists));
    records
}

fn parsed(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

fn with_log<T>(
    records: &[Record],
    ask: impl FnOnce(&halfkey_evidence::eventlog::AssumedLog<'_>, &Claims<'_>) -> T,
) -> T {
    let bytes = log_of(records);
    ask(&replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap(), &uki().claims())
}

fn judge(policy: &Policy, records: &[Record]) -> Evaluation {
    with_log(records, |log, claims| evaluate(policy, log, claims))
}

fn of_boot(policy: &Policy, records: &[Record]) -> KeyUpdate {
    with_log(records, |log, claims| KeyUpdate::of_boot(policy, log, claims))
}

/// Words for the one finding.
#[track_caller]
fn denied(policy: &Policy, records: &[Record], by: &[&str]) {
    let found = judge(policy, records).findings;
    let [finding] = &found[..] else { panic!("{found:?}") };
    let text = finding.to_string();
    assert!(by.iter().all(|by| text.contains(by)), "{by:?}: {text}");
}

fn shown(update: &KeyUpdate) -> Vec<(KeyList, String, &str)> {
    update.entries().iter().map(|entry| (entry.list, entry.is.to_string(), entry.what.as_str())).collect()
}

fn fingerprint(der: &[u8]) -> String {
    format!("sha256:{}", hex(&Hash::Sha256.digest(&[der])))
}

#[test]
fn a_certificate_that_kek_or_db_gains_is_denied_by_name_and_learned() {
    let text = uki().learned();
    let policy = parsed(&text);
    let new = certificate("Example UEFI CA 2023");
    let (lists, is) = (certificate_list(new.der()), fingerprint(new.der()));
    for (variable, list) in [("KEK", KeyList::Kek), ("db", KeyList::Db)] {
        let records = grown(variable, &lists);
        let rule = format!("secure_boot.{}", list.key());
        denied(&policy, &records, &["pcr 7", &rule, "certificate \"Example UEFI CA 2023\"", &is]);
        let update = of_boot(&policy, &records);
        assert_eq!(shown(&update), [(list, is.clone(), "certificate \"Example UEFI CA 2023\"")]);
        let after = update.policy(&text).unwrap();
        assert!(after.contains(&format!("  \"{is}\", # certificate \"Example UEFI CA 2023\"\n")), "{after}");
        // Nothing else of the text is touched.
        assert_eq!(after.lines().filter(|line| !text.lines().any(|old| old == *line)).count(), 1, "{after}");
        let after = parsed(&after);
        assert!(judge(&after, &records).accepted() && uki().judge(&after).accepted());
        assert!(of_boot(&after, &records).is_empty());
        // The other variable may not have it, and this one not another.
        let other = if variable == "db" { "KEK" } else { "db" };
        denied(&after, &grown(other, &lists), &[&is]);
        let another = certificate("Example UEFI CA 2023");
        denied(&after, &grown(variable, &certificate_list(another.der())), &[&fingerprint(another.der())]);
    }
    // A list that has more than the variable denies nothing.
    let more = of_boot(&policy, &grown("db", &lists)).policy(&text).unwrap();
    assert!(uki().judge(&parsed(&more)).accepted());
}

#[test]
fn the_platform_key_is_not_learned() {
    let text = uki().learned();
    let policy = parsed(&text);
    let new = certificate("Another platform key");
    let lists = certificate_list(new.der());
    let mut records = uki().records();
    change(&mut records, "PK", |value| *value = lists.clone());
    change(&mut records, "db", |value| value.extend(&lists));
    let update = of_boot(&policy, &records);
    assert!(update.entries().iter().all(|entry| entry.list == KeyList::Db), "{update:?}");
    let left = judge(&policy.with_keys(&update), &records).findings;
    assert!(left.len() == 1 && left[0].rule == "secure_boot.pk", "{left:?}");
    let refused = Additions::parse(&format!(
        "format = 1\nname = \"a\"\n[secure_boot]\npk = [\"{}\"]\n",
        fingerprint(new.der())
    ));
    let problems = refused.unwrap_err();
    assert!(problems[0].message.contains("unknown key secure_boot.pk"), "{problems:?}");
    assert!(problems[0].hint.as_deref().unwrap().contains("kek, db, authorities"), "{problems:?}");
}

/// Somebody puts the hash of an image into db that is the fingerprint of their certificate: an operator who takes the one has not taken the
/// other.
#[test]
fn the_hash_of_an_image_is_learned_as_such() {
    let text = uki().learned();
    let evil = certificate("Evil CA");
    let hash: [u8; 32] = Hash::Sha256.digest(&[evil.der()]).try_into().unwrap();
    let records = grown("db", &image_list(&hash));
    let update = of_boot(&parsed(&text), &records);
    let named = format!("image:{}", fingerprint(evil.der()));
    assert_eq!(shown(&update), [(KeyList::Db, named.clone(), "image hash")]);
    let after = update.policy(&text).unwrap();
    assert!(after.contains(&format!("\"{named}\", # image hash")), "{after}");
    let after = parsed(&after);
    assert!(judge(&after, &records).accepted());
    denied(&after, &grown("db", &certificate_list(evil.der())), &["certificate \"Evil CA\""]);
    // Nor the other way round.
    let listed = of_boot(&parsed(&text), &grown("db", &certificate_list(evil.der()))).policy(&text).unwrap();
    denied(&parsed(&listed), &records, &["image hash"]);
    // KEK has certificates only, and what has no SHA-256 fingerprint can't be listed.
    let mut update = KeyUpdate::default();
    let sha1 =
        [0x12, 0xa5, 0x6c, 0x82, 0x10, 0xcf, 0xc9, 0x4a, 0xb1, 0x87, 0xbe, 0x01, 0x49, 0x66, 0x31, 0xbd];
    for (at, lists) in [(KeyList::Kek, image_list(&hash)), (KeyList::Db, list(sha1, &[1; 20]))] {
        let file = SignatureFile::parse(&lists).unwrap();
        let added = file.signatures().map(|signature| update.add(None, at, &signature));
        assert_eq!(added.collect::<Vec<_>>(), [Err("image hash".to_owned())]);
    }
    assert!(update.is_empty());
}

/// What verified an image is not only in db: it is the one that lets code run.
#[test]
fn who_verifies_images_is_learned_only_from_db_and_where_no_signer_is_named() {
    let text = uki().learned();
    let policy = parsed(&text);
    let new = certificate("Example UEFI CA 2023");
    let (lists, is) = (certificate_list(new.der()), fingerprint(new.der()));
    let verifies = |mut records: Vec<Record>| {
        let at = records.iter().rposition(|record| record.pcr == 7).unwrap();
        records.insert(at + 1, verified_by(new.der()));
        records
    };
    let records = verifies(grown("db", &lists));
    let update = of_boot(&policy, &records);
    let lists_of = |update: &KeyUpdate| update.entries().iter().map(|entry| entry.list).collect::<Vec<_>>();
    assert_eq!(lists_of(&update), [KeyList::Db, KeyList::Authorities]);
    let after = parsed(&update.policy(&text).unwrap());
    assert!(judge(&after, &records).accepted());
    assert!(update.warnings(Some(&policy)).iter().any(|said| said.starts_with("authorities:")));
    // Whatever runs can say so of a certificate that db does not have.
    let forged = verifies(uki().records());
    assert!(of_boot(&policy, &forged).is_empty());
    denied(&policy, &forged, &["secure_boot.authorities", &is]);
    // A certificate in db alone verifies nothing.
    let db = parsed(&of_boot(&policy, &grown("db", &lists)).policy(&text).unwrap());
    denied(&db, &records, &["secure_boot.authorities", &is]);
    // In the place of a signer it could put an image of its own.
    let signer = text.split("authorities = [").nth(1).unwrap().split('"').nth(1).unwrap();
    let digest = text.split("authenticode = [").nth(1).unwrap().split('"').nth(1).unwrap();
    let by_signer =
        text.replace(&format!("authenticode = [\"{digest}\"]"), &format!("signer = [\"{signer}\"]"));
    let hash = policy;
    let policy = parsed(&by_signer);
    assert!(uki().judge(&policy).accepted());
    assert_eq!(lists_of(&of_boot(&policy, &records)), [KeyList::Db]);
    let warned = update.warnings(Some(&policy));
    assert!(warned.iter().any(|said| said.contains("boots in the place of the signer")), "{warned:?}");
    // Nor if the machine was given it before its group went by a signer.
    let own = update.additions("format = 1\nname = \"web-1\"\n").unwrap();
    let own = Additions::parse(&own).unwrap();
    assert!(judge(&hash.with(&own), &records).accepted());
    denied(&policy.with(&own), &records, &["secure_boot.authorities", &is]);
    // Unless it is one: then db is what makes it one.
    let both =
        by_signer.replace(&format!("signer = [\"{signer}\"]"), &format!("signer = [\"{signer}\", \"{is}\"]"));
    let policy = parsed(&both);
    let update = of_boot(&policy, &records);
    assert_eq!(lists_of(&update), [KeyList::Db]);
    let warned = update.warnings(Some(&policy));
    assert!(warned.iter().any(|said| said.contains("is a signer of boot")), "{warned:?}");
}

#[test]
fn what_one_machine_has_is_for_that_machine() {
    let policy = parsed(&uki().learned());
    let [one, two] = ["One", "Two"].map(certificate);
    let records = [&one, &two].map(|new| grown("db", &certificate_list(new.der())));
    let head = "format = 1\nname = \"web-1\"\n";
    let additions =
        |text: &str| Additions::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
    let first = of_boot(&policy, &records[0]).additions(head).unwrap();
    let with = policy.with(&additions(&first));
    assert!(judge(&with, &records[0]).accepted());
    denied(&with, &records[1], &["certificate \"Two\""]);
    denied(&policy, &records[0], &["certificate \"One\""]);
    // The next joins it, in the same list.
    let both = of_boot(&with, &records[1]).additions(&first).unwrap();
    let with = policy.with(&additions(&both));
    assert!(judge(&with, &records[0]).accepted() && judge(&with, &records[1]).accepted());
    assert_eq!(both.matches("[secure_boot]").count(), 1, "{both}");
}

/// A document is written by its owner: what can't be extended is left alone.
#[test]
fn a_text_that_is_written_otherwise_is_not_changed() {
    let text = uki().learned();
    let policy = parsed(&text);
    let new = certificate("Example UEFI CA 2023");
    let update = of_boot(&policy, &grown("KEK", &certificate_list(new.der())));
    let at = text.find("[secure_boot]").unwrap();
    let end = at + text[at..].find("\n[firmware]").unwrap();
    let keys: toml::Table = text[at..end].parse().unwrap();
    let inline = format!("secure_boot = {}\n", keys["secure_boot"]).replace('\n', " ");
    let other = format!("{inline}\n{}{}", &text[..at], &text[end..]);
    parsed(&other);
    let written = update.policy(&other);
    assert!(
        written
            .is_none_or(|text| judge(&parsed(&text), &grown("KEK", &certificate_list(new.der()))).accepted())
    );
    let mut without: Vec<&str> = text.lines().collect();
    let kek = without.iter().position(|line| line.starts_with("kek = [")).unwrap();
    let close = kek + without[kek..].iter().position(|line| *line == "]").unwrap();
    without.drain(kek..=close);
    let without = without.join("\n");
    let written = update.policy(&without).unwrap();
    assert!(written.contains("kek = [\n"), "{written}");
    // From files it is the same as from a boot.
    let mut of_files = KeyUpdate::default();
    for file in [new.der().to_vec(), new.pem().into_bytes(), update_file(new.der())] {
        let file = SignatureFile::parse(&file).unwrap();
        file.signatures()
            .for_each(|signature| of_files.add(Some(&policy), KeyList::Kek, &signature).unwrap());
    }
    assert_eq!(of_files, update);
}

fn update_file(der: &[u8]) -> Vec<u8> {
    update(&certificate_list(der))
}
