//! `halfkey login` and `key`: the operator bundle, and the tenant key.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::bundle::{Bundle, MAX_BUNDLE};
use crate::render::text::clean;
use serde::Serialize;
use std::fs;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

/// `halfkey login --json`.
#[derive(Serialize)]
struct LoggedIn<'a> {
    operator: &'a str,
    servers: &'a [String],
    home: &'a Path,
    tenant_key: String,
}

/// `halfkey key --json`.
#[derive(Serialize)]
struct Fingerprint {
    tenant_key: String,
}

/// Imports a bundle; creates the tenant key if there is none.
///
/// # Errors
/// `Failed` when the bundle or the home folder can't be used, or another server's bundle is there.
pub fn login(context: &Context, path: &Path, replace: bool) -> Result<()> {
    let fail = |e| {
        Error::failed(format!("can't read {}: {e}", path.display()))
            .hint("give the file operator-NAME.bundle that `halfkey-verifier init` made")
    };
    let file = fs::File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    let mut json = Zeroizing::new(Vec::with_capacity(size.min(MAX_BUNDLE) as usize + 1));
    file.take(MAX_BUNDLE + 1).read_to_end(&mut json).map_err(fail)?;
    if json.len() as u64 > MAX_BUNDLE {
        return Err(Error::failed(format!(
            "{} is larger than {MAX_BUNDLE} bytes: not a bundle",
            path.display()
        )));
    }
    let bundle = Bundle::parse(&json)?;
    context.home.import(&bundle, replace)?;
    let (key, new) = context.home.tenant_key_or_new()?;
    if new {
        context.out.note(&format!(
            "created the tenant key: back up {}, nodes must be enrolled again without it",
            context.home.path().join("tenant.key").display()
        ));
    }
    context.out.note(&format!("imported; {} holds a private key and is no longer needed", path.display()));
    let result = LoggedIn {
        operator: &bundle.name,
        servers: &bundle.servers,
        home: context.home.path(),
        tenant_key: key.fingerprint(),
    };
    context.out.value(&result, || {
        format!(
            "operator    {}\nservers     {}\ntenant key  {}",
            clean(&bundle.name),
            bundle.servers.join(", "),
            result.tenant_key
        )
    })
}

/// Prints the fingerprint of the tenant key.
///
/// # Errors
/// `Failed` when there is none.
pub fn key(context: &Context) -> Result<()> {
    let result = Fingerprint { tenant_key: context.home.tenant_key()?.fingerprint() };
    context.out.value(&result, || result.tenant_key.clone())
}
