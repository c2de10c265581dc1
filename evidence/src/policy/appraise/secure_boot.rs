//! PCR 7: whether signatures were checked, and against which keys.
//!
//! Firmware measures the variables, a separator, and then once for each certificate or hash that has verified an image which it
//! was (PC Client Platform Firmware Profile, section 3.3.4.8). Each of the variables must be there once: whoever
//! comes later can extend the PCR with another `SecureBoot`, but can't take the first away.

use super::context::Context;
use super::recorder::{MeasuredEvent, Mismatch, Recorder};
use crate::eventlog::content::Content;
use crate::eventlog::kind;
use crate::eventlog::signatures::{Entry, Signature, SignatureLists};
use crate::eventlog::variable::{Known, Value, Variable};
use crate::policy::compiled::{Judged, Keys, TakenFor};
use crate::policy::rules::{Dbx, Digest, Listed};
use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;

/// The variables, in the order in which firmware measures them.
const VARIABLES: [&str; 5] = ["SecureBoot", "PK", "KEK", "db", "dbx"];
const RULES: [&str; 5] =
    ["secure_boot.required", "secure_boot.pk", "secure_boot.kek", "secure_boot.db", "secure_boot.dbx"];

/// What was seen of PCR 7 so far.
#[derive(Debug, Default)]
pub(in crate::policy) struct State<'l> {
    times: [u32; 5],
    /// Firmware's part is over.
    pub separated: bool,
    /// `SecureBoot` is proven to be on.
    pub on: bool,
    /// Who verified images, in order.
    pub authorities: Vec<Authority<'l>>,
}

/// Who verified an image.
#[derive(Debug)]
pub(in crate::policy) struct Authority<'l> {
    pub seen: MeasuredEvent<'l>,
    /// Certificate or hash.
    pub signer: Listed,
}

impl<'l> State<'l> {
    /// An event of PCR 7 that is not built in. False: it is nothing of this.
    pub fn event<S: Recorder>(
        &mut self,
        context: &Context<'_, 'l>,
        seen: &MeasuredEvent<'l>,
        recorder: &mut S,
    ) -> bool {
        if seen.kind == Some(kind::EFI_VARIABLE_AUTHORITY) && self.separated {
            let Some(signer) = authority(context, seen) else { return false };
            self.authorities.push(Authority { seen: *seen, signer });
            return true;
        }
        if seen.kind != Some(kind::EFI_VARIABLE_DRIVER_CONFIG) || self.separated {
            return false;
        }
        let judged = match context.policy.memo.get(TakenFor::Variable, seen.digest) {
            Some(Judged::Variable(index, on)) => Ok((index, on)),
            _ => match appraise_variable(context, seen) {
                Some(judged) => judged,
                None => return false,
            },
        };
        let (Ok((index, _)) | Err((index, _))) = judged;
        self.times[index] += 1;
        if self.times[index] > 1 {
            recorder.refuse(seen, || Mismatch {
                rule: RULES[index].to_owned(),
                expected: format!("{} once", VARIABLES[index]),
                found: "it again".to_owned(),
            });
            return true;
        }
        match judged {
            Ok((index, on)) => {
                self.on |= on;
                recorder.accept(seen, || RULES[index].to_owned());
            }
            Err((_, why)) => recorder.refuse(seen, || why),
        }
        true
    }

    /// After the last event: what is not there.
    pub fn finish<S: Recorder>(&self, required: bool, recorder: &mut S) {
        if required && self.on && self.authorities.is_empty() {
            recorder.missing(Some(7), "authority", || Mismatch {
                rule: "secure_boot.authorities".to_owned(),
                expected: "an event that says who has verified an image".to_owned(),
                found: "none".to_owned(),
            });
        }
        // Firmware that knows nothing of Secure Boot has none of the keys; that it is off must be known all the same.
        let keys = required || self.times[1..].iter().any(|times| *times > 0);
        for index in 0..if keys { 5 } else { 1 } {
            if self.times[index] == 0 {
                recorder.missing(Some(7), &format!("variable {}", VARIABLES[index]), || Mismatch {
                    rule: RULES[index].to_owned(),
                    expected: "an event with verified content before the separator".to_owned(),
                    found: "none".to_owned(),
                });
            }
        }
    }
}

/// Which variable, and whether it is SecureBoot and on; or what is wrong with it.
type Outcome = Result<(usize, bool), (usize, Mismatch)>;

/// `None`: not proven to be one of the five.
fn appraise_variable(context: &Context<'_, '_>, seen: &MeasuredEvent<'_>) -> Option<Outcome> {
    let Content::Variable(variable) = seen.event(context.log)?.content() else { return None };
    let index = match variable.known() {
        Known::SecureBoot => 0,
        Known::Pk => 1,
        Known::Kek => 2,
        Known::Db => 3,
        Known::Dbx => 4,
        _ => return None,
    };
    let why = match index {
        0 => secure_boot(context.policy.document.secure_boot.required, &variable),
        _ => signatures(context, index, &variable).map(|()| false),
    };
    Some(match why {
        Ok(on) => {
            context.policy.memo.put(TakenFor::Variable, seen.digest, Judged::Variable(index, on));
            Ok((index, on))
        }
        Err((expected, found)) => Err((index, Mismatch { rule: RULES[index].to_owned(), expected, found })),
    })
}

