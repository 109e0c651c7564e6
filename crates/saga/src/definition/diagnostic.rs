//! What is wrong with a definition, where, and what to do about it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::tree::{Node, Place};

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0 when the definition did not come from a file.
    pub line: u64,
    /// From 1, in characters; 0 when the definition did not come from a file.
    pub column: u64,
    pub message: String,
    /// What would make it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    /// What the YAML parser found: it stops at the first mistake.
    pub(super) fn of_yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let place = error.location().map(Place::from).unwrap_or_default();
        Self {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message: error.without_snippet().to_string(),
            hint: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

/// The way to a value in a definition: names and indices.
pub(super) type Path = Vec<String>;

/// A path from anything that can be shown.
macro_rules! at {
    ($($part:expr),* $(,)?) => { Vec::from([$($part.to_string()),*]) };
}
pub(super) use at;

/// Collects findings, so that one run tells everything.
pub(super) struct Problems<'t> {
    file: String,
    root: Option<&'t Node>,
    found: Vec<Diagnostic>,
    /// Places that hold a stand-in for something that was wrong: nothing said about them would be true.
    healed: BTreeSet<Path>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &str, root: &'t Node) -> Self {
        Self { file: file.to_owned(), root: Some(root), found: Vec::new(), healed: BTreeSet::new() }
    }

    /// For a definition that comes from elsewhere than a file.
    pub(super) fn without_places(name: &str) -> Problems<'static> {
        Problems { file: name.to_owned(), root: None, found: Vec::new(), healed: BTreeSet::new() }
    }

    /// Reports a finding about the value at `path`, unless that has been reported as wrong already.
    pub(super) fn report(&mut self, path: &[String], message: impl Into<String>, hint: impl Into<Option<String>>) {
        if !self.is_healed(path) {
            let place = self.root.map(|root| root.nearest(path).place).unwrap_or_default();
            self.report_at(place, message, hint);
        }
    }

    /// Reports a finding about a place.
    pub(super) fn report_at(&mut self, place: Place, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.found.push(Diagnostic {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// Remembers that what is at `path` from now on is not what the author wrote.
    pub(super) fn heal(&mut self, path: &[String]) {
        self.healed.insert(path.to_vec());
    }

    /// Whether the value at `path`, or something around it, is a stand-in.
    pub(super) fn is_healed(&self, path: &[String]) -> bool {
        (0..=path.len()).any(|n| self.healed.contains(&path[..n]))
    }

    /// # Errors
    /// Everything found, if anything was.
    pub(super) fn finish(self) -> Result<(), Vec<Diagnostic>> {
        let found = self.into_diagnostics();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// Everything found, in the order of the file.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}
