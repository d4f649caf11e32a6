//! Quiet hours, as people write them: `22:00-07:00`.

use std::fmt;
use std::str::FromStr;

use crate::failure::Failure;

/// Minutes of a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;

/// A range of a day's minutes, from its start to just before its end; it may go across midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuietRange {
    start: u16,
    /// Never the same as the start.
    end: u16,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuietError {
    /// It is something else.
    #[error("{0:?} is not a range of quiet hours: write two times of day, as in \"22:00-07:00\"")]
    Form(String),
    /// It begins where it ends.
    #[error(
        "the quiet hours {0:?} begin where they end, which may mean never or always: take them out, or give them an end"
    )]
    Empty(String),
}

impl QuietRange {
    /// Whether a minute of the day is in it.
    pub(crate) fn holds(self, minute: u16) -> bool {
        if self.start < self.end {
            (self.start..self.end).contains(&minute)
        } else {
            minute >= self.start || minute < self.end
        }
    }

    /// How long it is, in minutes.
    fn minutes(self) -> u16 {
        (self.end + DAY_MINUTES - self.start) % DAY_MINUTES
    }

    /// Two ranges that have a minute in common: then one of them begins in the other.
    fn meets(self, other: Self) -> bool {
        self.holds(other.start) || other.holds(self.start)
    }
}

impl FromStr for QuietRange {
    type Err = QuietError;

    fn from_str(text: &str) -> Result<Self, QuietError> {
        let form = || QuietError::Form(text.chars().take(80).collect());
        let (start, end) = text.split_once('-').ok_or_else(form)?;
        let start = minute(start)
            .filter(|start| *start < DAY_MINUTES)
            .ok_or_else(form)?;
        // 24:00 is how people write the end of a day.
        let end = minute(end).ok_or_else(form)? % DAY_MINUTES;
        match start == end {
            true => Err(QuietError::Empty(text.to_owned())),
            false => Ok(Self { start, end }),
        }
    }
}

/// `HH:MM` as a minute of the day, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str, most: u16| -> Option<u16> {
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && *number <= most)
    };
    let minute = number(hours, 24)? * 60 + number(minutes, 59).filter(|_| minutes.len() == 2)?;
    (minute <= DAY_MINUTES).then_some(minute)
}

impl fmt::Display for QuietRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.start), time(self.end))
    }
}

/// Whether ranges make sense together.
///
/// # Errors
/// Two of them overlap, or all of them leave no minute of the day.
pub(super) fn check(ranges: &[QuietRange]) -> Result<(), Failure> {
    for (index, range) in ranges.iter().enumerate() {
        if let Some(other) = ranges[..index].iter().find(|other| range.meets(**other)) {
            let message = format!("the `quiet_hours` {other} and {range} overlap");
            return Err(Failure::config(message).help("write them as one range"));
        }
    }
    let quiet: u16 = ranges.iter().map(|range| range.minutes()).sum();
    if quiet >= DAY_MINUTES {
        let message = "the `quiet_hours` leave no minute of the day: this host would never do anything";
        return Err(Failure::config(message).help("shorten one of the ranges, or do not run the host"));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(texts: &[&str]) -> Vec<QuietRange> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_may_cross_midnight() {
        let night: QuietRange = "22:00-07:00".parse().unwrap();
        for (time, quiet) in [
            (21 * 60 + 59, false),
            (22 * 60, true),
            (0, true),
            (419, true),
            (420, false),
        ] {
            assert_eq!(night.holds(time), quiet, "{time}");
        }
        let evening: QuietRange = " 8:30 - 24:00 ".trim().parse().unwrap();
        assert_eq!(evening.to_string(), "08:30-00:00");
        assert!(evening.holds(DAY_MINUTES - 1) && !evening.holds(0));
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            "",
            "22:00",
            "22-7",
            "25:00-26:00",
            "24:00-07:00",
            "22:60-23:00",
            "a:b-c:d",
            "22:5-23:00",
            "24:01-1:00",
            "+1:00-2:00",
        ] {
            let error = bad.parse::<QuietRange>().unwrap_err();
            assert!(matches!(error, QuietError::Form(_)), "{bad}: {error}");
        }
        let error = "07:00-07:00".parse::<QuietRange>().unwrap_err().to_string();
        assert!(error.contains("never or always"), "{error}");
    }

    #[test]
    fn ranges_that_overlap_or_leave_nothing_are_contradictions() {
        assert!(check(&ranges(&["22:00-24:00", "00:00-07:00", "12:00-13:00"])).is_ok());
        let error = check(&ranges(&["22:00-07:00", "06:59-08:00"])).unwrap_err();
        assert!(
            error.message.contains("22:00-07:00 and 06:59-08:00 overlap"),
            "{error}"
        );
        let error = check(&ranges(&["07:00-12:00", "12:00-07:00"])).unwrap_err();
        assert!(error.message.contains("no minute of the day"), "{error}");
    }

    proptest! {
        /// A range and what is left of the day are each other's opposite, and a text says the same.
        #[test]
        fn a_range_and_the_rest_make_a_day(start in 0..DAY_MINUTES, end in 0..DAY_MINUTES, at in 0..DAY_MINUTES) {
            prop_assume!(start != end);
            let (range, rest) = (QuietRange { start, end }, QuietRange { start: end, end: start });
            prop_assert_ne!(range.holds(at), rest.holds(at));
            prop_assert_eq!(range.minutes() + rest.minutes(), DAY_MINUTES);
            prop_assert!(!range.meets(rest) && range.meets(range));
            prop_assert_eq!(range.to_string().parse::<QuietRange>().unwrap(), range);
        }
    }
}
