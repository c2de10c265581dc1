//! `[trust_root_with_next_boot]`

use super::reader::{At, Problems, Table};
use crate::policy::rules::Trust;
use toml::de::DeValue;
use toml::value::{Datetime, Offset};

pub(super) fn trust(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Trust> {
    let mut table = table.table("trust_root_with_next_boot", problems)?;
    let until = table.value("until");
    let seconds = until.and_then(|value| match value.get_ref() {
        DeValue::Datetime(time) => unix_seconds(time),
        _ => None,
    });
    if seconds.is_none() {
        let at = until.map_or(table.at, |value| value.span().start);
        problems.push(
            at,
            format!("{}: expected a time with its zone, as 2026-12-31T00:00:00Z", table.name("until")),
        );
    }
    let count = table.integer("count", problems);
    let count = match &count {
        Some(At { value: 1..=1000, .. }) => count.map(|count| count.value as u32),
        other => {
            let at = other.as_ref().map_or(table.at, |count| count.at);
            problems.push(at, format!("{}: expected 1 to 1000", table.name("count")));
            None
        }
    };
    table.finish(problems);
    Some(Trust { until: seconds?, count: count? })
}

/// Seconds since 1970; none without a date, a time of day and a zone, or before 1970.
fn unix_seconds(time: &Datetime) -> Option<u64> {
    let (date, clock, offset) = (time.date?, time.time?, time.offset?);
    // Days of the civil calendar, counted in years that begin in March.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_era =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + i64::from(date.day) - 1;
    let days = day_of_era - 719_468;
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let second = i64::from(clock.second.unwrap_or(0));
    let seconds =
        days * 86_400 + i64::from(clock.hour) * 3600 + i64::from(clock.minute) * 60 + second - minutes * 60;
    u64::try_from(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-12-31T00:00:00Z", Some(1_798_675_200)),
            ("2026-12-31T01:30:00+01:30", Some(1_798_675_200)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-12-31T00:00:00", None),
            ("2026-12-31", None),
        ] {
            let time = text.parse().expect("a time");
            assert_eq!(unix_seconds(&time), seconds, "{text}");
        }
    }
}
