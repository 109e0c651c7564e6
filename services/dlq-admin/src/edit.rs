//! Repairing a letter's message. The original stays; a later replay sends the edited message instead of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use jsonschema::Validator;
use messaging::{Envelope, Record};
use orders::Topic;
use orders::contracts::{CATALOGUE, Contract, Role, schema};
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::{FieldError, Problem};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::Act;
use crate::letter::{decoded, is_of_letter, stored};
use crate::replay::{forbidden, no_letter, truncated, wrong_state};
use crate::target::Targets;

/// What an edit starts from: always the original.
pub const ORIGINAL: &str =
    "SELECT state, edit_number, truncated, topic, dlq_topic, source_format, key, payload, headers::text
FROM letter WHERE id = $1";

/// Keeps an edit, if the letter is new and nobody edited it meanwhile.
pub const EDIT: &str = "
WITH edited AS (
    UPDATE letter SET edit_number = edit_number + 1 WHERE id = $1 AND state = 'NEW' AND edit_number = $2
    RETURNING id, edit_number
), kept AS (
    INSERT INTO letter_edit (letter_id, number, key, payload, headers, actor)
    SELECT id, edit_number, $3, $4, $5::json, $6 FROM edited
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, detail) SELECT id, 'EDITED', $6, 'edit ' || edit_number FROM edited
)
INSERT INTO audit (actor, act, letter_id, arguments, result) SELECT $6, 'edit', id, $7::json, 'done' FROM edited";

/// The new message, as changes to the original one. What is absent stays as it was.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Changes {
    /// The new value: a string is its text, anything else is written as JSON.
    #[serde(default, deserialize_with = "present")]
    payload: Option<Value>,
    /// The new key.
    key: Option<String>,
    /// Headers to set, or with null to remove. Those that came with the letter can't be set, and a `ce_id` that is a
    /// UUID can't be changed: by it the message is processed once.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
}

/// A null that is there differs from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(sqlx::FromRow)]
struct Original {
    state: String,
    edit_number: i32,
    truncated: bool,
    topic: String,
    dlq_topic: String,
    source_format: String,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: String,
}

/// Keeps `changes`. Refused when whoever reads the topic could not read the result either.
pub(crate) async fn edit(
    pool: &PgPool,
    targets: &Targets,
    id: Uuid,
    changes: Changes,
    actor: &str,
) -> Result<(), Problem> {
    let mut act = Act::on_letter("edit", actor, id, summary(&changes));
    let row: Option<Original> = sqlx::query_as(ORIGINAL).bind(id).fetch_optional(pool).await?;
    let Some(row) = row else { return Err(act.refused(pool, no_letter(id)).await) };
    if row.state != "NEW" {
        return Err(act.refused(pool, wrong_state(id, &row.state)).await);
    }
    if let Some(why) = targets.refusal(&row.topic, &row.dlq_topic, &row.source_format) {
        return Err(act.refused(pool, forbidden(id, &why)).await);
    }
    if row.truncated {
        return Err(act.refused(pool, truncated(id)).await);
    }
    let Original { edit_number, topic, key, payload, headers, .. } = row;
    let mut headers = decoded(&headers).map_err(Problem::internal)?;
    headers.retain(|(name, _)| !is_of_letter(name));
    let original = Record { headers, ..Record::unsent(topic, key, payload) };
    let edited = match changed(&original, changes) {
        Ok(edited) => edited,
        Err(errors) => return Err(act.refused(pool, Problem::invalid(errors)).await),
    };
    let digest: [u8; 32] = Sha256::digest(edited.payload.as_deref().unwrap_or_default()).into();
    act.arguments["sha256"] = json!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let kept = sqlx::query(EDIT)
        .bind(id)
        .bind(edit_number)
        .bind(edited.key)
        .bind(edited.payload)
        .bind(stored(&edited.headers))
        .bind(actor)
        .bind(act.arguments.to_string())
        .execute(pool)
        .await?;
    if kept.rows_affected() == 0 {
        return Err(act.refused(pool, wrong_state(id, "changed by another request meanwhile")).await);
    }
    tracing::info!(letter = %id, actor, "a letter was edited");
    Ok(())
}

/// For the audit: which parts, not what they hold.
fn summary(changes: &Changes) -> Value {
    json!({
        "payload": changes.payload.is_some(),
        "key": changes.key,
        "headers": changes.headers.keys().collect::<Vec<_>>(),
    })
}

fn changed(original: &Record, changes: Changes) -> Result<Record, Vec<FieldError>> {
    let mut edited = original.clone();
    let mut errors = Vec::new();
    if let Some(payload) = changes.payload {
        edited.payload = Some(match payload {
            Value::String(text) => text.into_bytes(),
            value => value.to_string().into_bytes(),
        });
    }
    if let Some(key) = changes.key {
        edited.key = Some(key.into_bytes());
    }
    let id = original.header("ce_id").filter(|id| Uuid::try_parse(id).is_ok());
    for (name, value) in changes.headers {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        if is_of_letter(&name) {
            errors.push(FieldError::new(pointer, "came with the letter, not with the message"));
        } else if name.is_empty() || name.contains('\0') {
            errors.push(FieldError::new(pointer, "is no name of a header"));
        } else if name == "ce_id" && id.is_some() && value.as_deref() != id {
            errors.push(FieldError::new(pointer, "can't be changed: by it the message is processed once"));
        } else {
            edited.headers.retain(|(header, _)| *header != name);
            edited.headers.extend(value.map(|value| (name, Some(value.into_bytes()))));
        }
    }
    if let Some(contract) = contract(&edited.topic) {
        errors.extend(breaches(contract, &edited));
    }
    if errors.is_empty() { Ok(edited) } else { Err(errors) }
}

