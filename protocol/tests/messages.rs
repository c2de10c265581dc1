//! Every message of `vectors/messages.json`, read and written by both JSON stacks.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use halfkey_protocol::wire::*;
use serde_json::Value;

fn vectors() -> serde_json::Map<String, Value> {
    serde_json::from_str(include_str!("../vectors/messages.json")).unwrap()
}

/// Reads the vector with an unknown field added, with both stacks, and writes it with both.
macro_rules! agree {
    ($seen:ident, $($type:ident),+) => {$(
        let vector = vectors()[stringify!($type)].clone();
        let mut extended = vector.clone();
        extended["field_of_a_newer_version"] = serde_json::json!({ "x": [1, null] });
        let text = extended.to_string();

        let by_serde: $type = serde_json::from_str(&text).unwrap();
        let by_miniserde: $type = miniserde::json::from_str(&text).unwrap();
        assert_eq!(by_serde, by_miniserde, stringify!($type));
        let written: Value = serde_json::from_str(&miniserde::json::to_string(&by_serde)).unwrap();
        assert_eq!(written, vector, stringify!($type));
        assert_eq!(serde_json::to_value(&by_miniserde).unwrap(), vector, stringify!($type));
        $seen.push(stringify!($type).to_string());
    )+};
}

#[test]
fn both_stacks_read_and_write_every_message_alike() {
    let mut seen = Vec::new();
    agree!(
        seen,
        Register,
        Registered,
        Activate,
        Activated,
        Begin,
        Begun,
        Evidence,
        Verdict,
        Wait,
        Waited,
        Proposal,
        Propose,
        Proposed,
        Enrollment,
        SignedDocument,
        Prove,
        Proved,
        Problem
    );
    seen.push("Document".to_owned());
    seen.sort();
    assert_eq!(seen, vectors().keys().cloned().collect::<Vec<_>>(), "a vector that nobody reads");
}

#[test]
fn optional_fields_may_be_missing_and_others_may_not() {
    for (missing, valid) in [("event_log", true), ("quote", false)] {
        let mut evidence = vectors()["Evidence"].clone();
        evidence.as_object_mut().unwrap().remove(missing);
        let text = evidence.to_string();
        assert_eq!(serde_json::from_str::<Evidence>(&text).is_ok(), valid, "serde, {missing}");
        assert_eq!(miniserde::json::from_str::<Evidence>(&text).is_ok(), valid, "miniserde, {missing}");
    }
}

#[test]
fn padded_or_standard_base64_is_refused_by_both() {
    for text in [r#"{"node_id":"x","proof":"AA=="}"#, r#"{"node_id":"x","proof":"+/+/"}"#] {
        assert!(serde_json::from_str::<Activate>(text).is_err());
        assert!(miniserde::json::from_str::<Activate>(text).is_err());
    }
}

/// A server does not take what it can't understand; the agent goes by the format.
#[test]
fn a_document_has_no_unknown_field_for_servers() {
    let mut vector = vectors()["Document"].clone();
    let by_serde: Document = serde_json::from_value(vector.clone()).unwrap();
    let by_miniserde: Document = miniserde::json::from_str(&vector.to_string()).unwrap();
    assert_eq!(by_serde, by_miniserde);
    assert_eq!(serde_json::to_value(&by_miniserde).unwrap(), vector);
    let written: Value = serde_json::from_str(&miniserde::json::to_string(&by_serde)).unwrap();
    assert_eq!(written, vector);
    vector["field_of_a_newer_version"] = serde_json::json!(1);
    assert!(serde_json::from_value::<Document>(vector.clone()).is_err());
    assert!(miniserde::json::from_str::<Document>(&vector.to_string()).is_ok());
}
