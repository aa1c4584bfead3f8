//! Numbers as a person reads them.

use std::time::Duration;

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 photo`, `1,234 photos`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `640 bytes`, `1.2 GB`: powers of ten, as disks are sold.
pub(crate) fn bytes(number: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = number as f64 / 1000.0;
    if value < 1.0 {
        return counted(number, "byte", "bytes");
    }
    let mut unit = 0;
    // 999.95 would be shown as 1000.0
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `42 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// `3.2 a second`, or `7.5 a minute` where that says more.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 1.0 {
        format!("{per_second:.1} a second")
    } else {
        format!("{:.1} a minute", per_second * 60.0)
    }
}

/// `81 %` of `total`, rounded down so that 100 % is all of it; all of nothing is 100 %.
pub(crate) fn percent(part: u64, total: u64) -> String {
    let part = u128::from(part.min(total)) * 100;
    format!("{} %", part.checked_div(u128::from(total)).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "photo", "photos"), "1 photo");
    }

    #[test]
    fn bytes_get_a_fitting_unit() {
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(34_560_000_000), "34.6 GB");
    }

    #[test]
    fn durations_drop_what_does_not_matter() {
        assert_eq!(duration(Duration::from_millis(41_700)), "42 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7_500)), "2 h 05 min");
    }

    #[test]
    fn slow_rates_are_told_by_the_minute() {
        assert_eq!(rate(3.21), "3.2 a second");
        assert_eq!(rate(0.125), "7.5 a minute");
    }

    #[test]
    fn only_all_of_it_is_100_percent() {
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(1000, 1000), "100 %");
        assert_eq!(percent(0, 0), "100 %");
    }
}
