//! Room among the registrations that no tenant enrolled.

use super::{By, Error, Result, TxView, audit};
use crate::limit::{Holder, Ranking, Room, Source};
use crate::store::SourceRow;
use halfkey_protocol::Reason;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// A registration that goes.
struct Gone {
    row: i64,
    /// Where it came from; none if that is no address.
    from: Option<Source>,
}

/// When `room` is full some records that no tenant enrolled go, one after the other: each time the oldest of the source that has most.
/// Software TPMs cost nothing, so refusing would let whoever makes enough of them keep every machine out.
///
/// # Errors
/// `RateLimited`: none can go.
pub(super) fn make(view: &TxView<'_>, room: &Room, now: u64) -> Result<()> {
    if room.take() {
        return Ok(());
    }
    let waiting = view.rows.unkept_registrations()?;
    let count = room.to_go(waiting);
    let gone = if count == 0 { Vec::new() } else { oldest(view, count, now)? };
    if count > 0 && gone.is_empty() {
        let what = format!("{waiting} nodes wait for a tenant, at most {} may", room.most());
        return Err(Error::Refused(Reason::RateLimited, what));
    }
    view.rows.delete_unkept(&gone.iter().map(|gone| gone.row).collect::<Vec<_>>())?;
    let mut left = waiting;
    for gone in gone {
        let (site, which) = match gone.from {
            Some(source) => (source.site(), format!("the oldest from {}, which has most,", source.site())),
            None => ("nowhere".to_owned(), "one from no address".to_owned()),
        };
        let detail = format!("{left} nodes wait for a tenant: {which} was forgotten");
        audit::count(view, By { actor: "verifier", now }, "evict", &site, None, &detail)?;
        left = left.saturating_sub(1);
    }
    room.counted(left);
    Ok(())
}

