//! "Did you mean": the known name that is nearest to a misspelt one.

/// A hint with the nearest of `known`, if one is near enough to be meant.
pub(super) fn did_you_mean<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let near = known.into_iter().map(|name| (distance(wrong, name), name)).min()?;
    // a third of the letters may be wrong, so that short names do not match anything
    let (distance, name) = near;
    (distance <= wrong.chars().count().max(name.chars().count()).div_ceil(3))
        .then(|| format!("did you mean \"{name}\"?"))
}

/// Levenshtein distance, with two neighbours swapped counting as one mistake.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above = &rows[i - 1];
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_does_not_guess() {
        let known = ["deadline", "attempts", "after"];
        assert_eq!(did_you_mean("deadlin", known).as_deref(), Some("did you mean \"deadline\"?"));
        assert_eq!(did_you_mean("atfer", known).as_deref(), Some("did you mean \"after\"?"));
        assert_eq!(did_you_mean("colour", known), None);
        assert_eq!(did_you_mean("x", []), None);
    }
}
