//! Sizes and times as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A number of bytes. In text: `65536`, `64KiB`, `64MiB`, `2GiB`, or with powers of ten `64MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A load per core, in thousandths: 500 is half of each core. In text: `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CoreLoad(pub(crate) u32);

/// Why a text is not a size or a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub(crate) struct UnitError {
    text: String,
    what: &'static str,
}

const SIZE: &str = "a size: write bytes, or a number with KiB, MiB, GiB, kB, MB or GB";
const TIME: &str = "a time: write a number with ms, s, m or h (seconds if there is none)";

const LOAD: &str = "a load per core: write a number above 0 and up to 100, as in 0.5";

impl FromStr for CoreLoad {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let load = text.trim().parse::<f64>().ok().and_then(Self::of);
        load.ok_or_else(|| refuse(text, LOAD))
    }
}

impl CoreLoad {
    fn of(load: f64) -> Option<Self> {
        let thousandths = (load * 1_000.0).round();
        // In this range it is a whole number of 32 bits.
        (1.0..=100_000.0)
            .contains(&thousandths)
            .then_some(Self(thousandths as u32))
    }
}

impl<'de> Deserialize<'de> for CoreLoad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let load = f64::deserialize(deserializer)?;
        Self::of(load).ok_or_else(|| serde::de::Error::custom(refuse(&load.to_string(), LOAD)))
    }
}

impl fmt::Display for CoreLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1_000.0)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || refuse(text, SIZE);
        let (number, unit) = split(text);
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(error()),
        };
        let number: u64 = number.replace('_', "").parse().map_err(|_| error())?;
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a number of bytes, or a text such as \"64MiB\""
        )]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let size = 1u64 << shift;
            if self.0 >= size {
                let whole = self.0 / size;
                return if self.0.is_multiple_of(size) {
                    write!(f, "{whole} {unit}")
                } else {
                    // One digit is enough for a person; `--json` has the exact number.
                    write!(f, "{whole}.{} {unit}", (self.0 % size) * 10 / size)
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A time: `500ms`, `30s`, `2m`, `1h`; seconds without a unit; fractions as in `1.5s`.
///
/// # Errors
/// [`UnitError`] for other texts, and for times beyond a year.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const SECONDS_MAX: f64 = 365.0 * 86_400.0;
    let error = || refuse(text, TIME);
    let (number, unit) = split(text);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(error()),
    };
    let seconds = number.parse::<f64>().map_err(|_| error())? * factor;
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(error())
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn refuse(text: &str, what: &'static str) -> UnitError {
    UnitError {
        text: text.chars().take(80).collect(),
        what,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("65_536", 65_536),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("5MB", 5_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap(), ByteSize(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5MiB", "64 mib", "99999999999GiB", "ä"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(64 << 20).to_string(), "64 MiB");
        assert_eq!(ByteSize(1_500).to_string(), "1.4 KiB");
    }

    #[test]
    fn loads() {
        for (text, thousandths) in [("0.5", 500), ("1", 1_000), ("0.001", 1), ("100", 100_000)] {
            assert_eq!(text.parse::<CoreLoad>().unwrap(), CoreLoad(thousandths), "{text}");
            assert_eq!(CoreLoad(thousandths).to_string(), text);
        }
        for bad in ["", "0", "-1", "0.0001", "101", "NaN", "inf", "half"] {
            assert!(bad.parse::<CoreLoad>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("30", 30_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "s", "-1s", "1d", "1e99", "9999999h", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
