//! Letters with the same trouble: errors are compared without their numbers and ids.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Sixteen hexadecimal digits; equal for errors that differ in numbers, ids and hexadecimal text only.
pub(crate) fn fingerprint(topic: &str, group: &str, reason: &str, error: &str) -> String {
    let mut hash = Sha256::new();
    for part in [topic, group, reason, &normalised(error)] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest[..8].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `error` with placeholders for all that is different each time.
fn normalised(error: &str) -> String {
    let mut text = String::with_capacity(error.len());
    let mut word = String::new();
    for character in error.chars().chain([' ']) {
        if character.is_alphanumeric() || character == '-' || character == '_' {
            word.push(character);
        } else {
            push_word(&mut text, &word);
            word.clear();
            text.push(character);
        }
    }
    text
}

fn push_word(text: &mut String, word: &str) {
    if Uuid::try_parse(word).is_ok() {
        text.push_str("<id>");
        return;
    }
    for (index, part) in word.split('-').enumerate() {
        if index > 0 {
            text.push('-');
        }
        let digits = part.strip_prefix("0x").unwrap_or(part);
        let has_digit = digits.contains(|c: char| c.is_ascii_digit());
        if has_digit && digits.len() >= 8 && digits.chars().all(|c| c.is_ascii_hexdigit()) || digits.len() < part.len()
        {
            text.push_str("<hex>");
        } else {
            without_digits(text, part);
        }
    }
}

fn without_digits(text: &mut String, part: &str) {
    let mut in_number = false;
    for character in part.chars() {
        let digit = character.is_ascii_digit();
        if !digit {
            text.push(character);
        } else if !in_number {
            text.push_str("<n>");
        }
        in_number = digit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ids_and_hexadecimal_text_do_not_count() {
        let error =
            |line, id| format!("order {id}: invalid type at line {line} column 7, digest deadbeef01, 0xff, o-{line}");
        let one = error(1, "01a1fd92-26a2-73f9-9d40-138fbf717e22");
        let other = error(22, "01a1fd92-28a5-7510-8a06-8dc5e60cee92");
        assert_eq!(normalised(&one), normalised(&other));
        assert_eq!(
            normalised(&one).trim(),
            "order <id>: invalid type at line <n> column <n>, digest <hex>, <hex>, o-<n>"
        );
    }

    #[test]
    fn words_topics_and_groups_do_count() {
        let of = |topic, group, error| fingerprint(topic, group, "r", error);
        assert_ne!(of("t", "g", "unknown SKU"), of("t", "g", "unknown order"));
        assert_ne!(of("t", "g", "e"), of("t", "h", "e"));
        assert_ne!(of("t", "g", "e"), of("u", "g", "e"));
        assert_eq!(of("t", "g", "e 1"), of("t", "g", "e 2"));
    }
}
