//! Everything that a machine which boots can say on its console, in one file that people read: `golden/console.txt`.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use halfkey_agent::console::lines;
use halfkey_agent::error::{Error, Kind};
use halfkey_agent::exchange::rules::Person;
use halfkey_agent::exchange::words as exchange;
use halfkey_agent::{net, tpm, words};
use halfkey_protocol::wire::Verdict;
use halfkey_protocol::{NodeId, Reason};
use halfkey_testkit::golden;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

const NODE: NodeId = NodeId([0xab; 16]);
const SERVER: &str = "https://verifier.example:8443";
const DISK: &str = "/dev/vda2";
const DATA: &str = "/dev/vdb";
const UUID: &str = "6f1c2a4e-0000-4000-8000-000000000001";

/// A page of the file: chapters of lines as they stand on the console.
#[derive(Default)]
struct Page(String);

impl Page {
    fn chapter(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        writeln!(self.0, "{gap}# {title}").unwrap();
    }

    fn said(&mut self, line: impl AsRef<str>) {
        writeln!(self.0, "halfkey: {}", line.as_ref()).unwrap();
    }

    fn complained(&mut self, error: &Error) {
        lines(error).iter().for_each(|line| self.said(line));
    }
}

fn verdict(outcome: &str, reason: Reason) -> Verdict {
    Verdict {
        outcome: outcome.into(),
        code: Some(reason.code().into()),
        message: format!("{reason}: expected this, found that"),
        hint: reason.hint().map(str::to_owned),
        evidence_id: Some(12),
        ticket: None,
        sealed: None,
        release_signature: None,
        enrollment: None,
    }
}

fn volumes(page: &mut Page) {
    page.chapter("volumes are looked for");
    let missing = [UUID.to_owned(), "luks-data".to_owned()];
    page.said(words::waiting_for_volumes(&[], 60));
    page.said(words::waiting_for_volumes(&missing, 30));
    page.said(words::did_not_appear(&missing));
    page.said(words::does_not_answer("/dev/sdb", 10));
    page.said(words::does_not_end("open"));
    page.complained(&words::not_enrolled(words::NO_TOKEN));
    page.complained(&words::not_enrolled(words::NONE_APPEARED));
    page.complained(&words::luks1(DATA));

    page.chapter("volumes are not those of the enrollment");
    page.said(words::left_to_its_passphrase(DATA));
    page.said(words::other_name(DISK, "root", "luks-root"));
    page.said(words::other_flags(DISK, &["no-read-workqueue".into()], &[]));
    let (flags, none) = (["allow-discards".to_owned()], Vec::new());
    page.said(words::other_flags(DISK, &none, &flags));
    for error in [
        words::none_is_current(),
        words::none_on_these_disks(&[UUID.to_owned()]),
        words::other_volumes(DATA, DISK),
        words::token_is_gone(DATA, UUID),
        words::volume_is_gone(UUID),
        words::same_uuid(DISK, DATA),
        words::same_mapping(DISK, DATA, "luks-root"),
        words::not_sealed(DISK, UUID, "luks-root", "root"),
        words::wrong_key(DISK, 1),
        words::became_a_part(DISK),
        words::no_mapping(DISK, "CRYPT-LUKS2-6f1c2a4e-luks-root"),
    ] {
        page.complained(&error);
    }
}

fn unlocking(page: &mut Page) {
    page.chapter("unlocked");
    page.said(words::opened(DISK, "luks-root", 1));

    page.chapter("not unlocked: a passphrase is asked for");
    for line in [words::OFF, words::NO_TPM, words::FENCE_IS_CLOSED, words::TAKEN_BACK] {
        page.said(line);
    }
    page.complained(&words::window_is_over());

    page.chapter("the verifiers are asked");
    page.said(words::trace("4bf92f3577b34da6a3ce929d0e0e4736"));

    page.chapter("another attempt");
    let refusal = exchange::refusal(&verdict("denied", Reason::Stale));
    page.said(exchange::fresh_quote(&refusal));
    page.said(words::trying_again(net::Error::Http(502).at(SERVER), 42));
    page.said(words::PCRS_MOVED);
    page.complained(&words::enrollment_changed());
    page.said(words::OTHER_ENROLLMENT);
    page.said(words::verifier_was_told(&exchange::refusal(&verdict("denied", Reason::Signature))));
    page.said(words::verifier_not_told(&net::Error::Timeout("connecting").at(SERVER)));

    page.chapter("waiting for people");
    let pending = exchange::refusal(&verdict("pending", Reason::PolicyMismatch));
    for person in [Person::Operator, Person::Tenant] {
        exchange::waiting(person, NODE, &pending, 60).iter().for_each(|line| page.said(line));
        page.complained(&exchange::too_late(person, NODE, pending.clone()));
    }
}

