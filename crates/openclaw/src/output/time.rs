//! Durations and moments as people say them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `3ms`, `1.2s`, `4m 10s`, `3h 5m`, `2d 1h`.
pub fn span(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    let pair = |large: u64, unit: char, small: u64, part: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{part}"),
    };
    match s {
        _ if ms < 1000 => format!("{ms}ms"),
        0..60 => format!("{}.{}s", s, (ms % 1000) / 100),
        60..3600 => pair(s / 60, 'm', s % 60, 's'),
        3600..86_400 => pair(s / 3600, 'h', s % 3600 / 60, 'm'),
        _ => pair(s / 86_400, 'd', s % 86_400 / 3600, 'h'),
    }
}

/// `just now`, `5m ago`, `in 4m`.
pub fn ago(then_ms: i64, now_ms: i64) -> String {
    let coarse = |ms: i64| {
        let s = ms / 1000;
        match s {
            0..60 => format!("{s}s"),
            60..3600 => format!("{}m", s / 60),
            3600..86_400 => format!("{}h", s / 3600),
            _ => format!("{}d", s / 86_400),
        }
    };
    match now_ms.saturating_sub(then_ms) {
        0..5000 => "just now".to_owned(),
        past @ 5000.. => format!("{} ago", coarse(past)),
        future => format!("in {}", coarse(future.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_say() {
        for (ms, expected) in [
            (3, "3ms"),
            (999, "999ms"),
            (1250, "1.2s"),
            (59_900, "59.9s"),
            (250_000, "4m 10s"),
            (1_800_000, "30m"),
            (11_100_000, "3h 5m"),
            (176_400_000, "2d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), expected);
        }
        for (then, expected) in [(0, "5m ago"), (299_000, "just now"), (540_000, "in 4m"), (-86_100_000 * 2, "1d ago")]
        {
            assert_eq!(ago(then, 300_000), expected);
        }
    }
}
