//! What a definition cannot say: how an instance of it is started, and where the effects of its steps are counted.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

/// The samples of all sagas, by the name of the saga.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<String, Sample>);

/// A file of the folder: one saga.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    /// Name of the saga.
    saga: String,
    pub(super) start: Start,
    /// By the name of the step.
    pub(super) effects: BTreeMap<String, Effect>,
}

/// How an instance is started: exactly one of the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// By a request to the service that publishes the trigger.
    pub(super) post: Option<Post>,
    /// By publishing this value as the trigger, under a new id.
    pub(super) trigger: Option<Value>,
}

/// A request that makes its service publish the trigger.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Post {
    /// The service, as `symphony status` lists it.
    pub(super) service: String,
    /// With a slash before it.
    pub(super) path: String,
    /// JSON Pointer to the id of the new saga in the answer.
    pub(super) id: String,
    pub(super) body: Value,
}

/// Two SQL queries on a database, with the saga's id as `$1`; each gives one whole number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Effect {
    pub(super) database: String,
    /// How often the step took effect, undone or not.
    pub(super) done: String,
    /// How often that was undone; absent for a step that nothing undoes.
    pub(super) undone: Option<String>,
}

impl Samples {
    /// Reads every `*.yaml` of `folder`; without the folder there are no samples.
    ///
    /// # Errors
    /// When a file cannot be read, is no sample, or names a saga that another file names too.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut samples = BTreeMap::new();
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries.with_context(|| folder.display().to_string())?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml" && extension != "yml") {
                continue;
            }
            let place = || path.display().to_string();
            let sample = Sample::parse(&std::fs::read_to_string(&path).with_context(place)?).with_context(place)?;
            let saga = sample.saga.clone();
            if samples.insert(saga.clone(), sample).is_some() {
                bail!("{}: another file has the saga {saga} too", path.display());
            }
        }
        Ok(Self(samples))
    }

    pub(super) fn of(&self, saga: &str) -> Option<&Sample> {
        self.0.get(saga)
    }
}

impl Sample {
    fn parse(yaml: &str) -> anyhow::Result<Self> {
        let sample: Self = serde_saphyr::from_str(yaml)?;
        if sample.start.post.is_some() == sample.start.trigger.is_some() {
            bail!("start: write either post or trigger");
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_saga_says_how_it_is_started_and_counted() {
        let folder = stack::Repository::find().expect("the repository").sagas();
        let samples = Samples::read(&folder.join("certify")).expect("samples");
        let sample = samples.of("order").expect("a sample of the order saga");
        let body = &sample.start.post.as_ref().expect("a request").body;
        assert_eq!(body["shipping"]["postalCode"], "75001", "text stays text");
        assert_eq!(body["items"][0]["unitPrice"], 1999);
        let definition = std::fs::read_to_string(folder.join("order.yaml")).expect("the definition");
        let definition = saga::Definition::parse(&definition, "order.yaml").expect("a definition");
        assert!(definition.steps().iter().all(|step| sample.effects.contains_key(&step.name)));
    }

    #[test]
    fn a_sample_that_starts_nothing_or_in_two_ways_is_refused() {
        let sample = |start: &str| Sample::parse(&format!("saga: trip\nstart: {start}\neffects: {{}}\n"));
        assert!(sample("{ trigger: { from: Oslo } }").is_ok());
        for wrong in ["{}", "{ trigger: {}, post: { service: a, path: /b, id: /c, body: {} } }", "{ sql: x }"] {
            assert!(sample(wrong).is_err(), "{wrong}");
        }
    }
}
