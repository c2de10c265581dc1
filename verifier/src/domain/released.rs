//! The boot that was released last to an enrollment: what a proposal may come from.

use super::model::ReleasedBoot;
use super::{Result, TxView, seal};
use crate::store::ReleasedRow;
use halfkey_protocol::NodeId;

/// Records it.
///
/// # Errors
/// When the database can't be written.
pub fn record(view: &TxView<'_>, node: NodeId, enrollment: &str, boot: &ReleasedBoot) -> Result<()> {
    let mut row = ReleasedRow::from(boot);
    row.tag = Some(
        with_fields(node, enrollment, &row, |fields| seal::tag(view.key, seal::Kind::Released, fields))
            .to_vec(),
    );
    Ok(view.rows.set_released(enrollment, &row)?)
}

/// None if this server did not record it so: nothing is proposed from a boot that nobody released, and the next release mends the row.
pub fn read(view: &TxView<'_>, node: NodeId, enrollment: &str, row: ReleasedRow) -> Option<ReleasedBoot> {
    let found = row.tag.as_deref();
    let ours = with_fields(node, enrollment, &row, |fields| {
        seal::is_ours(view.key, seal::Kind::Released, fields, found)
    });
    if !ours {
        tracing::error!(
            %node,
            "the database was changed beside this server: table enrollments, {enrollment:.64}: a release that was none"
        );
    }
    ours.then(|| row.into())
}

/// Gives a row the tag by the key in use; whether that was to be done.
///
/// # Errors
/// When the database can't be written.
pub fn renew(view: &TxView<'_>, node: NodeId, enrollment: &str, mut row: ReleasedRow) -> Result<bool> {
    let renewed =
        |fields: &[&[u8]]| seal::renewed(view.key, seal::Kind::Released, fields, row.tag.as_deref());
    let Some(tag) = with_fields(node, enrollment, &row, renewed) else { return Ok(false) };
    row.tag = Some(tag.to_vec());
    view.rows.set_released(enrollment, &row)?;
    Ok(true)
}

fn with_fields<T>(node: NodeId, enrollment: &str, row: &ReleasedRow, tell: impl FnOnce(&[&[u8]]) -> T) -> T {
    let ReleasedRow { evidence, reset, restart, fence, boot, proposal, base, twin: _, tag: _ } = row;
    let known = |there: bool| [u8::from(there)];
    tell(&[
        &node.0,
        enrollment.as_bytes(),
        &evidence.to_be_bytes(),
        &reset.to_be_bytes(),
        &restart.to_be_bytes(),
        fence,
        &known(boot.is_some()),
        boot.as_deref().unwrap_or_default().as_bytes(),
        &known(proposal.is_some()),
        &proposal.unwrap_or_default().to_be_bytes(),
        &known(base.is_some()),
        base.as_deref().unwrap_or_default().as_bytes(),
    ])
}
