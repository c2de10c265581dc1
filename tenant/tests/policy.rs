//! Policies and proposals with the real verifier, and a real TPM as the machine.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use common::node::{Node, software};
use common::setup::{CMDLINE, KERNEL, Setup, enrolled, grouped, json, said};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::{PolicyRecord, ProposalList, ProposalState};
use halfkey_testkit::software::Software;
use serde_json::Value;

fn proposal(boot: &Software, name: &str) -> Proposal {
    Software { version: name.into(), path: "/boot/vmlinuz".into(), ..boot.clone() }.proposal()
}

#[test]
fn a_boot_is_learned_and_another_kernel_is_denied_until_it_is_learned_too() {
    let setup = Setup::new();
    let (workstation, node, id) = (&setup.workstation, setup.node(), setup.id.as_str());
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));

    // The first boot waits, and becomes the first policy: if somebody says that nobody else chooses its initrd.
    assert_eq!(setup.boot(&old), "pending no_policy");
    let ran = workstation.run(&["approve", "web1", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("kernel_measures_initrd = true, a uki, or"), "{ran:?}");
    assert!(ran.stderr.contains("hint: boot a uki"), "{ran:?}");
    let ran = workstation.run(&["policy", "explain", "web1"]);
    assert!(ran.code == 1 && ran.stderr.contains("no policy governs node"), "{ran:?}");
    let ran = workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert!(ran.stderr.contains("has no policy yet") && ran.stderr.contains("[[boot]]"), "{ran:?}");
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(setup.policies(), [(format!("node:{id}"), 3)]);
    let ran = workstation.ok(&["policy", "explain", "web1"]);
    assert!(ran.stdout.contains("vmlinuz") && ran.stdout.contains("allowed: boot"), "{ran:?}");
    assert_eq!(setup.boot(&old), "released");

    // Another kernel.
    assert_eq!(setup.boot(&new), "denied policy_mismatch");
    let ran = workstation.run(&["policy", "explain", "web1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let digest = halfkey::render::text::hex(&new.kernel);
    assert!(ran.stdout.contains("vmlinuz") && ran.stdout.contains(&digest), "{ran:?}");
    workstation.ok(&["approve", "web1", "--once", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(setup.policies()[0].1, 3, "the policy is as it was");
    assert_eq!(setup.boot(&new), "denied policy_mismatch");
    let ran = workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes", "--json"]);
    let _: NodeRecord = json(&ran.stdout);
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(setup.policies()[0].1, 5, "4 is the approval");
    assert_eq!((setup.boot(&old), setup.boot(&new)), ("released".into(), "released".into()));

    // New firmware is more than another boot. Replaced: the old one is gone, and that is said before.
    let third = Software { firmware: Some(vec![7; 32]), ..software("6.3", CMDLINE) };
    assert_eq!(setup.boot(&third), "denied policy_mismatch");
    let ran = workstation.run(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("would still be denied"), "{ran:?}");
    assert!(ran.stderr.contains("firmware.pcr0") && ran.stderr.contains("--replace"), "{ran:?}");
    assert_eq!(setup.policies()[0].1, 5, "nothing was signed");
    let ran = workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--replace", "--yes"]);
    assert!(ran.stderr.contains("changes to version 5"), "{ran:?}");
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!((setup.boot(&old), setup.boot(&third)), ("denied policy_mismatch".into(), "released".into()));

    // The versions, and what they say.
    let (a, b) = (format!("node:{id}@3"), format!("node:{id}@5"));
    let ran = workstation.ok(&["policy", "diff", &a, &b]);
    assert!(ran.stdout.starts_with(&format!("--- node:{id} version 3")), "{ran:?}");
    assert_eq!(
        json::<Value>(&workstation.ok(&["policy", "diff", &a, &a, "--json"]).stdout)["changes"],
        Value::Array(vec![])
    );
    let shown = workstation.ok(&["policy", "show", "node:web1"]);
    assert!(shown.stderr.contains("signed by this workstation's tenant key"), "{shown:?}");
    let file = setup.path("shown.toml");
    std::fs::write(&file, &shown.stdout).unwrap();
    workstation.ok(&["policy", "check", &file]);
    workstation.ok(&["policy", "test", &file, "--against", "web1"]);
    let record: PolicyRecord =
        json(&workstation.ok(&["policy", "show", "node:web1", "--version", "3", "--json"]).stdout);
    assert_eq!(record.summary.version, 3);
}

/// A UEFI shell in front of the boot is learned only if the operator says so, each by itself, and the policy says what that means.
#[test]
fn what_came_back_to_the_firmware_is_learned_if_the_operator_says_so() {
    const HAS_THE_KEY: &str = "whatever this image can be made to do has the key";
    let setup = Setup::new();
    let (workstation, node) = (&setup.workstation, setup.node());
    let shell = vec![0x77; 32];
    let first = Software { returned: vec![shell.clone()], ..software("6.1", CMDLINE) };

    assert_eq!(setup.boot(&first), "pending no_policy");
    // Both are asked for at once.
    let ran = workstation.run(&["approve", "web1", "--yes"]);
    for said in ["it would be below the floor", "--kernel-measures-initrd; and", "--trust-returned-images"] {
        assert!(ran.code == 1 && ran.stderr.contains(said), "{said}: {ran:?}");
    }
    let learn = ["policy", "learn", "web1", "--kernel-measures-initrd"];
    for args in [
        &learn[..],
        &["approve", "web1", "--kernel-measures-initrd", "--yes"],
        &["approve", "web1", "--kernel-measures-initrd", "--replace", "--yes"],
    ] {
        let ran = workstation.run(args);
        for said in
            ["came back to the firmware", "shellx64.efi", "hint: mend the order", "--trust-returned-images"]
        {
            assert!(ran.code == 1 && ran.stderr.contains(said), "{said}: {ran:?}");
        }
        assert!(!ran.stderr.contains("below the floor"), "{ran:?}");
    }
    assert_eq!(setup.policies(), [], "nothing was signed");
    let ran = workstation.run(&["approve", "web1", "--once", "--trust-returned-images"]);
    assert_eq!(ran.code, 2, "{ran:?}");

    let trusting = [&learn[..], &["--trust-returned-images"]].concat();
    let file = setup.path("learned.toml");
    workstation.ok(&[&trusting[..], &["-o", &file]].concat());
    let ran = workstation.ok(&["policy", "check", &file]);
    assert!(ran.stderr.contains("warning: 1 [[event]] of pcr 4"), "{ran:?}");
    let checked: Value = json(&workstation.ok(&["policy", "check", &file, "--json"]).stdout);
    assert!(checked["warnings"][0].as_str().unwrap().contains("has the key"), "{checked}");
    let ran =
        workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--trust-returned-images", "--yes"]);
    assert!(
        ran.stderr.contains(&halfkey::render::text::hex(&shell)) && ran.stderr.contains(HAS_THE_KEY),
        "{ran:?}"
    );
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(setup.boot(&first), "released");

    // The next kernel, behind the same shell, needs a word for itself only; another shell needs one.
    let next = Software { returned: vec![shell.clone()], ..software("6.2", CMDLINE) };
    assert_eq!(setup.boot(&next), "denied policy_mismatch");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
    let other = Software { returned: vec![shell, vec![0x78; 32]], ..next };
    assert_eq!(setup.boot(&other), "denied policy_mismatch");
    let ran = workstation.run(&["approve", "web1", "--learn", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("--trust-returned-images"), "{ran:?}");
    assert!(ran.stderr.contains(&"78".repeat(32)) && !ran.stderr.contains(&"77".repeat(32)), "{ran:?}");
    workstation.ok(&["approve", "web1", "--learn", "--trust-returned-images", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
}

#[test]
fn a_boot_below_the_floor_can_be_approved_once_but_not_learned() {
    let setup = Setup::new();
    // Nothing keeps credentials of the hypervisor out.
    let boot = software("6.1", "root=/dev/mapper/root quiet");
    assert_eq!(setup.boot(&boot), "pending no_policy");
    for args in [
        &["approve", "web1", "--kernel-measures-initrd", "--yes"][..],
        &["policy", "learn", "web1", "--kernel-measures-initrd"],
    ] {
        let ran = setup.workstation.run(args);
        assert!(ran.code == 1 && ran.stderr.contains("systemd.import_credentials=no"), "{ran:?}");
        assert!(ran.stdout.is_empty() && ran.stderr.contains("hint:"), "{ran:?}");
    }
    setup.workstation.ok(&["approve", "web1", "--once", "--yes"]);
    assert_eq!(said(&setup.node().ask_again()), "released");
}

#[test]
fn a_group_has_one_policy_and_a_node_may_boot_something_besides() {
    let setup = Setup::new();
    let (workstation, id) = (&setup.workstation, setup.id.as_str());
    let (usual, other) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&usual), "pending no_policy");
    let file = setup.learns_web();
    let ran = workstation.run(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    assert!(ran.code == 1 && ran.stderr.contains("hint:"), "no file is overwritten: {ran:?}");

    let ran = workstation.run(&["group", "set", "web1", "nowhere", "--group", "web"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    workstation.ok(&["group", "set", "web1", "--group", "web"]);
    workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    assert_eq!(said(&setup.node().ask_again()), "released");
    let shown = workstation.ok(&["node", "show", "web1"]).stdout;
    assert!(shown.contains("group:web version 4, \"web servers\""), "{shown}");
    let groups = workstation.ok(&["group", "list"]).stdout;
    assert!(groups.contains("web1 (") && groups.contains("version 4"), "{groups}");

    // What the policy does not allow is learned beside it, for this node alone.
    assert_eq!(setup.boot(&other), "denied policy_mismatch");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert_eq!(setup.policies(), [(format!("additions:{id}"), 5), ("group:web".into(), 4)]);
    assert_eq!((setup.boot(&usual), setup.boot(&other)), ("released".into(), "released".into()));
    workstation.ok(&["policy", "explain", "web1"]);

    // A policy that forbids the last boot says so before it is signed, and `test` exits with 1.
    let strict = std::fs::read_to_string(&file)
        .unwrap()
        .replace(&halfkey::render::text::hex(&usual.kernel), &"ab".repeat(32));
    let strict_file = setup.path("strict.toml");
    std::fs::write(&strict_file, strict).unwrap();
    assert_eq!(setup.boot(&usual), "released");
    for against in ["web1", "group:web", "web", "all"] {
        let ran = workstation.run(&["policy", "test", &strict_file, "--against", against]);
        assert!(ran.code == 1 && ran.stdout.contains("denied"), "{against}: {ran:?}");
        workstation.ok(&["policy", "test", &file, "--against", against]);
    }
    let ran = workstation.run(&["policy", "apply", &strict_file, "--group", "web"]);
    assert!(ran.code == 2 && ran.stderr.contains("would deny the last released boot of 1 of 1"), "{ran:?}");
    // What the server can't read of one node, and a row of none, keep no policy from the group: a bad kernel is taken out all the same.
    let damage = "UPDATE evidence SET outcome = 'x';
                  INSERT INTO nodes (node_id, label, last_seen, group_name) VALUES ('x', '', 0, 'web');";
    setup.verifier.database().execute_batch(damage).unwrap();
    let ran = workstation.ok(&["policy", "apply", &strict_file, "--group", "web", "--yes"]);
    assert!(ran.stderr.contains("1 of 1"), "what could not be tried is said: {ran:?}");
    assert_eq!(setup.boot(&usual), "denied policy_mismatch");
    workstation.ok(&["group", "set", "web1", "--none"]);
    assert_eq!(setup.boot(&usual), "pending no_policy");
}

/// One machine has booted the update. Another one booted what it had booted before, a third one something else.
#[test]
fn what_one_member_boots_is_learned_for_its_group() {
    let (setup, usual, _) = grouped();
    let workstation = &setup.workstation;
    let others = ["web2", "web3"].map(|label| enrolled(&setup.verifier, workstation, label));
    let [two, three] = others.each_ref().map(|machine| Node { machine, verifier: &setup.verifier });
    workstation.ok(&["group", "set", "web2", "web3", "--group", "web"]);
    assert_eq!((setup.boot(&usual), said(&two.boot(&usual))), ("released".into(), "released".into()));
    assert_eq!(said(&three.boot(&software("6.0", CMDLINE))), "denied policy_mismatch");
    let update = software("6.2", CMDLINE);
    assert_eq!(setup.boot(&update), "denied policy_mismatch");
    let learn = ["approve", "web1", "--kernel-measures-initrd", "--learn"];
    let ran = workstation.typing(&learn, "\n");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("for this node alone, or for its whole group?"), "{ran:?}");
    let ran = workstation.ok(&[&learn[..], &["--for-group", "--yes"]].concat());
    for said in [
        "2 other members of group web, by their last recorded boots:",
        "  1 booted what web1 booted before, event by event",
        "  1 will differ, and be denied",
        "    web3 (",
        ": expected authenticode sha256:",
        "learned for group:web",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    assert_eq!(said(&setup.node().ask_again()), "released");
    assert_eq!((said(&two.boot(&update)), said(&two.boot(&usual))), ("released".into(), "released".into()));
    assert_eq!(said(&three.boot(&update)), "released");
    // Now both have booted just that, and the listing of a third kernel is still the same for both.
    let third = software("6.3", CMDLINE);
    assert_eq!(setup.boot(&third), "denied policy_mismatch");
    let ran = workstation.typing(&learn, "g\ny\n");
    assert!(ran.code == 0 && ran.stderr.contains("1 will differ"), "web2 went back: {ran:?}");
    assert_eq!(said(&three.boot(&third)), "released");
    // What any boot of every member might have then is not taken along.
    let behind_a_shell = Software { returned: vec![vec![0x77; 32]], ..third.clone() };
    assert_eq!(setup.boot(&behind_a_shell), "denied policy_mismatch");
    let ran = workstation.run(&[&learn[..], &["--trust-returned-images", "--for-group", "--yes"]].concat());
    assert!(ran.code == 1 && ran.stderr.contains("any boot of every member"), "{ran:?}");
    // A machine that no group's policy governs.
    workstation.ok(&["group", "set", "web3", "--none"]);
    assert_eq!(said(&three.boot(&third)), "pending no_policy");
    let ran = workstation.run(&["approve", "web3", "--learn", "--for-group", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("no group's policy governs"), "{ran:?}");
}

#[test]
fn a_node_with_a_policy_of_its_own_is_given_back_to_its_group() {
    let setup = Setup::new();
    let (workstation, id) = (&setup.workstation, setup.id.as_str());
    let (usual, other) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    setup.boot(&usual);
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert_eq!(setup.boot(&usual), "released");
    let ran = workstation.run(&["policy", "withdraw", "web1", "--additions", "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("has no policy that could be withdrawn"), "{ran:?}");

    // Alone, nothing would be left for it; nobody has said yes.
    let ran = workstation.run(&["policy", "withdraw", "web1"]);
    assert!(ran.code == 2 && ran.stderr.contains("nothing is left"), "{ran:?}");
    let file = setup.path("web.toml");
    workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    let moved = workstation.ok(&["group", "set", "web1", "--group", "web"]);
    assert!(moved.stderr.contains(&format!("hint: `halfkey policy withdraw {id}`")), "{moved:?}");
    let withdrawn = workstation.ok(&["policy", "withdraw", "web1", "--yes"]);
    assert!(withdrawn.stderr.contains("left for the node: group:web version 4"), "{withdrawn:?}");
    assert_eq!(withdrawn.stdout, format!("withdrew node:{id} by version 6\n"));
    assert_eq!(setup.boot(&usual), "released");
    assert!(workstation.ok(&["node", "show", "web1"]).stdout.contains("group:web version 4"));
    assert!(workstation.ok(&["policy", "list"]).stdout.contains("(withdrawn)"));
    assert_eq!(workstation.ok(&["policy", "show", "node:web1"]).stdout, "# withdrawn: there is no policy\n");
    let ran = workstation.run(&["policy", "diff", "node:web1", &file]);
    assert!(ran.code == 1 && ran.stderr.contains("hint: an earlier one is node:web1@N"), "{ran:?}");
    workstation.ok(&["policy", "diff", "node:web1@3", &file]);
    assert_eq!(workstation.run(&["policy", "withdraw", "web1", "--yes"]).code, 1, "once is enough");

    // The same with additions, and both can come again.
    assert_eq!(setup.boot(&other), "denied policy_mismatch");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert_eq!(setup.boot(&other), "released");
    let withdrawn = workstation.ok(&["policy", "withdraw", "web1", "--additions", "--yes"]);
    assert!(withdrawn.stderr.contains("would deny the last released boot of 1 of 1"), "{withdrawn:?}");
    assert_eq!(setup.boot(&other), "denied policy_mismatch");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
    assert_eq!(setup.boot(&other), "released");
    assert_eq!(setup.boot(&usual), "released");
    let strange = software("6.3", CMDLINE);
    assert_eq!(setup.boot(&strange), "denied policy_mismatch");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--replace", "--yes"]);
    assert_eq!(setup.boot(&strange), "released");
    let policies = [(format!("additions:{id}"), 9), ("group:web".into(), 4), (format!("node:{id}"), 10)];
    assert_eq!(setup.policies(), policies);
}

#[test]
fn a_log_from_a_file_is_tried_too() {
    let workstation = Workstation::new();
    let setup = Setup::new();
    let boot = software("6.1", CMDLINE);
    assert_eq!(setup.boot(&boot), "pending no_policy");
    let file = setup.path("web.toml");
    setup.workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    let at = |name: &str, bytes: &[u8]| {
        let path = workstation.path(name).to_str().unwrap().to_owned();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cmdline = at("cmdline", format!("{CMDLINE}\n").as_bytes());
    let log = at("log.bin", &boot.log());
    // Without a login.
    workstation.ok(&["policy", "test", &file, "--against", &log, "--cmdline", &cmdline]);
    // Where the words of the command line are judged they have to be known.
    let exact = format!("command_line = \"{CMDLINE}\"\n");
    let tokens = "[command_line]\nallowed = [\"root=/dev/mapper/*\", \"quiet\"]\nrequired = [\"systemd.import_credentials=no\", \"efi=noruntime\"]\n\n[[boot]]";
    let text = std::fs::read_to_string(&file).unwrap().replace(&exact, "").replacen("[[boot]]", tokens, 1);
    let words = at("words.toml", text.as_bytes());
    workstation.ok(&["policy", "test", &words, "--against", &log, "--cmdline", &cmdline]);
    let ran = workstation.run(&["policy", "test", &words, "--against", &log]);
    assert!(ran.code == 1 && ran.stdout.contains("command line"), "{ran:?}");
    let log = at("other.bin", &software("6.2", CMDLINE).log());
    let ran = workstation.run(&["policy", "test", &file, "--against", &log, "--cmdline", &cmdline, "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(json::<Value>(&ran.stdout)["trials"][0]["result"], "denied");
    let cut = boot.log();
    let log = at("cut.bin", &cut[..cut.len() - 3]);
    let ran = workstation.run(&["policy", "test", &file, "--against", &log]);
    assert!(ran.code == 1 && ran.stderr.contains("cut.bin") && ran.stdout.is_empty(), "{ran:?}");
}

#[test]
fn one_command_accepts_what_a_node_proposes() {
    let setup = Setup::new();
    let (workstation, node) = (&setup.workstation, setup.node());
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(workstation.ok(&["proposals"]).stdout, "no proposals\n");

    let answer = node.propose(&proposal(&new, "6.2"));
    assert_eq!((answer.outcome.as_str(), answer.code.as_deref()), ("waiting", Some("proposal_waits")));
    let number = answer.proposal_id.unwrap().to_string();
    let listed = workstation.ok(&["proposals", "--node", "web1"]).stdout;
    assert!(listed.contains("6.2") && listed.contains("waiting") && listed.contains("web1 ("), "{listed}");
    let shown = workstation.ok(&["proposal", "show", &number]);
    assert!(shown.stdout.contains("/boot/vmlinuz") && shown.stderr.contains("[[boot]]"), "{shown:?}");
    let ran = workstation.run(&["proposal", "accept", &number]);
    assert_eq!(ran.code, 2, "it asks: {ran:?}");
    let ran = workstation.ok(&["proposal", "accept", &number, "--yes"]);
    assert!(ran.stdout.contains(&format!("proposal {number} is accepted")), "{ran:?}");
    assert_eq!(setup.policies()[0].1, 4);
    assert_eq!(workstation.ok(&["proposals"]).stdout, "no proposals\n");
    assert_eq!(setup.boot(&new), "released");
    let ran = workstation.run(&["proposal", "accept", &number, "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains("does not wait"), "{ran:?}");

    let answer = node.propose(&proposal(&software("6.3", CMDLINE), "6.3"));
    let number = answer.proposal_id.unwrap().to_string();
    workstation.ok(&["proposal", "deny", &number, "--because", "not tested"]);
    let list: ProposalList = json(&workstation.ok(&["proposals", "--all", "--json"]).stdout);
    let state = |id: &str| list.proposals.iter().find(|one| one.id.to_string() == id).unwrap().state;
    assert_eq!(state(&number), ProposalState::Denied);
    assert_eq!(workstation.run(&["proposal", "show", "999"]).code, 3);
}

#[test]
fn what_a_whole_group_proposes_is_accepted_at_once() {
    let setup = Setup::new();
    let (workstation, one) = (&setup.workstation, setup.node());
    let second = enrolled(&setup.verifier, workstation, "web2");
    let two = Node { machine: &second, verifier: &setup.verifier };
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    workstation.ok(&["group", "set", "web1", "web2", "--group", "web"]);
    assert_eq!(
        (said(&one.boot(&old)), said(&two.boot(&old))),
        ("pending no_policy".into(), "pending no_policy".into())
    );
    let file = setup.learns_web();
    workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    assert_eq!((said(&one.ask_again()), said(&two.ask_again())), ("released".into(), "released".into()));
    let numbers = [&one, &two].map(|node| node.propose(&proposal(&new, "6.2")).proposal_id.unwrap());
    let ran = workstation.ok(&["proposal", "accept", &numbers[0].to_string(), "--yes", "--json"]);
    let accepted: Value = json(&ran.stdout);
    assert_eq!(accepted["also"], serde_json::json!([numbers[1]]), "{accepted}");
    assert_eq!(accepted["policy"]["summary"]["scope"], "group:web");
    // Any machine of the group says what comes before a kernel.
    let initrd = setup.path("initrd");
    std::fs::write(&initrd, b"an initrd").unwrap();
    let files = [
        "policy",
        "predict",
        "--kernel",
        KERNEL,
        "--kernel-measures-initrd",
        "--initrd",
        &initrd,
        "--cmdline",
        CMDLINE,
    ];
    let ran = workstation.ok(&[&files[..], &["--add", "--group", "web", "--yes"]].concat());
    assert!(ran.stdout.contains("group:web version 9") && ran.stderr.contains("# base: web"), "{ran:?}");
    assert_eq!((said(&one.boot(&new)), said(&two.boot(&new))), ("released".into(), "released".into()));
}

#[test]
fn what_was_trusted_unseen_is_explained_as_it_was_judged() {
    let setup = Setup::new();
    let (workstation, node) = (&setup.workstation, setup.node());
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    let file = setup.path("web.toml");
    workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str("\n[trust_root_with_next_boot]\nuntil = 2100-01-01T00:00:00Z\ncount = 3\n");
    std::fs::write(&file, text).unwrap();
    workstation.ok(&["policy", "apply", &file, "--node", "web1", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(node.propose(&proposal(&new, "6.2")).outcome, "accepted");
    let shown = workstation.ok(&["node", "show", "web1"]).stdout;
    assert!(shown.contains("trusted unseen  proposals 1:"), "{shown}");
    assert_eq!(setup.boot(&new), "released");
    let explained = workstation.ok(&["policy", "explain", "web1"]).stdout;
    assert!(explained.contains("(proposal 1)"), "{explained}");
    // The old one stays allowed, and so does what was trusted, until the policy says otherwise.
    assert_eq!(setup.boot(&old), "released");
}

#[test]
fn what_is_predicted_boots_without_an_operator() {
    let setup = Setup::new();
    let (workstation, node) = (&setup.workstation, setup.node());
    let old = software("6.1", CMDLINE);
    assert_eq!(setup.boot(&old), "pending no_policy");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");

    let initrd = setup.path("initrd");
    std::fs::write(&initrd, b"an initrd").unwrap();
    let files = [
        "policy",
        "predict",
        "--kernel",
        KERNEL,
        "--kernel-measures-initrd",
        "--initrd",
        &initrd,
        "--cmdline",
        CMDLINE,
    ];
    let more = ["--base", "web1", "--name", "6.2"];
    let predicted: Value = json(&workstation.ok(&[&files[..], &more, &["--json"]].concat()).stdout);
    let boot = &predicted["boots"][0];
    assert_eq!((&boot["secure_boot"], &boot["missing"]), (&Value::Bool(false), &Value::Array(vec![])));
    // The node that it is added to is the base, and says that Secure Boot is off there.
    let ran = workstation.ok(&[&files[..], &["--name", "6.2", "--add", "--node", "web1", "--yes"]].concat());
    assert!(ran.stdout.contains("version 4") && ran.stderr.contains("# base: web1, evidence"), "{ran:?}");
    let again = workstation.ok(&[&files[..], &more, &["--add", "--node", "web1", "--yes"]].concat());
    assert!(again.stdout.contains("nothing to add"), "{again:?}");

    let digest = |pcr: u8, what: &str| {
        let events = boot["events"].as_array().unwrap();
        let event = events.iter().find(|e| e["pcr"] == pcr && e["what"].as_str().unwrap().starts_with(what));
        let digest = event.unwrap()["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        (0..32).map(|i| u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    let next = Software { kernel: digest(4, "kernel"), initrd: digest(9, "initrd"), ..old.clone() };
    assert_eq!(setup.boot(&next), "released");
    // The fence is extended by now; everything else is as it was predicted.
    let pcrs = setup.machine.tpm.pcrs(PcrBank::Sha256);
    for value in boot["pcrs"].as_array().unwrap() {
        let pcr = value["pcr"].as_u64().unwrap() as usize;
        // No systemd ran here.
        let expected = if pcr == 11 { continue } else { value["value"].as_str().unwrap() };
        assert_eq!(expected, halfkey::render::text::hex(&pcrs[pcr]), "PCR {pcr}");
    }
}

/// One workstation after the other, each for its own group: nobody has to run a command again.
#[test]
fn two_workstations_sign_at_once() {
    const EACH: u64 = 5;
    let setup = Setup::new();
    let other = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    std::fs::copy(setup.workstation.home().join("tenant.key"), other.home().join("tenant.key")).unwrap();
    let policy = setup.path("policy.toml");
    setup.boot(&software("6.1", CMDLINE));
    let learned = setup.workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd"]);
    std::fs::write(&policy, learned.stdout).unwrap();
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for (workstation, group) in [(&setup.workstation, "web"), (&other, "db")] {
            let (start, policy) = (&start, &policy);
            scope.spawn(move || {
                start.wait();
                for _ in 0..EACH {
                    workstation.ok(&["policy", "apply", policy, "--group", group, "--yes"]);
                }
            });
        }
    });
    let mut versions: Vec<_> = setup.policies().into_iter().map(|(_, version)| version).collect();
    versions.sort();
    assert_eq!(versions.last(), Some(&(2 + 2 * EACH)), "each has its place, after enrollment and proof");
}

/// What it signed before is not missed, and not believed either.
#[test]
fn a_tenant_whose_node_comes_back_begins_anew() {
    let setup = Setup::new();
    let (first, id) = (&setup.workstation, setup.id.as_str());
    let boot = software("6.1", CMDLINE);
    assert_eq!(setup.boot(&boot), "pending no_policy");
    // Another workstation with the same key; each has signed for the node.
    let beside = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    std::fs::copy(first.home().join("tenant.key"), beside.home().join("tenant.key")).unwrap();
    beside.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(setup.boot(&boot), "released");
    let file = setup.path("own.toml");
    first.ok(&["policy", "learn", "web1", "--kernel-measures-initrd", "-o", &file]);
    first.ok(&["policy", "apply", &file, "--node", "web1", "--yes"]);
    first.ok(&["group", "set", "web1", "--group", "web"]);
    assert_eq!(setup.boot(&boot), "released");

    let second = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    let enroll = |workstation: &Workstation| {
        workstation.ok(&[
            "enroll",
            id,
            "--trust-ek",
            &setup.machine.tpm.fingerprint(),
            "--yes",
            "--label",
            "web1",
        ])
    };
    enroll(&second);
    // The first workstation sees this enrollment now, and its proof later.
    first.ok(&["hold", "web1", "--because", "sold"]);
    first.ok(&["release", "web1", "--because", "sold"]);
    setup.node().finish_enrollment(&second);
    assert_eq!(setup.boot(&boot), "pending no_policy");
    second.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(setup.boot(&boot), "released");
    let ran = enroll(first);
    setup.node().finish_enrollment(first);
    let lost = format!("counts no more (node:{id}, membership:{id}, enrollment:{id})");
    assert!(
        ran.stderr.contains("another tenant key than this workstation's") && ran.stderr.contains(&lost),
        "{ran:?}"
    );
    for workstation in [first, &beside] {
        let ran = workstation.run(&["policy", "withdraw", "web1", "--yes"]);
        assert!(ran.code == 1 && ran.stderr.contains("has no policy that could be withdrawn"), "{ran:?}");
    }
    assert_eq!(setup.boot(&boot), "pending no_policy");
    let ran = first.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert!(ran.stderr.contains("has no policy yet"), "{ran:?}");
    assert_eq!(setup.boot(&boot), "released");
    first.ok(&["policy", "withdraw", "web1", "--yes"]);
    assert_eq!(setup.boot(&boot), "pending no_policy");
    // The enrollment that is proved was signed before the second workstation looked last.
    let ran = second.ok(&["revoke", "web1", "--because", "sold"]);
    assert!(ran.stderr.contains("another tenant key than this workstation's"), "{ran:?}");
}

/// The question shows what was there when it was asked: what another workstation has signed since is not signed over.
#[test]
fn what_came_while_the_question_was_open_is_not_signed_over() {
    let setup = Setup::new();
    let (workstation, id) = (&setup.workstation, setup.id.as_str());
    let other = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    std::fs::copy(workstation.home().join("tenant.key"), other.home().join("tenant.key")).unwrap();
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(setup.boot(&old), "released");
    assert_eq!(setup.boot(&new), "denied policy_mismatch");

    // The other workstation takes 6.1 out.
    let shown = workstation.ok(&["policy", "show", &format!("node:{id}"), "--json"]).stdout;
    let document: Value = serde_json::from_slice(&json::<PolicyRecord>(&shown).signed.document).unwrap();
    let digest = halfkey::render::text::hex(&old.kernel);
    let text = document["body"].as_str().unwrap().replace(&digest, &"00".repeat(32));
    let strict = setup.path("strict.toml");
    let apply = |number: usize| {
        std::fs::write(&strict, format!("{text}\n# {number}\n")).unwrap();
        other.ok(&["policy", "apply", &strict, "--node", "web1", "--yes"]);
    };
    let own = setup.path("own.toml");
    std::fs::write(&own, document["body"].as_str().unwrap()).unwrap();
    let commands: [&[&str]; 3] = [
        &["approve", "web1", "--learn", "--kernel-measures-initrd"],
        &["policy", "apply", &own, "--node", "web1"],
        &["policy", "withdraw", "web1"],
    ];
    for (number, command) in commands.into_iter().enumerate() {
        let ran = workstation.answered_after(command, || apply(number));
        assert!(ran.code == 1 && ran.stderr.contains("came first"), "{command:?}: {ran:?}");
    }
    assert_eq!(setup.boot(&old), "denied policy_mismatch");
    // Asked again, it shows what there is now.
    let ran = workstation.answered_after(&["policy", "withdraw", "web1"], || ());
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// What a node may boot besides goes with the policy of its group.
#[test]
fn what_came_for_the_group_while_the_question_was_open_is_not_signed_over() {
    let setup = Setup::new();
    let workstation = &setup.workstation;
    let other = Workstation::logged_in(&setup.verifier.file("operator-alice.bundle"));
    std::fs::copy(workstation.home().join("tenant.key"), other.home().join("tenant.key")).unwrap();
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    let (group, additions) = (setup.path("web.toml"), setup.path("more.toml"));
    let text = workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd"]).stdout;
    let apply = |name: &str, number: usize| {
        std::fs::write(&group, format!("{text}\n# {number}\n")).unwrap();
        other.ok(&["policy", "apply", &group, "--group", name, "--yes"]);
    };
    apply("web", 0);
    workstation.ok(&["group", "set", "web1", "--group", "web"]);
    assert_eq!(setup.boot(&new), "denied policy_mismatch");
    let learn: &[&str] = &["approve", "web1", "--learn", "--kernel-measures-initrd"];
    let withdraw: &[&str] = &["policy", "withdraw", "web1", "--additions"];
    let file: &[&str] = &["policy", "apply", &additions, "--additions", "web1"];
    let passes_over = |command: &[&str], number| {
        let ran = workstation.answered_after(command, || apply("web", number));
        let first = ran.stderr.contains("another document for group:web came first");
        assert!(ran.code == 1 && first, "{command:?}: {ran:?}");
    };
    passes_over(learn, 1);
    assert_eq!(setup.boot(&new), "denied policy_mismatch");
    // That of another group is no reason to ask again.
    let ran = workstation.answered_after(learn, || apply("db", 2));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(setup.boot(&new), "released");
    let shown = workstation.ok(&["policy", "show", &format!("additions:{}", setup.id), "--json"]).stdout;
    let document: Value = serde_json::from_slice(&json::<PolicyRecord>(&shown).signed.document).unwrap();
    std::fs::write(&additions, document["body"].as_str().unwrap()).unwrap();
    passes_over(file, 3);
    passes_over(withdraw, 4);
    assert_eq!(workstation.answered_after(withdraw, || ()).code, 0);
    assert_eq!(setup.boot(&new), "denied policy_mismatch");
}
