//! Saga definitions: those in the files start sagas, and every one that ever started one is in the database.
//!
//! A saga is pinned to the digest it started with. So a file can change, or go, while sagas of its former text
//! are in flight: their definition is read from the database, and their topics stay subscribed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use messaging::{HandlerError, Poison};
use saga::{Definition, Diagnostic, InvalidDefinition};
use sqlx::{PgPool, Row};

use crate::store::version_column;

/// Keeps the bodies of the files' definitions; those already there stay as they are.
pub(crate) const STORE_DEFINITIONS: &str = "
INSERT INTO definition (digest, name, version, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[])
ON CONFLICT (digest) DO NOTHING
";

pub(crate) const FIND_DEFINITION_IDS: &str = "SELECT id, digest FROM definition WHERE digest = ANY($1)";

pub(crate) const LOAD_DEFINITIONS: &str = "SELECT id, body FROM definition WHERE id = ANY($1)";

/// `saga_timer` has a row for each saga that has not ended, parked ones included.
pub(crate) const FIND_UNFINISHED_DEFINITIONS: &str = "
SELECT DISTINCT s.definition_id FROM saga_timer t JOIN saga s ON s.id = t.saga_id
";

/// The files of `SAGAS_DIR` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SagaFilesError {
    /// The folder or a file in it cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no `*.yaml` in the folder.
    #[error("{} holds no *.yaml: there is no saga to run", .0.display())]
    Empty(PathBuf),
    /// Some files are no valid definitions.
    #[error("{} saga definitions are invalid:\n{}", .0.len(), listed(.0))]
    Invalid(Vec<Diagnostic>),
    /// The files contradict each other.
    #[error("the saga definitions contradict each other: {0}")]
    Contradiction(String),
}

