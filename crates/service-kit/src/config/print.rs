use std::fmt::Write;

use toml::{Table, Value};

use super::Loaded;

const MASK: &str = "***";

/// The effective configuration as TOML, secrets masked; values from the environment are marked.
pub fn to_toml<C>(loaded: &Loaded<C>) -> String {
    let mut text = String::new();
    section(loaded, &loaded.table, &mut Vec::new(), &mut text);
    text
}

fn section<C>(loaded: &Loaded<C>, table: &Table, path: &mut Vec<String>, text: &mut String) {
    let is_table = |value: &Value| value.is_table();
    if !path.is_empty() && table.values().any(|value| !is_table(value)) {
        let gap = if text.is_empty() { "" } else { "\n" };
        writeln!(text, "{gap}[{}]", path.join(".")).expect("a String takes every write");
    }
    for (key, value) in table.iter().filter(|(_, value)| !is_table(value)) {
        path.push(key.clone());
        let origin = loaded.from_environment.get(&path.join("."));
        let comment = origin.map(|name| format!(" # {name}")).unwrap_or_default();
        let value = masked(key, value);
        writeln!(text, "{key} = {value}{comment}").expect("a String takes every write");
        path.pop();
    }
    for (key, value) in table {
        if let Value::Table(inner) = value {
            path.push(key.clone());
            section(loaded, inner, path, text);
            path.pop();
        }
    }
}

fn masked(key: &str, value: &Value) -> Value {
    let secret = ["password", "secret", "token"].iter().any(|word| key.contains(word));
    match value {
        Value::String(text) if secret && !text.is_empty() => Value::String(MASK.to_owned()),
        Value::String(text) => Value::String(mask(text)),
        other => other.clone(),
    }
}

/// `text` with the password of a URL, in its authority or as parameter, replaced by `***`.
pub fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    // A password may hold a raw '/' or '?', so the authority ends at the last '@'.
    let masked = match rest.rsplit_once('@') {
        Some((user, place)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{place}"),
            None => format!("{user}@{place}"),
        },
        None => rest.to_owned(),
    };
    let masked = match masked.split_once("password=") {
        Some((before, value)) => {
            let after = value.split_once('&').map(|(_, after)| format!("&{after}")).unwrap_or_default();
            format!("{before}password={MASK}{after}")
        }
        None => masked,
    };
    format!("{scheme}://{masked}")
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (url, masked) in [
            ("postgres://orders:pw@db/orders", "postgres://orders:***@db/orders"),
            ("postgres://orders:p@s/s?w@db/orders", "postgres://orders:***@db/orders"),
            ("postgres://orders@db/orders", "postgres://orders@db/orders"),
            ("postgres://db/orders?password=pw&user=orders", "postgres://db/orders?password=***&user=orders"),
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("no url: at all", "no url: at all"),
        ] {
            assert_eq!(mask(url), masked);
        }
    }
}
