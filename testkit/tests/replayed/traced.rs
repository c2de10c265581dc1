//! What a person reads on the console leads to the lines of the verifier's log.

use halfkey_testkit::replay::{self, Machine};

/// The trace that the agent names, of 32 digits.
fn trace(said: &str) -> String {
    let (_, after) = said.split_once("have this as trace ").unwrap_or_else(|| panic!("{said}"));
    let digits: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!((digits.len(), said.matches("as trace").count()), (32, 1), "{said}");
    digits
}

#[test]
fn the_console_names_what_the_verifier_logs() {
    let boot = replay::uki();
    let mut machine = Machine::that_learned(&boot, &[]);
    let denied = trace(&machine.denied(&boot.clone().with_other_image(), "policy_mismatch", &[]).said);
    let released = trace(&machine.boots(&boot).said);
    assert_ne!(denied, released, "each boot has its own");
    let log = std::fs::read_to_string(machine.lab.verifier.log()).unwrap();
    for (trace, outcome) in [(denied, "denied"), (released, "released")] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&trace)).collect();
        let verdicts: Vec<_> = lines.iter().filter(|line| line.contains(": verdict ")).collect();
        let [verdict] = verdicts[..] else { panic!("{lines:#?}") };
        for said in [outcome, &machine.id, "evidence=", "ms="] {
            assert!(verdict.contains(said), "{verdict}");
        }
    }
}