fn contract(topic: &str) -> Option<&'static Contract> {
    let topic = Topic::find(topic)?;
    CATALOGUE.iter().find(|contract| contract.topic == topic)
}

/// All for which the readers of the topic would refuse the message.
fn breaches(contract: &Contract, record: &Record) -> Vec<FieldError> {
    static VALIDATORS: LazyLock<HashMap<&'static str, Validator>> = LazyLock::new(|| {
        let compiled = |contract: &Contract| jsonschema::draft202012::new(&schema(contract)).expect("a valid schema");
        CATALOGUE.iter().map(|contract| (contract.topic.name, compiled(contract))).collect()
    });
    let mut breaches = Vec::new();
    match Envelope::of(record) {
        Err(poison) => breaches.push(FieldError::new("/headers", poison.to_string())),
        Ok(envelope) => {
            if envelope.event_type != contract.topic.event_type {
                let detail = format!("ce_type is not {}, the type of {}", contract.topic.event_type, record.topic);
                breaches.push(FieldError::new("/headers/ce_type", detail));
            }
            let step = matches!(contract.role, Role::Command { .. } | Role::Undo { .. }) && envelope.step.is_none();
            if step {
                breaches.push(FieldError::new("/headers/ce_step", "is missing"));
            }
            if contract.role.step().is_some() && envelope.saga_id.is_none() {
                breaches.push(FieldError::new("/headers/ce_sagaid", "is missing"));
            }
        }
    }
    let value: Value = match record.json() {
        Ok(value) => value,
        Err(poison) => {
            breaches.push(FieldError::new("/payload", poison.to_string()));
            return breaches;
        }
    };
    if let Some(validator) = VALIDATORS.get(contract.topic.name) {
        let errors = validator.iter_errors(&value);
        breaches.extend(
            errors.map(|error| FieldError::new(format!("/payload{}", error.instance_path()), error.to_string())),
        );
    }
    let about = value["orderId"].as_str();
    if about.is_some_and(|about| record.key.as_deref() != Some(about.as_bytes())) {
        breaches.push(FieldError::new("/payload/orderId", "is not the key of the message"));
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "01a1fd92-26a2-73f9-9d40-138fbf717e22";

    fn command() -> Record {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", "5b2f4f4e-6a0a-5d7b-9a57-0d7f2f3a4b5c"),
            ("ce_type", "com.chaossymphony.payment.refund.requested.v1"),
            ("ce_source", "/test"),
            ("ce_subject", ORDER),
            ("ce_time", "2026-11-21T10:00:00Z"),
            ("ce_sagaid", ORDER),
            ("ce_step", "payment"),
        ];
        Record {
            topic: "payment.refund.requested".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: Some(ORDER.as_bytes().to_vec()),
            payload: Some(b"{".to_vec()),
            headers: headers.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec()))).to_vec(),
        }
    }

    fn with(changes: Value) -> Result<Record, Vec<String>> {
        let changes = serde_json::from_value(changes).expect("changes");
        changed(&command(), changes)
            .map_err(|errors| errors.into_iter().filter_map(|error| error.pointer).collect::<Vec<_>>())
    }

    #[test]
    fn a_repaired_message_keeps_all_that_was_not_changed() {
        let edited = with(json!({ "payload": { "orderId": ORDER } })).expect("a good message");
        assert_eq!(edited.payload, Some(format!("{{\"orderId\":\"{ORDER}\"}}").into_bytes()));
        assert_eq!((edited.key, edited.headers), (command().key, command().headers));
        let text = with(json!({ "payload": format!("{{ \"orderId\": \"{ORDER}\" }}") })).expect("a good message");
        assert!(text.payload.expect("a value").starts_with(b"{ "), "text stays as it is");
    }

    #[test]
    fn what_its_reader_would_refuse_is_refused() {
        assert_eq!(with(json!({})).unwrap_err(), ["/payload"]);
        assert_eq!(with(json!({ "payload": {} })).unwrap_err(), ["/payload"]);
        assert_eq!(with(json!({ "payload": null })).unwrap_err(), ["/payload"]);
        let other = "01a1fd92-28a5-7510-8a06-8dc5e60cee92";
        assert_eq!(with(json!({ "payload": { "orderId": other } })).unwrap_err(), ["/payload/orderId"]);
        let good = json!({ "orderId": ORDER });
        assert_eq!(with(json!({ "payload": good, "headers": { "ce_type": "x" } })).unwrap_err(), ["/headers/ce_type"]);
        assert_eq!(with(json!({ "payload": good, "headers": { "ce_id": other } })).unwrap_err(), ["/headers/ce_id"]);
        assert_eq!(
            with(json!({ "payload": good, "headers": { "dlq-topic": "x" } })).unwrap_err(),
            ["/headers/dlq-topic"]
        );
        assert_eq!(with(json!({ "payload": good, "headers": { "ce_step": null } })).unwrap_err(), ["/headers/ce_step"]);
    }
}
