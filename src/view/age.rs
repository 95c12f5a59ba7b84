//! Times as kubectl writes them: two units at most, the coarser the longer.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The age of something created then, or `<unknown>`.
pub(crate) fn age(created: Option<&Time>, now: Timestamp) -> String {
    created.map_or_else(
        || "<unknown>".to_owned(),
        |created| human(now.duration_since(created.0)),
    )
}

/// A time as kubectl writes it (apimachinery, `duration.HumanDuration`): `59s`, `2m5s`, `3h20m`, `2d4h`, `7d`, `2y35d`.
///
/// Up to a second in the future counts as now, since clocks differ; more is `<invalid>`.
pub(crate) fn human(time: SignedDuration) -> String {
    let (seconds, minutes, hours) = (time.as_secs(), time.as_mins(), time.as_hours());
    let (days, years) = (hours / 24, hours / (24 * 365));
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 3 * 60 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

fn two(coarse: i64, coarse_unit: &str, fine: i64, fine_unit: &str) -> String {
    match fine {
        0 => format!("{coarse}{coarse_unit}"),
        _ => format!("{coarse}{coarse_unit}{fine}{fine_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubectl_writes_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        const YEAR: i64 = 365 * DAY;
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (2 * MINUTE + 3, "2m3s"),
            (10 * MINUTE + 1, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 20 * MINUTE + 59, "3h20m"),
            (8 * HOUR + 20 * MINUTE, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 4 * HOUR, "2d4h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 35 * DAY, "2y35d"),
            (8 * YEAR + 35 * DAY, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(
                human(SignedDuration::from_secs(seconds)),
                text,
                "{seconds} s"
            );
        }
    }

    #[test]
    fn a_second_and_a_half_in_the_future_is_now() {
        assert_eq!(human(SignedDuration::from_millis(-1500)), "0s");
    }
}