/// Which go if `count` do. All sources are looked at once, and of those that lose one their `count` oldest rows.
fn oldest(view: &TxView<'_>, count: u64, now: u64) -> Result<Vec<Gone>> {
    let sources = view.rows.unkept_by_source()?;
    let address = |row: &SourceRow| row.source.parse::<IpAddr>().ok().map(Source::from);
    let enough = usize::try_from(count).unwrap_or(usize::MAX);
    let idle = |seen: u64| Duration::from_secs(now.saturating_sub(seen));
    // What came from nowhere, this server did not write.
    let nowhere = sources.iter().filter(|row| address(row).is_none()).take(enough);
    let mut gone: Vec<Gone> = nowhere.map(|row| Gone { row: row.oldest_row, from: None }).collect();

    let mut ranking = Ranking::default();
    for (row, id) in sources.iter().zip(0..) {
        if let Some(source) = address(row) {
            ranking.insert(Holder { id, source, weight: row.count, idle: idle(row.oldest) });
        }
    }
    let mut going: HashSet<i64> = gone.iter().map(|gone| gone.row).collect();
    // Of a source that has lost one: the row that goes next, and those after it.
    let mut next: HashMap<u64, (i64, std::vec::IntoIter<(u64, i64)>)> = HashMap::new();
    while gone.len() < enough
        && let Some(holder) = ranking.pop()
    {
        let Some(from) = usize::try_from(holder.id).ok().and_then(|id| sources.get(id)) else { continue };
        let (row, mut after) = match next.remove(&holder.id) {
            Some(next) => next,
            None if holder.weight > 1 && gone.len() + 1 < enough => {
                (from.oldest_row, view.rows.oldest_unkept(&from.source, count)?.into_iter())
            }
            None => (from.oldest_row, Vec::new().into_iter()),
        };
        if going.insert(row) {
            gone.push(Gone { row, from: Some(holder.source) });
        }
        if let Some((seen, row)) = after.find(|(_, row)| !going.contains(row)) {
            next.insert(holder.id, (row, after));
            let weight = holder.weight.saturating_sub(1);
            ranking.insert(Holder { weight, idle: idle(seen), ..holder });
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use crate::domain::{Answered, Error, NewRegistration, Records, Which};
    use crate::keys::ClusterKey;
    use crate::limit::{Holder, Room, Source, first_to_go};
    use crate::store::memory::Memory;
    use crate::store::{Changes, RegistrationRow, Store as _, Then};
    use halfkey_protocol::wire::Register;
    use halfkey_protocol::{NodeId, Reason};
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::time::Duration;

    fn node(number: u64) -> NodeId {
        NodeId(u128::from(number).to_be_bytes())
    }

    /// The registration of this number, at this time.
    fn new(number: u64, from: &str) -> NewRegistration {
        NewRegistration {
            node: node(number),
            ak_name: vec![1],
            srk_name: vec![2],
            register: Register {
                versions: vec![1],
                ek_public: vec![3].into(),
                ek_certificate: None,
                ek_chain: Vec::new(),
                ak_public: vec![4].into(),
                srk_public: vec![5].into(),
                certify_info: Vec::new().into(),
                certify_signature: Vec::new().into(),
                label: "web".into(),
            },
            answered: Answered { issued: number, challenge: [9; 32] },
            source: Source::from(from.parse::<IpAddr>().unwrap()),
        }
    }

    /// Who is left.
    fn left(records: &Records) -> Vec<String> {
        let lines = records.registrations(&Which::After(None), u64::MAX).unwrap();
        lines.into_iter().map(|line| line.node_id).collect()
    }

    #[test]
    fn those_go_that_would_have_gone_one_by_one() {
        const MOST: u64 = 512;
        let rows = Arc::new(Memory::default());
        let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
        // Four parts: each count makes room for four.
        let room = Room::new(MOST);
        let address = |number: u64| match number % 7 {
            0 | 1 => format!("192.0.2.{}", number % 5),
            2 => "2001:db8:1::1".to_owned(),
            _ => format!("2001:db8:2:{:x}::1", number % 11),
        };
        let mut expected: Vec<(u64, Source)> = Vec::new();
        for number in 1..MOST + 41 {
            let new = new(number, &address(number));
            if expected.len() as u64 == MOST {
                for _ in 0..4 {
                    let holders = expected.iter().map(|(seen, source)| {
                        let idle = Duration::from_secs(number - seen);
                        Holder { id: *seen, source: *source, weight: 1, idle }
                    });
                    let gone = first_to_go(holders.collect()).unwrap();
                    expected.retain(|(seen, _)| *seen != gone);
                }
            }
            expected.push((number, Source::from(new.source.host())));
            records.save_registration(&new, &room, number).unwrap();
        }
        let expected: Vec<_> = expected.iter().map(|(number, _)| node(*number).to_string()).collect();
        assert_eq!(left(&records), expected);
        let mut evicted = 0;
        rows.read(&mut |tx| {
            let counts = tx.counts_before(u64::MAX).unwrap();
            evicted = counts.iter().filter(|row| row.action == "evict").map(|row| row.count).sum();
        })
        .unwrap();
        assert_eq!(evicted, 40, "each is counted");
    }

    #[test]
    fn one_more_costs_the_same_however_many_there_are() {
        for most in [1024, 4096] {
            let rows = Arc::new(Memory::default());
            let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
            records.save_registration(&new(1, "192.0.2.1"), &Room::new(most), 1).unwrap();
            rows.write(Changes::Rows, &mut |tx| {
                let first = tx.registration(node(1)).unwrap().unwrap();
                for number in 2..=most {
                    let (network, host) = (number % 5, number % 200);
                    let row = RegistrationRow {
                        node: node(number),
                        source: format!("10.0.{network}.{host}"),
                        last_seen: number,
                        ..first.clone()
                    };
                    tx.put_registration(&row).unwrap();
                }
                Then::Commit
            })
            .unwrap();
            let (before, room, come) = (rows.looked_at(), Room::new(most), most / 64);
            for number in most + 1..=most + come {
                records.save_registration(&new(number, "192.0.2.9"), &room, number).unwrap();
            }
            assert_eq!(left(&records).len() as u64, most);
            let each = (rows.looked_at() - before) / come;
            assert!(each < 3 * 128, "{each} rows for each that comes to {most}");
        }
    }

    #[test]
    fn what_a_tenant_enrolled_makes_no_room() {
        let rows = Arc::new(Memory::default());
        let records = Records::over(rows.clone(), ClusterKey::from_bytes(&[1; 32])).unwrap();
        let room = Room::new(0);
        let refused = records.save_registration(&new(1, "192.0.2.1"), &room, 1);
        assert!(matches!(refused, Err(Error::Refused(Reason::RateLimited, _))), "{refused:?}");
        let room = Room::new(1);
        records.save_registration(&new(1, "192.0.2.1"), &room, 1).unwrap();
        records.keep_registration(node(1)).unwrap();
        for number in 2..5 {
            records.save_registration(&new(number, "192.0.2.2"), &room, number).unwrap();
        }
        assert_eq!(left(&records), [node(1).to_string(), node(4).to_string()]);
        // One that names no address goes before all others.
        let room = Room::new(3);
        for number in 5..7 {
            records.save_registration(&new(number, "192.0.2.3"), &room, number).unwrap();
        }
        rows.write(Changes::Rows, &mut |tx| {
            let row = tx.registration(node(6)).unwrap().unwrap();
            tx.put_registration(&RegistrationRow { source: "x".into(), ..row }).unwrap();
            Then::Commit
        })
        .unwrap();
        records.save_registration(&new(7, "192.0.2.9"), &room, 7).unwrap();
        assert_eq!(left(&records), [1, 4, 5, 7].map(|number| node(number).to_string()));
    }
}