/// Each reason as a verdict, and as a refusal of the request; a server that says no hint changes nothing of it.
fn reasons(page: &mut Page) {
    page.chapter("denied, for each reason");
    for reason in Reason::ALL.iter().copied() {
        let denied = verdict("denied", reason);
        let said = exchange::refusal(&denied);
        assert_eq!(lines(&said), lines(&exchange::refusal(&Verdict { hint: None, ..denied })));
        page.complained(&said);
    }
    page.complained(&exchange::refusal(&Verdict {
        code: Some("of_tomorrow".into()),
        message: "a reason that this agent does not know".into(),
        hint: Some("update it".into()),
        evidence_id: None,
        ..verdict("denied", Reason::Stale)
    }));

    page.chapter("the request itself refused, for each reason");
    for reason in Reason::ALL.iter().copied() {
        let problem = format!(r#"{{"code":"{}","message":"{reason}: found that"}}"#, reason.code());
        let error = net::client::read_answer::<Verdict>(reason.status(), &problem).unwrap_err();
        page.complained(&error.at(SERVER));
    }
}

fn network(page: &mut Page) {
    page.chapter("no answer");
    for error in [
        net::Error::Name("verifier.example".into()),
        net::Error::Unreachable("Network is unreachable".into()),
        net::Error::Refused("Connection refused".into()),
        net::Error::Timeout("connecting"),
        net::Error::Tls("the server's certificate is not from the CA that this machine pins".into()),
        net::Error::Broken("the other side closed it while reading the answer".into()),
        net::Error::Http(502),
        net::Error::TooLarge,
        net::Error::Malformed("not UTF-8".into()),
    ] {
        page.complained(&error.at(SERVER));
    }
}

fn tpm(page: &mut Page) {
    page.chapter("the TPM");
    let io = |kind: io::ErrorKind| io::Error::from(kind);
    for error in [
        tpm::Error::Open("/dev/tpmrm0".into(), io(io::ErrorKind::NotFound)),
        tpm::Error::Open("/dev/tpmrm0".into(), io(io::ErrorKind::PermissionDenied)),
        tpm::Error::Open("/dev/tpm0".into(), io(io::ErrorKind::ResourceBusy)),
        tpm::Error::Open("swtpm:127.0.0.1:2321".into(), io(io::ErrorKind::ConnectionRefused)),
        tpm::Error::Io("Quote", io(io::ErrorKind::BrokenPipe)),
        tpm::Error::Timeout("Quote", Duration::from_secs(30)),
        tpm::Error::TooLarge("Load"),
        tpm::Error::Refused("Unseal", 0x0000_099d),
        tpm::Error::Lockout { command: "Unseal", interval: 0 },
        tpm::Error::Lockout { command: "Unseal", interval: 7200 },
        tpm::Error::Malformed("PCR_Read"),
        tpm::Error::Hmac("Unseal"),
        tpm::Error::PcrChanged,
        tpm::Error::FenceExtended,
        tpm::Error::BankInactive(0x000c),
        tpm::Error::BankInactive(0x0004),
        tpm::Error::WrongSrk,
        tpm::Error::HierarchyAuth("owner"),
        tpm::Error::HierarchyDisabled("endorsement"),
        tpm::Error::Occupied(0x8100_0001),
        tpm::Error::Random,
        tpm::Error::NoActiveBank,
    ] {
        page.complained(&error.into());
    }
}

fn fence(page: &mut Page) {
    page.chapter("the fence");
    let silent: Error = tpm::Error::Timeout("PCR_Read", Duration::from_secs(30)).into();
    page.said(words::waiting_for_driver(20));
    page.said(words::asking_again(&silent, 20));
    page.complained(&words::closed_meanwhile());
    page.complained(&words::not_confirmed());
    page.complained(&silent.clone().context(words::FENCE_NOT_CLOSED));
    page.complained(&silent.context(words::NOT_TAKEN_BACK));
    page.said(words::POWERING_OFF);
    page.said(format!("hint: {}", words::POWER_OFF_HINT));

    page.chapter("a passphrase or a shell after the opening");
    page.said(words::waiting_for_another(30));
    page.said(words::asks_beside("data"));
    page.said(format!("hint: {}", words::ENROLL_IT));
    page.said(words::SHELL);
    page.complained(&words::still_open(Error::new(Kind::Volume, "luks-root: still in use")));

    page.chapter("the gate");
    for line in [words::GATE_NOTHING, words::GATE_CLOSED, words::GATE_NONE, words::GATE_PASSED] {
        page.said(line);
    }
    page.complained(&words::gate_unfinished());
    page.complained(&words::gate_rogue("/: it is on /dev/vdc1, which is no volume that was opened"));
    page.complained(&words::gate_damaged("/usr/lib/systemd/systemd: Input/output error"));
}

#[test]
fn what_stands_on_the_console() {
    let mut page = Page::default();
    for chapter in [volumes, unlocking, fence, tpm, network, reasons] {
        chapter(&mut page);
    }
    assert!(!page.0.contains(['\t', '\r', '\u{1b}']));
    golden::check(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/console.txt"), &page.0);
}

/// Whatever `words` can say is shown above, and what boots says nothing beside it.
#[test]
fn nothing_is_said_that_is_not_shown() {
    let (here, words) = (include_str!("console.rs"), include_str!("../src/words.rs"));
    for (kind, rest) in [("pub fn ", '('), ("pub const ", ':')] {
        for name in words.split(kind).skip(1).map(|text| text.split(rest).next().unwrap()) {
            assert!(here.contains(&format!("words::{name}")), "{name} is not shown");
        }
    }
    for (file, text) in [
        ("boot/devices.rs", include_str!("../src/boot/devices.rs")),
        ("boot/target.rs", include_str!("../src/boot/target.rs")),
        ("boot/unlock.rs", include_str!("../src/boot/unlock.rs")),
        ("boot/way_out.rs", include_str!("../src/boot/way_out.rs")),
        ("boot/gate.rs", include_str!("../src/boot/gate.rs")),
        ("commands/unlock.rs", include_str!("../src/commands/unlock.rs")),
        ("exchange/repeat.rs", include_str!("../src/exchange/repeat.rs")),
        ("fence.rs", include_str!("../src/fence.rs")),
    ] {
        for said in text.split("console::say(").skip(1) {
            let said = said.trim_start_matches(['&', '\n', ' ']);
            let elsewhere = said.starts_with("words::")
                || said.starts_with("crate::words::")
                || said.starts_with("format!(\"hint: {}\", words::");
            assert!(elsewhere, "{file}: {:.80}", said);
        }
    }
}