type ExpectedFound = (String, String);

fn secure_boot(required: bool, variable: &Variable<'_>) -> Result<bool, ExpectedFound> {
    match variable.value() {
        Value::Flag(true) => Ok(true),
        _ if !required => Ok(false),
        value => Err(("SecureBoot on".to_owned(), value.to_string())),
    }
}

fn signatures(context: &Context<'_, '_>, index: usize, variable: &Variable<'_>) -> Result<(), ExpectedFound> {
    let Value::Signatures(lists) = variable.value() else {
        return Err(("signature lists".to_owned(), "something else".to_owned()));
    };
    let Keys { pk, kek, db, .. } = &context.policy.keys;
    match (index, &context.policy.document.secure_boot.dbx) {
        (1, _) => only(pk, lists, listed),
        (2, _) => only(kek, lists, listed),
        (3, _) => only(db, lists, listed),
        (_, None) => Ok(()),
        (_, Some(Dbx::AtLeast(list))) => at_least(list, lists),
        (_, Some(Dbx::Exactly(list))) => {
            only(&list.iter().copied().collect(), lists, fingerprint)?;
            at_least(list, lists)
        }
    }
}

/// Every entry is listed, by the name that `named` gives it.
fn only<N: Copy + Eq + Hash + Display>(
    allowed: &HashSet<N>,
    lists: SignatureLists<'_>,
    named: impl Fn(&Signature<'_>) -> Option<N>,
) -> Result<(), ExpectedFound> {
    for Entry { signature, .. } in lists.entries() {
        let found = named(&signature);
        if !found.is_some_and(|found| allowed.contains(&found)) {
            let expected = match allowed.len() {
                0 => "no entry".to_owned(),
                1 => allowed.iter().map(N::to_string).collect(),
                count => format!("one of {count} listed entries"),
            };
            return Err((expected, describe(&signature, found)));
        }
    }
    Ok(())
}

/// Every listed entry is there.
fn at_least(wanted: &[Digest], lists: SignatureLists<'_>) -> Result<(), ExpectedFound> {
    let found: HashSet<Digest> = lists.entries().filter_map(|entry| fingerprint(&entry.signature)).collect();
    match wanted.iter().find(|wanted| !found.contains(wanted)) {
        None => Ok(()),
        Some(wanted) => Err((format!("{wanted} among the entries"), format!("{} others", found.len()))),
    }
}

/// Which certificate or hash has verified an image; `None`: not proven.
fn authority(context: &Context<'_, '_>, seen: &MeasuredEvent<'_>) -> Option<Listed> {
    if let Some(Judged::Authority(signer)) = context.policy.memo.get(TakenFor::Authority, seen.digest) {
        return Some(signer);
    }
    let Content::Authority(authority) = seen.event(context.log)?.content() else { return None };
    let signer = listed(&authority.signer)?;
    context.policy.memo.put(TakenFor::Authority, seen.digest, Judged::Authority(signer));
    Some(signer)
}

/// What a document names an entry of PK, KEK or db by, and who has verified an image.
pub(in crate::policy) fn listed(signature: &Signature<'_>) -> Option<Listed> {
    let digest = fingerprint(signature)?;
    match signature {
        Signature::Certificate(_) => Some(Listed::Certificate(digest)),
        Signature::ImageHash(_) => Some(Listed::Image(digest)),
        Signature::CertificateHash { .. } | Signature::Other { .. } => None,
    }
}

/// What a document names an entry of dbx by.
pub(in crate::policy) fn fingerprint(signature: &Signature<'_>) -> Option<Digest> {
    Digest::new(&signature.fingerprint()?)
}

/// An entry for people: subject and fingerprint.
fn describe(signature: &Signature<'_>, fingerprint: Option<impl Display>) -> String {
    let name = name(signature);
    match fingerprint {
        Some(fingerprint) => format!("{name} {fingerprint}"),
        None => format!("{name} that has no sha256 fingerprint"),
    }
}

/// What an entry is, for people.
pub(in crate::policy) fn name(signature: &Signature<'_>) -> String {
    match signature {
        Signature::Certificate(certificate) => match certificate.subject() {
            Some(subject) => format!("certificate {subject:?}"),
            None => "certificate".to_owned(),
        },
        Signature::ImageHash(_) => "image hash".to_owned(),
        Signature::CertificateHash { .. } => "certificate hash".to_owned(),
        Signature::Other { kind, .. } => format!("entry of type {kind}"),
    }
}
