//! Seconds since 1970, UTC, as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now. 0 on a machine whose clock is before 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 3339, UTC, to the second: `2026-11-21T22:00:59Z`. Years above 9999 get the digits they need.
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// How long ago, or until: `just now`, `3 min ago`, `in 2 h`. One unit is enough.
pub fn relative(now: u64, then: u64) -> String {
    let distance = now.abs_diff(then);
    let amount = match distance {
        0..5 => return "just now".to_owned(),
        5..120 => format!("{distance} s"),
        120..7200 => format!("{} min", distance / 60),
        7200..172_800 => format!("{} h", distance / 3600),
        _ => format!("{} d", distance / 86_400),
    };
    if then > now { format!("in {amount}") } else { format!("{amount} ago") }
}

/// Both: `2026-11-21T22:00:59Z (3 min ago)`.
pub fn both(now: u64, then: u64) -> String {
    format!("{} ({})", rfc3339(then), relative(now, then))
}

/// Days since 1970-01-01 to a date of the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of its year; an era is 400 years, 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_that_calendars_get_wrong() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_298_459, "2026-11-21T22:00:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn distances_have_one_unit() {
        assert_eq!(relative(100, 98), "just now");
        assert_eq!(relative(1000, 900), "100 s ago");
        assert_eq!(relative(1000, 1600), "in 10 min");
        assert_eq!(relative(100_000, 0), "27 h ago");
        assert_eq!(relative(1_000_000, 0), "11 d ago");
    }

    proptest! {
        #[test]
        fn any_time_has_a_text(now: u64, then: u64) {
            rfc3339(then);
            relative(now, then);
        }

        #[test]
        fn later_is_greater(a in 0u64..253_402_300_799, b in 0u64..253_402_300_799) {
            prop_assert_eq!(a.cmp(&b), rfc3339(a).cmp(&rfc3339(b)));
        }
    }
}
