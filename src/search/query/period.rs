//! Days, months and years as a query names them.

use std::fmt;

use jiff::civil::Date;

/// A year, month or day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
}

impl Period {
    /// Reads `2019`, `2019-07` or `2019-07-14`; `None` for anything else, and for days that
    /// no calendar has.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('-');
        let year = digits(numbers.next()?, 4)?;
        let month = numbers.next().map(|month| digits(month, 2).ok_or(())).transpose().ok()?;
        let day = numbers.next().map(|day| digits(day, 2).ok_or(())).transpose().ok()?;
        if numbers.next().is_some() {
            return None;
        }
        let (month, day) = (month.map(|it| it as i8), day.map(|it| it as i8));
        Date::new(year, month.unwrap_or(1), day.unwrap_or(1)).ok()?;
        Some(Self { year, month, day })
    }

    /// The first second of it, seconds since 1970-01-01 00:00:00 on the same clock.
    pub(super) fn begins(self) -> i64 {
        days_since_1970(self.year, self.month.unwrap_or(1), self.day.unwrap_or(1)) * 86_400
    }

    /// The first second that is no more of it.
    pub(super) fn ends(self) -> i64 {
        match (self.month, self.day) {
            (Some(_), Some(_)) => self.begins() + 86_400,
            (Some(month), None) if month < 12 => days_since_1970(self.year, month + 1, 1) * 86_400,
            // Computed, not looked up: the calendar here ends with the year 9999.
            _ => days_since_1970(self.year, 12, 31) * 86_400 + 86_400,
        }
    }
}

/// Days from 1970-01-01 to a day that [`Period::parse`] has checked.
fn days_since_1970(year: i16, month: i8, day: i8) -> i64 {
    let epoch = Date::constant(1970, 1, 1);
    let date = Date::new(year, month, day).unwrap_or(epoch);
    date.duration_since(epoch).as_secs() / 86_400
}

/// The number that exactly `count` ASCII digits write.
fn digits(text: &str, count: usize) -> Option<i16> {
    let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.year)?;
        for number in [self.month, self.day].into_iter().flatten() {
            write!(f, "-{number:02}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2019-01-01 00:00:00, counted by `date -u`.
    const NEW_YEAR_2019: i64 = 1_546_300_800;
    const DAY: i64 = 86_400;

    fn period(text: &str) -> Period {
        Period::parse(text).unwrap()
    }

    #[test]
    fn a_period_ends_where_the_next_begins() {
        assert_eq!(period("2019").begins(), NEW_YEAR_2019);
        assert_eq!(period("2019").ends(), NEW_YEAR_2019 + 365 * DAY);
        assert_eq!(period("2020").ends(), NEW_YEAR_2019 + (365 + 366) * DAY);
        assert_eq!(period("2019-01").ends(), NEW_YEAR_2019 + 31 * DAY);
        assert_eq!(period("2020-02").ends(), period("2020-03-01").begins());
        assert_eq!(period("2019-12").ends(), period("2020").begins());
        assert_eq!(period("2019-12-31").ends(), period("2020").begins());
        assert_eq!(period("9999-12-31").ends(), period("9999").ends());
        assert_eq!(period("1970").begins(), 0);
    }

    #[test]
    fn days_that_no_calendar_has_are_refused() {
        for text in ["2019-02-29", "2019-13", "2019-00", "2019-04-31", "2019-1-1", "19", "2019-"] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
        assert!(Period::parse("2020-02-29").is_some());
    }

    #[test]
    fn a_period_printed_reads_as_itself() {
        for text in ["2019", "0700-07", "2019-07-04"] {
            assert_eq!(period(text).to_string(), text);
        }
    }
}
