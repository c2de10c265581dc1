//! Firmware event logs: parse, replay in all banks, and everything that every event says.
#![no_main]
use halfkey_evidence::eventlog::content::{Claim, Content, Standing};
use halfkey_evidence::eventlog::variable::{Value, Variable};
use halfkey_evidence::eventlog::{self, Event};
use halfkey_protocol::tpm::bank::PcrBank;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = eventlog::replay(bytes, PcrBank::Sha256);
    let _ = eventlog::replay(bytes, PcrBank::Sha384);
    let Ok(all) = eventlog::replay_all(bytes) else { return };
    for log in &all.banks {
        log.events().iter().for_each(walk);
    }
});

fn walk(event: &Event<'_>) {
    let (content, claimed) = (event.content(), event.claimed_content());
    let verified = content != Content::Opaque;
    assert_eq!(verified, event.standing() == Standing::Verified);
    assert!(!event.what().contains(char::is_control) && event.what().len() < 400);
    for content in [content, if let Claim::Content(claimed) = claimed { claimed } else { content }] {
        match content {
            Content::Variable(variable) | Content::VariableValue { claimed: variable, .. } => {
                values(&variable)
            }
            Content::Authority(authority) => {
                let _ = authority.signer.fingerprint();
                values(&authority.list);
            }
            Content::PartitionTable(table) => {
                assert!(table.partitions().count() <= event.claimed_data().len())
            }
            _ => {}
        }
    }
    if let Claim::Image(image) = claimed {
        let _ = (image.path.file(), image.path.to_string(), image.is_payload_of_stub());
    }
}

fn values(variable: &Variable<'_>) {
    let _ = (variable.known(), variable.value().to_string());
    if let Value::Signatures(lists) = variable.value() {
        for entry in lists.entries() {
            let _ = entry.signature.fingerprint();
        }
    }
}
