//! The contract files under `docs/contracts/`: a JSON Schema for the value of every topic, and one AsyncAPI document.
//!
//! They are generated from the message types and committed, so that a reader in another language needs nothing of this
//! workspace, and a review shows every change of the contract. A test compares them with what is generated here.

mod asyncapi;
mod catalogue;
mod examples;

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::Value;

pub use asyncapi::asyncapi;
pub use catalogue::{CATALOGUE, Contract, Role};

/// Every contract file, by its path under `docs/contracts/`, as text that ends with a newline.
pub fn files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = CATALOGUE
        .iter()
        .map(|contract| (format!("schemas/{}.schema.json", contract.topic.name), pretty(&schema(contract))))
        .collect();
    files.insert("asyncapi.json".to_owned(), pretty(&asyncapi()));
    files
}

/// JSON Schema (2020-12) of the value on the contract's topic. It describes what a writer must write; a reader ignores
/// fields that it does not know.
pub fn schema(contract: &Contract) -> Value {
    let mut schema = (contract.schema)(SchemaSettings::draft2020_12().into_generator()).to_value();
    schema["title"] = contract.message.into();
    if let (Role::End { status }, Some(property)) = (contract.role, schema.pointer_mut("/properties/status")) {
        *property = serde_json::json!({ "const": status.as_str(), "description": "The topic says the same." });
        if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
            definitions.remove("OrderStatus");
        }
        if schema["$defs"].as_object().is_some_and(serde_json::Map::is_empty) {
            schema.as_object_mut().map(|schema| schema.remove("$defs"));
        }
    }
    schema
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value has string keys only");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    #[test]
    fn every_topic_has_its_contract() {
        let described: Vec<_> = CATALOGUE.iter().map(|contract| contract.topic).collect();
        assert_eq!(described, topics::ALL);
    }

    #[test]
    fn a_schema_names_what_is_required_and_admits_more() {
        let contract = CATALOGUE.iter().find(|c| c.topic == topics::PAYMENT_REFUNDED).expect("in the catalogue");
        let schema = schema(contract);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "PaymentRefunded");
        assert_eq!(schema["required"], serde_json::json!(["orderId", "refunded"]));
        assert!(schema.get("additionalProperties").is_none());
    }

    #[test]
    fn the_end_topics_have_their_own_status() {
        let contract = CATALOGUE.iter().find(|c| c.topic == topics::ORDER_PARKED).expect("in the catalogue");
        let schema = schema(contract);
        assert_eq!(schema["properties"]["status"]["const"], "PARKED");
        assert!(schema.get("$defs").is_none());
    }
}
