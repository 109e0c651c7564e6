//! What kinds of orders a load has.

/// Why an order of the load cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    Declined,
    Unserved,
    Unknown,
    Slow,
}

/// Percentages of each kind but the good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u64)>);

/// Reads `declined=5,unserved=10`.
pub(super) fn parse_mix(text: &str) -> Result<Mix, String> {
    let mut mix = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, percentage) = part.split_once('=').ok_or_else(|| format!("{part}: write name=percentage"))?;
        let kind = match name.trim() {
            "declined" => Kind::Declined,
            "unserved" => Kind::Unserved,
            "unknown" => Kind::Unknown,
            "slow" => Kind::Slow,
            other => return Err(format!("{other}: known are declined, unserved, unknown, slow")),
        };
        let percentage = percentage.trim().parse().ok().filter(|percentage| *percentage <= 100);
        let percentage = percentage.ok_or_else(|| format!("{part}: a percentage is a whole number from 0 to 100"))?;
        mix.push((kind, percentage));
    }
    let sum: u64 = mix.iter().map(|(_, percentage)| percentage).sum();
    if sum > 100 {
        return Err(format!("the percentages sum to {sum}; 100 is the most, the rest are good orders"));
    }
    Ok(Mix(mix))
}

impl Mix {
    /// The kind of order number `number`. Every hundred orders in a row have exactly the wanted numbers, spread out.
    pub(super) fn kind(&self, number: u64) -> Kind {
        // 37 has no factor in common with 100, so this visits every slot once.
        let slot = number * 37 % 100;
        let mut upper = 0;
        for (kind, percentage) in &self.0 {
            upper += percentage;
            if slot < upper {
                return *kind;
            }
        }
        Kind::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hundred_orders_have_the_wanted_mix() {
        let mix = parse_mix("declined=5,unserved=10").unwrap();
        let of = |kind| (300..400).filter(|number| mix.kind(*number) == kind).count();
        assert_eq!((of(Kind::Declined), of(Kind::Unserved), of(Kind::Good)), (5, 10, 85));
    }

    #[test]
    fn a_mix_that_makes_no_sense_is_refused() {
        for text in ["declined", "lost=3", "declined=x", "declined=60,unserved=50", "declined=101"] {
            assert!(parse_mix(text).is_err(), "{text}");
        }
        // Two numbers whose sum wraps around to 0.
        assert!(parse_mix("declined=18446744073709551615,unserved=1").is_err());
        assert!(parse_mix("declined=60,unserved=50").unwrap_err().contains("110"));
        assert_eq!(parse_mix(""), Ok(Mix::default()));
    }
}