fn listed(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Reads every `*.yaml` in `folder`.
///
/// # Errors
/// Everything that is wrong with all of them.
pub fn read_folder(folder: &Path) -> Result<Vec<Definition>, SagaFilesError> {
    let unreadable = |path: &Path, source| SagaFilesError::Unreadable { path: path.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(SagaFilesError::Empty(folder.to_owned()));
    }
    let (mut definitions, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        match Definition::parse(&text, &path.display().to_string()) {
            Ok(definition) => definitions.push(definition),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    if !wrong.is_empty() {
        return Err(SagaFilesError::Invalid(wrong));
    }
    check_together(&definitions)?;
    Ok(definitions)
}

/// A message must say by its topic alone whether it starts a saga, and which.
fn check_together(definitions: &[Definition]) -> Result<(), SagaFilesError> {
    let contradiction = |text: String| Err(SagaFilesError::Contradiction(text));
    let (mut names, mut triggers) = (BTreeSet::new(), BTreeMap::new());
    for definition in definitions {
        let (name, trigger) = (definition.name(), definition.trigger().topic.as_str());
        if !names.insert(name) {
            return contradiction(format!("two files define the saga {name:?}"));
        }
        if let Some(other) = triggers.insert(trigger, name) {
            return contradiction(format!("{other:?} and {name:?} both start at {trigger}, with one saga id for both"));
        }
    }
    for definition in definitions {
        let replies = definition.reply_channels();
        if let Some((topic, starts)) = replies.filter_map(|(topic, _)| triggers.get_key_value(topic)).next() {
            return contradiction(format!("{topic} starts {starts:?} and is a reply of {:?}", definition.name()));
        }
    }
    Ok(())
}

/// A definition with the id of its row.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Its row.
    pub id: i32,
    /// What it says.
    pub definition: Arc<Definition>,
}

/// Why a saga's definition could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("definitions cannot be read from the database")]
    Database(#[from] sqlx::Error),
    #[error("the stored definition {id} cannot be used")]
    Invalid {
        id: i32,
        #[source]
        source: InvalidDefinition,
    },
    #[error("there is no stored definition {0}")]
    Missing(i32),
}

impl From<DefinitionError> for HandlerError {
    fn from(error: DefinitionError) -> Self {
        match error {
            DefinitionError::Database(error) => error.into(),
            // A newer replica knows it: this one must not give up its messages.
            error @ DefinitionError::Invalid { .. } => HandlerError::Retry(Box::new(error)),
            error @ DefinitionError::Missing(_) => {
                HandlerError::Poison(Box::new(Poison::new("unknown-definition", error.to_string())))
            }
        }
    }
}

/// All definitions this process has met.
pub(crate) struct Definitions {
    pool: PgPool,
    files: OnceLock<Vec<Arc<Definition>>>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<i32, Arc<Definition>>,
    /// Of the files' definitions, by topic.
    by_trigger: HashMap<String, Pinned>,
}

impl Definitions {
    pub(crate) fn new(pool: PgPool) -> Self {
        Definitions { pool, files: OnceLock::new(), known: RwLock::default() }
    }

    /// The definitions of the files; none before they are stored.
    pub(crate) fn files(&self) -> &[Arc<Definition>] {
        self.files.get().map_or(&[], Vec::as_slice)
    }

    /// Stores the files' definitions, so that every replica can read them before the first saga is pinned to one.
    pub(crate) async fn store(&self, files: &[Arc<Definition>]) -> Result<(), sqlx::Error> {
        let digests: Vec<&str> = files.iter().map(|file| file.digest()).collect();
        let names: Vec<&str> = files.iter().map(|file| file.name()).collect();
        let versions: Vec<i32> = files.iter().map(|file| version_column(file.version())).collect();
        let bodies: Vec<&str> = files.iter().map(|file| file.canonical_json()).collect();
        sqlx::query(STORE_DEFINITIONS)
            .bind(&digests)
            .bind(names)
            .bind(versions)
            .bind(bodies)
            .execute(&self.pool)
            .await?;
        let rows = sqlx::query(FIND_DEFINITION_IDS).bind(digests).fetch_all(&self.pool).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let (id, digest): (i32, String) = (row.try_get("id")?, row.try_get("digest")?);
            let Some(definition) = files.iter().find(|file| file.digest() == digest) else { continue };
            known.by_id.insert(id, definition.clone());
            let pinned = Pinned { id, definition: definition.clone() };
            known.by_trigger.insert(definition.trigger().topic.clone(), pinned);
        }
        drop(known);
        self.files.get_or_init(|| files.to_vec());
        Ok(())
    }

    /// The definition whose sagas start at `topic`.
    pub(crate) fn started_by(&self, topic: &str) -> Option<Pinned> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_trigger.get(topic).cloned()
    }

    /// The definitions with these ids; what is not known yet is read from the database.
    pub(crate) async fn get(&self, ids: BTreeSet<i32>) -> Result<HashMap<i32, Arc<Definition>>, DefinitionError> {
        let mut found: HashMap<i32, Arc<Definition>> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            ids.iter().filter_map(|id| Some((*id, known.by_id.get(id)?.clone()))).collect()
        };
        let missing: Vec<i32> = ids.into_iter().filter(|id| !found.contains_key(id)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        for row in sqlx::query(LOAD_DEFINITIONS).bind(&missing).fetch_all(&self.pool).await? {
            let (id, body): (i32, String) = (row.try_get("id")?, row.try_get("body")?);
            let definition = Definition::from_json(&body).map_err(|source| DefinitionError::Invalid { id, source })?;
            found.insert(id, Arc::new(definition));
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for id in missing {
            let definition = found.get(&id).ok_or(DefinitionError::Missing(id))?;
            known.by_id.insert(id, definition.clone());
        }
        Ok(found)
    }

    /// The definition with this id.
    pub(crate) async fn one(&self, id: i32) -> Result<Arc<Definition>, DefinitionError> {
        self.get(BTreeSet::from([id])).await?.remove(&id).ok_or(DefinitionError::Missing(id))
    }

    /// The topics on which answers come, with their types: those of the files and those of every other definition
    /// that still has an unfinished saga. The files win where two types claim one topic.
    pub(crate) async fn reply_topics(&self) -> Result<BTreeMap<String, String>, DefinitionError> {
        let rows = sqlx::query(FIND_UNFINISHED_DEFINITIONS).fetch_all(&self.pool).await?;
        let ids = rows.iter().map(|row| row.try_get("definition_id")).collect::<Result<BTreeSet<i32>, _>>()?;
        let unfinished = self.get(ids).await?;
        let starts: BTreeSet<&str> = self.files().iter().map(|file| file.trigger().topic.as_str()).collect();
        let mut topics = BTreeMap::new();
        for definition in unfinished.values().chain(self.files()) {
            for (topic, event_type) in definition.reply_channels().filter(|(topic, _)| !starts.contains(topic)) {
                topics.insert(topic.to_owned(), event_type.to_owned());
            }
        }
        Ok(topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ORDER_LIKE, definition};

    #[test]
    fn two_definitions_may_not_start_at_one_topic() {
        let other = definition(&ORDER_LIKE.replace("saga: trip", "saga: voyage"));
        let refused = check_together(&[definition(ORDER_LIKE), other]).expect_err("one id for two sagas");
        assert!(refused.to_string().contains("both start at trip.booked"), "{refused}");
    }

    #[test]
    fn a_folder_without_a_definition_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(read_folder(folder.path()), Err(SagaFilesError::Empty(_))));
        let missing = read_folder(Path::new("/nowhere/sagas")).expect_err("there is no such folder");
        assert!(missing.to_string().contains("/nowhere/sagas"), "{missing}");
    }
}
