//! What a boot that one member has made means for its group: who will boot the same, as far as their last recorded boots tell.
//!
//! A `[[boot]]` by GRUB is exact, down to the files and commands of one machine. Members whose earlier boots were the same, event by event,
//! had the same files; the same update makes them the same again. Where one differed, its next boot will differ from the listing there, too.

use crate::client::Client;
use crate::documents::change::PolicyChange;
use crate::documents::governed::Governed;
use crate::documents::signed::SignedByUs;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render::text::{clean, clean_short};
use crate::trust::boot::{self, Attester};
use halfkey_evidence::policy::rules::Boot as Rule;
use halfkey_evidence::policy::{Finding, Policy};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::Scope;

/// Most members that are looked at: each costs some requests.
const MOST: usize = 256;
/// Members, and events of one, that are shown.
const SHOWN: usize = 8;

/// What is to be expected of the next boots of a group's other members.
pub struct Outlook {
    group: String,
    label: String,
    /// Whether the node itself has an earlier boot to compare theirs with.
    compared: bool,
    /// Whether the group learns no [[boot]], but keys of Secure Boot only.
    keys_only: bool,
    members: Vec<Member>,
    /// Members that were not looked at.
    more: usize,
}

struct Member {
    id: NodeId,
    label: String,
    expected: Expected,
}

/// What is to be expected of one.
enum Expected {
    /// Its last boot was this one.
    Booted,
    /// Its last boot was the same as that of the node before this one.
    Same,
    /// It differed in these events.
    Differs(Vec<Finding>),
    /// It can't be told.
    Unknown(String),
}

impl Outlook {
    /// Compares the last recorded boot of each member with what the group's policy is to learn.
    ///
    /// # Errors
    /// As every request. A member of which nothing can be said is part of the result.
    pub fn of(
        signing: &SigningContext<'_>,
        group: &str,
        record: &NodeRecord,
        id: NodeId,
        change: &PolicyChange,
        before: &Policy,
    ) -> Result<Self> {
        let known = |rule: &&Rule| before.boots().iter().all(|known| known.name != rule.name);
        let learned: Vec<Rule> = change.policy().boots().iter().filter(known).cloned().collect();
        let keys_only = learned.is_empty();
        let listing = Listing { signing, group, policy: change.policy(), learned };
        let own = listing.last(id, record, boot::released)?;
        let others: Vec<_> =
            trial::members(&signing.client, group)?.into_iter().filter(|other| *other != id).collect();
        let mut members = Vec::new();
        for other in others.iter().take(MOST) {
            members.extend(listing.member(*other, own.as_deref())?);
        }
        Ok(Self {
            group: group.to_owned(),
            label: record.summary.label.clone(),
            compared: own.is_some(),
            keys_only,
            members,
            more: others.len().saturating_sub(MOST),
        })
    }

    /// Whether the node is the only one that the group's policy governs.
    pub fn is_alone(&self) -> bool {
        self.members.is_empty() && self.more == 0
    }

    /// For the operator.
    pub fn shown(&self) -> String {
        let (group, label) = (clean_short(&self.group, 64), clean_short(&self.label, 40));
        if self.is_alone() {
            return format!("group {group} has no other member");
        }
        let count = |wanted: fn(&Expected) -> bool| {
            self.members.iter().filter(|member| wanted(&member.expected)).count()
        };
        let mut lines = vec![format!(
            "{} other members of group {group}, by their last recorded boots:",
            self.members.len() + self.more
        )];
        let mut line = |number: usize, what: String| {
            if number > 0 {
                lines.push(format!("  {number} {what}"));
            }
        };
        let booted = if self.keys_only {
            "are allowed what they booted last, and the new entries besides"
        } else {
            "booted just this"
        };
        line(count(|expected| matches!(expected, Expected::Booted)), booted.to_owned());
        line(
            count(|expected| matches!(expected, Expected::Same)),
            format!(
                "booted what {label} booted before, event by event: the same update should make them the same"
            ),
        );
        let differ: Vec<_> =
            self.members.iter().filter(|member| matches!(member.expected, Expected::Differs(_))).collect();
        let denied = if self.keys_only {
            "are denied what they booted last, and stay so:"
        } else {
            "will differ, and be denied until each has a [[boot]] of its own:"
        };
        line(differ.len(), denied.to_owned());
        line(
            count(|expected| matches!(expected, Expected::Unknown(_))) + self.more,
            "can't be told of".to_owned(),
        );
        if !self.compared && !self.keys_only {
            lines.push(format!(
                "  {label} has no earlier boot that could be compared: what the update changes counts as a difference, too"
            ));
        }
        for member in differ.iter().take(SHOWN) {
            lines.push(member.shown());
        }
        if differ.len() > SHOWN {
            lines.push(format!("    ... and {} more members", differ.len() - SHOWN));
        }
        for member in
            self.members.iter().filter(|member| matches!(member.expected, Expected::Unknown(_))).take(SHOWN)
        {
            lines.push(member.shown());
        }
        lines.join("\n")
    }
}

impl Member {
    fn shown(&self) -> String {
        let name = format!("    {} ({})", clean_short(&self.label, 40), &self.id.to_string()[..8]);
        match &self.expected {
            Expected::Differs(findings) => {
                let mut lines = vec![format!("{name} in {} events", findings.len())];
                lines.extend(
                    findings
                        .iter()
                        .take(SHOWN)
                        .map(|finding| format!("      {}", clean_short(&finding.to_string(), 240))),
                );
                if findings.len() > SHOWN {
                    lines.push(format!("      ... and {} more", findings.len() - SHOWN));
                }
                lines.join("\n")
            }
            Expected::Unknown(why) => format!("{name}: {}", clean_short(why, 200)),
            Expected::Booted | Expected::Same => name,
        }
    }
}

