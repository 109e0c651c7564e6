use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use orders::contracts;
use serde_json::Value;

/// Set to anything, the tests write the files instead of comparing them.
const WRITE: &str = "WRITE_CONTRACTS";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/contracts")
}

#[test]
fn the_committed_contracts_are_those_of_the_types() {
    let files = contracts::files();
    if env::var_os(WRITE).is_some() {
        fs::create_dir_all(directory().join("schemas")).expect("a writable folder");
        for (path, text) in &files {
            fs::write(directory().join(path), text).expect("a writable file");
        }
    }
    let drifted: Vec<&String> = files
        .iter()
        .filter(|(path, text)| fs::read_to_string(directory().join(path)).ok().as_ref() != Some(*text))
        .map(|(path, _)| path)
        .collect();
    assert!(
        drifted.is_empty(),
        "docs/contracts differs from the message types in {drifted:?}: run the tests of `orders` with {WRITE}=1 and review the change"
    );
}

#[test]
fn no_schema_is_left_over_from_a_topic_that_is_gone() {
    let generated: BTreeSet<String> = contracts::files().into_keys().collect();
    let committed = fs::read_dir(directory().join("schemas")).expect("the schemas are committed");
    for entry in committed {
        let name = format!("schemas/{}", entry.expect("a file").file_name().to_string_lossy());
        assert!(generated.contains(&name), "docs/contracts/{name} belongs to no topic");
    }
}

#[test]
fn every_reference_in_the_asyncapi_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = contracts::asyncapi();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 3 * contracts::CATALOGUE.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("nothing outside of the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_example_is_valid_by_the_schema_of_its_topic() {
    let document = contracts::asyncapi();
    for contract in contracts::CATALOGUE {
        let topic = contract.topic.name;
        let message = &document["components"]["messages"][topic];
        let example = &message["examples"][0];
        let checks = [
            ("payload", contracts::schema(contract), &example["payload"]),
            ("headers", message["headers"].clone(), &example["headers"]),
        ];
        for (part, schema, instance) in checks {
            let validator = jsonschema::draft202012::new(&schema).expect("a valid schema");
            let errors: Vec<String> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{topic}, {part}: {errors:?}");
        }
    }
}
