//! `halfkey policy predict --db`, `--kek`: what firmware's lists of keys will have besides.

use crate::ask::confirm;
use crate::cli::PredictArgs;
use crate::commands::policy::apply;
use crate::context::Context;
use crate::documents::change::PolicyChange;
use crate::documents::draft::Gain;
use crate::documents::signing::SigningContext;
use crate::documents::source::{self, Source};
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render::text::clean;
use halfkey_evidence::eventlog::signature_file::{EXPECTED, SignatureFile};
use halfkey_evidence::policy::{KeyList, KeyUpdate, Policy};
use halfkey_protocol::wire::policies::PolicyRecord;
use serde::Serialize;
use std::path::Path;

/// The whole of db in a PC has some ten kB, with all hashes that a vendor ever put there less than this.
const MAX_FILE: u64 = 1 << 20;

/// `halfkey policy predict --db --json`.
#[derive(Serialize)]
pub struct PredictedKeys {
    /// What the policy does not list; of the files all of it, if there is no policy.
    pub entries: Vec<Entry>,
    /// `[secure_boot]` with them; none if nothing is new.
    pub block: Option<String>,
    /// What it means.
    pub warnings: Vec<String>,
    /// The policy that they were added to.
    pub applied: Option<PolicyRecord>,
}

/// An entry.
#[derive(Serialize)]
pub struct Entry {
    /// `kek`, `db` or `authorities`.
    pub list: &'static str,
    /// As a policy lists it.
    pub entry: String,
    /// What it is, by its own word.
    pub what: String,
}

/// Reads, prints, and perhaps adds.
///
/// # Errors
/// `Usage` for files that can't be used; `Failed` when the answer is no.
pub fn run(context: &Context, args: &PredictArgs) -> Result<()> {
    if !args.add {
        let predicted = predicted(&Gain::of_keys(read(args, None)?, None));
        return context.out.value(&predicted, || shown(&predicted));
    }
    let signing = SigningContext::open(context)?;
    let head = signing.head()?;
    let own = super::target(&signing, args)?;
    let policy = Source::from(&own).policy()?;
    let gain = Gain::of_keys(read(args, Some(&policy))?, Some(&policy));
    let mut predicted = predicted(&gain);
    if !gain.keys.is_empty() {
        let change = PolicyChange::gaining(&signing, own, &gain)?;
        context.out.note(&format!("{}\n\n{}", gain.shown(), change.summary()));
        trial::warn(context, &trial::of_scope(&signing, &change.scope, change.policy())?);
        if !args.yes {
            confirm(&format!("Sign this as {}?", change.scope))?;
        }
        predicted.applied = Some(change.submit(&signing, head)?);
    }
    context.out.value(&predicted, || match &predicted.applied {
        Some(record) => apply::applied(record),
        None => "nothing to add: the policy lists all of it already".to_owned(),
    })
}

fn read(args: &PredictArgs, policy: Option<&Policy>) -> Result<KeyUpdate> {
    let mut update = KeyUpdate::default();
    let mut take = |lists: &[KeyList], path: &Path| -> Result<()> {
        let name = path.display();
        let bytes = source::read(path, MAX_FILE)?;
        let file = SignatureFile::parse(&bytes).ok_or_else(|| {
            let hint = match bytes.starts_with(b"MSCF") {
                true => "it is a cabinet, as fwupd has them: unpack it, and give what is in it",
                false => "give the file that the firmware or fwupd installs, or the certificate itself",
            };
            Error::usage(format!("{name}: expected {EXPECTED}, found something else")).hint(hint)
        })?;
        for (signature, list) in
            file.signatures().flat_map(|signature| lists.iter().map(move |list| (signature, *list)))
        {
            update.add(policy, list, &signature).map_err(|what| {
                Error::usage(format!(
                    "{name}: expected what a policy can list in {}, found {}",
                    list.key(),
                    clean(&what)
                ))
            })?;
        }
        Ok(())
    };
    let db: &[KeyList] = if args.authority { &[KeyList::Db, KeyList::Authorities] } else { &[KeyList::Db] };
    args.files.kek.iter().try_for_each(|path| take(&[KeyList::Kek], path))?;
    args.files.db.iter().try_for_each(|path| take(db, path))?;
    Ok(update)
}

fn predicted(gain: &Gain) -> PredictedKeys {
    let entries = gain.keys.entries().iter().map(|entry| Entry {
        list: entry.list.key(),
        entry: entry.is.to_string(),
        what: entry.what.clone(),
    });
    PredictedKeys {
        entries: entries.collect(),
        block: (!gain.keys.is_empty()).then(|| gain.keys.to_string()),
        warnings: gain.warnings().to_vec(),
        applied: None,
    }
}

/// Lines for `[secure_boot]` of a policy, with comments of what they mean.
fn shown(predicted: &PredictedKeys) -> String {
    let block = predicted.block.as_deref().unwrap_or_default();
    let warnings = predicted.warnings.iter().map(|warning| format!("# warning: {}\n", clean(warning)));
    format!("{}{}", warnings.collect::<String>(), block)
}
