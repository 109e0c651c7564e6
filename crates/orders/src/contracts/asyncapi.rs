//! The AsyncAPI 3.0 document: what a participant in another language has to know.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::catalogue::{CATALOGUE, Contract, Role};
use super::{examples, schema};
use crate::ids::order_created_id;

const DESCRIPTION: &str = "\
Messages of the order application of Chaos Symphony, a saga platform over Kafka.

**Format.** CloudEvents 1.0 in Kafka's binary mode: the attributes are headers, UTF-8 text; the value is JSON. The key is \
the order id as text, equal to `ce_subject`. Producers partition by `murmur2_random` (Java's default), with `acks=all`. \
Readers ignore fields and headers that they do not know.

**A participant** reads the commands and undos of its step and answers each on a reply topic.

1. An answer carries the command's key, `ce_subject`, `ce_sagaid` and `ce_step`; its `ce_causationid` is the command's \
`ce_id`. Its `ce_id` is UUIDv5 with the saga id as namespace and `<step>/do/reply` or `<step>/undo/reply` as name. It \
continues the trace in `traceparent`.
2. Delivery is at least once. A command that comes again has the same `ce_id`, takes no effect again, and is answered \
again with the same bytes, `ce_time` too: store the answer with the effect, in one transaction.
3. Commit, then produce and await the acknowledgements, then commit offsets. Never in another order.
4. An undo is never refused. It may come before its command, or without one: remember it, answer it, and refuse the \
command when it comes, on the failure topic.
5. What is not JSON, not of this schema, or lacks a header goes to `<topic>.dlq`, unchanged, with its cause in headers \
`dlq-*`; then its neighbours go on.

The operations are those of the orchestrator: what it sends, a participant receives, and the other way round.";

/// The AsyncAPI 3.0 document of every topic.
pub fn asyncapi() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    let mut schemas = Map::new();
    for contract in CATALOGUE {
        let topic = contract.topic.name;
        channels.insert(topic.to_owned(), channel(contract));
        operations.insert(operation_name(contract), operation(contract));
        messages.insert(topic.to_owned(), message(contract));
        schemas.insert(topic.to_owned(), embedded(contract));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Chaos Symphony: orders",
            "version": "1.0.0",
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "The local profile.",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

fn channel(contract: &Contract) -> Value {
    let topic = contract.topic.name;
    json!({
        "address": topic,
        "title": contract.message,
        "description": purpose(contract),
        "messages": { contract.message: { "$ref": format!("#/components/messages/{topic}") } },
        "bindings": { "kafka": { "topic": topic } },
    })
}

fn purpose(contract: &Contract) -> String {
    let route = format!("From {} to {}.", contract.sender, contract.receivers.join(", "));
    match contract.role {
        Role::Trigger => format!("Starts the saga of an order. {route}"),
        Role::Command { step, replies } => {
            let replies: Vec<_> = replies.iter().map(|topic| format!("`{}`", topic.name)).collect();
            format!("Command of the step `{step}`, answered on {}. {route}", replies.join(" or "))
        }
        Role::Undo { step, reply } => format!("Undoes the step `{step}`, answered on `{}`. {route}", reply.name),
        Role::Reply { step } => format!("Answers the command of the step `{step}`. {route}"),
        Role::Undone { step } => format!("Answers the undo of the step `{step}`. {route}"),
        Role::End { status } => format!("The order's saga is {status}. {route}"),
    }
}

fn operation_name(contract: &Contract) -> String {
    let mut name = action(contract).to_owned();
    for part in contract.topic.name.split('.') {
        let (first, rest) = part.split_at(1);
        name.push_str(&first.to_uppercase());
        name.push_str(rest);
    }
    name
}

fn action(contract: &Contract) -> &'static str {
    match contract.role {
        Role::Command { .. } | Role::Undo { .. } | Role::End { .. } => "send",
        Role::Trigger | Role::Reply { .. } | Role::Undone { .. } => "receive",
    }
}

fn operation(contract: &Contract) -> Value {
    let topic = contract.topic.name;
    let channel = format!("#/channels/{topic}");
    let mut operation = json!({
        "action": action(contract),
        "channel": { "$ref": channel },
        "summary": purpose(contract),
        "messages": [{ "$ref": format!("{channel}/messages/{}", contract.message) }],
    });
    // AsyncAPI knows one reply channel an operation; a command here has two.
    let replies: Vec<&str> = match contract.role {
        Role::Command { replies, .. } => replies.iter().map(|topic| topic.name).collect(),
        Role::Undo { reply, .. } => vec![reply.name],
        _ => Vec::new(),
    };
    if !replies.is_empty() {
        operation["x-reply-topics"] = replies.into();
    }
    operation
}

fn message(contract: &Contract) -> Value {
    let topic = contract.topic.name;
    let mut message = json!({
        "name": contract.topic.event_type,
        "title": contract.message,
        "summary": purpose(contract),
        "contentType": "application/json",
        "headers": headers(contract),
        "payload": { "$ref": format!("#/components/schemas/{topic}") },
        "bindings": {
            "kafka": {
                "key": { "type": "string", "format": "uuid", "description": "The order id; equal to ce_subject." }
            }
        },
        "examples": [{
            "name": contract.message,
            "headers": example_headers(contract),
            "payload": (contract.example)(),
        }],
    });
    if is_answer(contract) {
        message["correlationId"] = json!({
            "location": "$message.header#/ce_causationid",
            "description": "ce_id of the command that is answered.",
        });
    }
    message
}

