//! Values that are checked once, where they enter, and then carried as proof of the check.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that is not the value it should be. Displays as what was expected, for a person to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {expected}")]
pub struct InvalidValue {
    expected: &'static str,
}

impl InvalidValue {
    /// `expected` completes the sentence "must be …".
    pub(crate) const fn new(expected: &'static str) -> Self {
        InvalidValue { expected }
    }
}

/// A text newtype: parsed by `TryFrom`, serialised as the bare string, described by a JSON Schema of its own.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, check: $check:expr, expected: $expected:literal, schema: $schema:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as it is on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, given away.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidValue;

            fn try_from(text: String) -> Result<Self, InvalidValue> {
                let valid: fn(&str) -> bool = $check;
                if valid(&text) { Ok($name(text)) } else { Err(InvalidValue::new($expected)) }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidValue;

            fn try_from(text: &str) -> Result<Self, InvalidValue> {
                $name::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

checked_text! {
    /// ISO 4217 code of a currency that has minor units, such as `EUR`. Codes without any (gold `XAU`, "no currency"
    /// `XXX`) are refused: every amount is a whole number of minor units.
    Currency,
    check: |code| iso_currency::Currency::from_code(code).is_some_and(|c| c.exponent().is_some()),
    expected: "an ISO 4217 currency code such as EUR",
    schema: json_schema!({
        "type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code of a currency with minor units."
    })
}

checked_text! {
    /// ISO 3166-1 alpha-2 code, such as `FR`.
    CountryCode,
    check: |code| code.len() == 2
        && code.bytes().all(|b| b.is_ascii_uppercase())
        && rust_iso3166::from_alpha2(code).is_some(),
    expected: "an ISO 3166-1 alpha-2 country code such as FR",
    schema: json_schema!({
        "type": "string", "pattern": "^[A-Z]{2}$", "description": "ISO 3166-1 alpha-2 country code."
    })
}

checked_text! {
    /// Stock keeping unit: 1 to 64 characters, none of them a control character.
    Sku,
    check: |sku| (1..=64).contains(&sku.chars().count()) && !sku.chars().any(char::is_control),
    expected: "1 to 64 characters without control characters",
    schema: json_schema!({
        "type": "string", "minLength": 1, "maxLength": 64, "description": "Stock keeping unit."
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currencies_are_iso_codes_with_minor_units() {
        for code in ["EUR", "USD", "JPY", "KWD"] {
            assert!(Currency::try_from(code).is_ok(), "{code}");
        }
        for code in ["", "eur", "EURO", "ZZZ", "XXX", "XAU", "E R"] {
            assert!(Currency::try_from(code).is_err(), "{code}");
        }
    }

    #[test]
    fn countries_are_iso_alpha_2_codes() {
        for code in ["FR", "AQ", "US"] {
            assert!(CountryCode::try_from(code).is_ok(), "{code}");
        }
        for code in ["", "fr", "FRA", "ZZ", "F1", "É"] {
            assert!(CountryCode::try_from(code).is_err(), "{code}");
        }
    }

    #[test]
    fn skus_count_characters_not_bytes() {
        assert!(Sku::try_from("é".repeat(64)).is_ok());
        assert!(Sku::try_from("é".repeat(65)).is_err());
        assert!(Sku::try_from("").is_err());
        assert!(Sku::try_from("A\u{0}").is_err());
    }

    #[test]
    fn a_value_on_the_wire_is_checked() {
        assert!(serde_json::from_str::<Currency>("\"EUR\"").is_ok());
        let error = serde_json::from_str::<Currency>("\"ZZZ\"").expect_err("no such currency");
        assert!(error.to_string().contains("ISO 4217"), "{error}");
    }
}
