//! Durations as people write them: `500ms`, `15s`, `5m`, `1h`.

use std::time::Duration;

/// What every message about a bad duration ends with.
pub(super) const FORM: &str = "a whole number and a unit: 500ms, 15s, 5m or 1h";

/// The regular expression editors check with.
pub(super) const PATTERN: &str = "^[0-9]{1,9}(ms|s|m|h)$";

/// Reads a duration; none if it is not of the [`FORM`], or longer than nine digits.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|n| (1..=9).contains(n))?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number * millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_units_and_nothing_else() {
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("15s"), Some(Duration::from_secs(15)));
        assert_eq!(parse("5m"), Some(Duration::from_secs(300)));
        assert_eq!(parse("2h"), Some(Duration::from_secs(7200)));
        for bad in ["", "15", "s", "-1s", "1.5s", "15 s", "15S", "1d", "9999999999s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