fn is_answer(contract: &Contract) -> bool {
    matches!(contract.role, Role::Reply { .. } | Role::Undone { .. })
}

fn is_of_orchestrator(contract: &Contract) -> bool {
    matches!(contract.role, Role::Command { .. } | Role::Undo { .. } | Role::End { .. })
}

/// How `ce_id` is made, for a reader that wants to check it and a participant that has to make it.
fn id_rule(contract: &Contract) -> String {
    match contract.role {
        Role::Trigger => format!("UUIDv5(order id, \"{}\").", contract.topic.name),
        Role::Command { step, .. } => format!("UUIDv5(saga id, \"{step}/do\")."),
        Role::Undo { step, .. } => format!("UUIDv5(saga id, \"{step}/undo\")."),
        Role::Reply { step } => format!("UUIDv5(saga id, \"{step}/do/reply\")."),
        Role::Undone { step } => format!("UUIDv5(saga id, \"{step}/undo/reply\")."),
        Role::End { .. } => format!("UUIDv5(saga id, \"{}/<sagaVersion>\").", contract.topic.name),
    }
}

fn headers(contract: &Contract) -> Value {
    let uuid = |description: String| json!({ "type": "string", "format": "uuid", "description": description });
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut header = |name: &str, schema: Value| {
        properties.insert(name.to_owned(), schema);
        required.push(name.to_owned());
    };
    header("ce_specversion", json!({ "type": "string", "const": "1.0" }));
    header("ce_id", uuid(id_rule(contract)));
    header("ce_type", json!({ "type": "string", "const": contract.topic.event_type }));
    header("ce_source", json!({ "type": "string", "format": "uri-reference", "description": "Who sent it." }));
    header("ce_subject", uuid("The order id; equal to the key.".into()));
    let time = "When the fact was stored, RFC 3339. The same when the message is sent again.";
    header("ce_time", json!({ "type": "string", "format": "date-time", "description": time }));
    header("ce_sagaid", uuid("The saga; of an order it is the order id.".into()));
    if is_of_orchestrator(contract) {
        header("ce_sagadefinition", json!({ "type": "string", "description": "The name of the saga's definition." }));
    }
    if let Some(step) = contract.role.step() {
        header("ce_step", json!({ "type": "string", "const": step, "description": "The saga's step." }));
    }
    if is_answer(contract) {
        header("ce_causationid", uuid("ce_id of the command that is answered.".into()));
    }
    header("content-type", json!({ "type": "string", "const": "application/json" }));
    let traceparent = "W3C trace context; what a message causes continues its trace.";
    properties.insert("traceparent".to_owned(), json!({ "type": "string", "description": traceparent }));
    json!({ "type": "object", "properties": properties, "required": required })
}

fn example_headers(contract: &Contract) -> Value {
    let order = examples::ORDER;
    let id = |name: &str| Uuid::new_v5(&order, name.as_bytes());
    let payload = (contract.example)();
    let (ce_id, causation) = match contract.role {
        Role::Trigger => (order_created_id(order), None),
        Role::Command { step, .. } => (id(&format!("{step}/do")), None),
        Role::Undo { step, .. } => (id(&format!("{step}/undo")), None),
        Role::Reply { step } => (id(&format!("{step}/do/reply")), Some(id(&format!("{step}/do")))),
        Role::Undone { step } => (id(&format!("{step}/undo/reply")), Some(id(&format!("{step}/undo")))),
        Role::End { .. } => (id(&format!("{}/{}", contract.topic.name, payload["sagaVersion"])), None),
    };
    let mut headers = json!({
        "ce_specversion": "1.0",
        "ce_id": ce_id,
        "ce_type": contract.topic.event_type,
        "ce_source": format!("/chaos-symphony/{}", contract.sender),
        "ce_subject": order,
        "ce_time": examples::TIME,
        "ce_sagaid": order,
        "content-type": "application/json",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    if is_of_orchestrator(contract) {
        headers["ce_sagadefinition"] = "order".into();
    }
    if let Some(step) = contract.role.step() {
        headers["ce_step"] = step.into();
    }
    if let Some(causation) = causation {
        headers["ce_causationid"] = json!(causation);
    }
    headers
}

/// The schema as a component: its own definitions move beside it, where `#/…` finds them.
fn embedded(contract: &Contract) -> Value {
    let mut schema = schema(contract);
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    let prefix = format!("#/components/schemas/{}/$defs/", contract.topic.name);
    relocate(&mut schema, &prefix);
    schema
}

fn relocate(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(reference) if name == "$ref" => {
                        if let Some(definition) = reference.strip_prefix("#/$defs/") {
                            *reference = format!("{prefix}{definition}");
                        }
                    }
                    field => relocate(field, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, prefix)),
        _ => {}
    }
}