/// What the group is to learn.
struct Listing<'a> {
    signing: &'a SigningContext<'a>,
    group: &'a str,
    policy: &'a Policy,
    learned: Vec<Rule>,
}

impl Listing<'_> {
    fn client(&self) -> &Client {
        &self.signing.client
    }

    /// `None` for a node that the group's policy does not govern.
    fn member(&self, id: NodeId, own: Option<&[Finding]>) -> Result<Option<Member>> {
        let unknown = |label: &str, why: String| {
            Some(Member { id, label: label.to_owned(), expected: Expected::Unknown(why) })
        };
        let about = |error: Error| trial::about_one(self.client(), error).map(|error| clean(&error.message));
        let judged = match self.client().node_policy(id) {
            Ok(judged) => judged,
            Err(error) => return Ok(unknown("", about(error)?)),
        };
        let own_policy = |scope: &str| scope == Scope::Node(id).to_string();
        if judged.policy.as_ref().is_some_and(|record| own_policy(&record.summary.scope)) {
            return Ok(None);
        }
        if !trial::is_member(self.signing, id, self.group, judged.membership.as_ref()) {
            return Ok(unknown(
                "",
                "nothing that this workstation's key has signed says that it is a member".to_owned(),
            ));
        }
        let record = match self.client().node(id) {
            Ok(record) => record,
            Err(error) => return Ok(unknown("", about(error)?)),
        };
        let label = record.summary.label.clone();
        let expected = match self.last(id, &record, |_| true) {
            Ok(None) => Expected::Unknown("it has no recorded boot".to_owned()),
            Ok(Some(found)) => expected(found, own),
            Err(error) => Expected::Unknown(about(error)?),
        };
        Ok(Some(Member { id, label, expected }))
    }

    /// In what a node's last recorded boot differs from the listing; `None` if there is no such boot.
    fn last(
        &self,
        id: NodeId,
        record: &NodeRecord,
        wanted: impl Fn(&halfkey_protocol::wire::operator::EvidenceSummary) -> bool,
    ) -> Result<Option<Vec<Finding>>> {
        let Some(number) = boot::find_last(self.client(), id, wanted)? else { return Ok(None) };
        let attester = Attester::of(id, record, &self.signing.key)?;
        attester.require_mine()?;
        let boot = attester.boot(self.client(), number)?;
        // What the node may have besides is no difference.
        let judged = self.client().node_policy(id)?;
        let additions = judged
            .additions
            .map(|record| {
                let own = SignedByUs::check(&record.signed, &Scope::Additions(id), &self.signing.key)?;
                Source::from(&own).additions()
            })
            .transpose()?;
        let policy = additions.map_or_else(|| self.policy.clone(), |additions| self.policy.with(&additions));
        // Without a [[boot]] to compare with it is the whole policy that says what is to be expected.
        let policy = if self.learned.is_empty() { policy } else { policy.with_only(&self.learned) };
        Ok(Some(boot.by(&policy)?.findings))
    }
}

/// `own`: in what the node's own earlier boot differed from what it has booted now. That is what the update changes.
fn expected(found: Vec<Finding>, own: Option<&[Finding]>) -> Expected {
    if found.is_empty() {
        return Expected::Booted;
    }
    let same = |one: &Finding, other: &Finding| {
        (one.pcr, &one.what, &one.rule, &one.expected, &one.found)
            == (other.pcr, &other.what, &other.rule, &other.expected, &other.found)
    };
    let own = own.unwrap_or_default();
    let others: Vec<_> =
        found.into_iter().filter(|finding| !own.iter().any(|known| same(known, finding))).collect();
    if others.is_empty() { Expected::Same } else { Expected::Differs(others) }
}

/// The policy that the group's boots are judged by now, if it is the group's that governs the node.
///
/// # Errors
/// When a document of this workstation can't be read any more.
pub fn governing(governed: &Governed) -> Result<Option<(String, Policy)>> {
    match (&governed.group, &governed.policy) {
        (Some(group), Some(own)) if *own.scope() == Scope::Group(group.clone()) => {
            Ok(Some((group.clone(), Source::from(own).policy()?)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(what: &str, found: &str) -> Finding {
        Finding {
            pcr: Some(9),
            event: Some(1),
            what: what.to_owned(),
            rule: "boot \"x\" event 1".to_owned(),
            expected: "e".to_owned(),
            found: found.to_owned(),
            hint: None,
        }
    }

    #[test]
    fn only_what_differed_before_will_differ() {
        let (config, kernel) = (finding("/grub.cfg", "old"), finding("/vmlinuz", "old"));
        let own = [config.clone(), kernel.clone()];
        assert!(matches!(expected(vec![], Some(&own)), Expected::Booted));
        // At another place of the log, or only a part of it.
        let moved = Finding { event: Some(7), ..config.clone() };
        assert!(matches!(expected(vec![moved], Some(&own)), Expected::Same));
        let other = finding("/grub.cfg", "another machine's");
        for (own, left) in [(Some(&own[..]), 1), (None, 2)] {
            match expected(vec![other.clone(), kernel.clone()], own) {
                Expected::Differs(found) => assert_eq!((found.len(), &found[0]), (left, &other)),
                _ => panic!("it differs"),
            }
        }
    }
}
