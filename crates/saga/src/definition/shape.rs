//! Whether a file has the fields it should, by the JSON Schema that editors use.
//!
//! Understands the part of JSON Schema that our own types generate. What is wrong is reported and replaced by
//! a stand-in of the right shape, so that the rest can be checked too.

use serde_json::{Map, Value, json};

use super::diagnostic::{Path, Problems};
use super::document::Document;
use super::schema::json_schema;
use super::spelling::did_you_mean;
use super::tree::{Field, Node, Place, Tree};

/// Compares the file with the schema. None only if the schema and the types disagree, which is reported.
pub(super) fn conform(root: &Node, problems: &mut Problems<'_>) -> Option<Document> {
    let value = Shape { problems }.check(root, json_schema(), &mut Vec::new());
    serde_json::from_value(value).map_err(|error| problems.report(&[], error.to_string(), None)).ok()
}

struct Shape<'p, 't> {
    problems: &'p mut Problems<'t>,
}

impl Shape<'_, '_> {
    /// The value of `node`, healed where it does not have the shape `schema` asks for.
    fn check(&mut self, node: &Node, schema: &'static Value, path: &mut Path) -> Value {
        let schema = choose(resolve(schema), node);
        let wrong = match &node.tree {
            Tree::Mapping(fields) if allows(schema, "object") => {
                return self.check_fields(fields, node.place, schema, path);
            }
            Tree::Sequence(items) if allows(schema, "array") => {
                return self.check_items(items, node.place, schema, path);
            }
            Tree::Scalar(value) => scalar_is_wrong(value, schema),
            Tree::Mapping(_) | Tree::Sequence(_) => Some(format!("expected {}", describe(schema))),
        };
        match wrong {
            None => node.to_value(),
            Some(message) => {
                let name = path.last().map_or_else(String::new, |name| format!("{name}: "));
                self.problems.report_at(node.place, format!("{name}{message}"), None);
                self.problems.heal(path);
                stand_in(schema)
            }
        }
    }

    fn check_fields(&mut self, fields: &[Field], place: Place, schema: &'static Value, path: &mut Path) -> Value {
        let known = schema["properties"].as_object();
        let mut healed = Map::new();
        for field in fields {
            let expected = known.and_then(|known| known.get(&field.name)).or_else(|| extra_fields(schema));
            if let Some(expected) = expected {
                path.push(field.name.clone());
                healed.insert(field.name.clone(), self.check(&field.node, expected, path));
                path.pop();
            } else {
                let names: Vec<&str> = known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect();
                let hint = did_you_mean(&field.name, names.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", names.join(", ")));
                self.problems.report_at(field.place, format!("unknown field \"{}\"", field.name), hint);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !healed.contains_key(name) {
                let property = &schema["properties"][name];
                let expected = resolve(property);
                let hint = property["description"].as_str().or_else(|| expected["description"].as_str());
                self.problems.report_at(place, format!("missing field \"{name}\""), hint.map(one_line));
                path.push(name.to_owned());
                self.problems.heal(path);
                path.pop();
                healed.insert(name.to_owned(), stand_in(expected));
            }
        }
        Value::Object(healed)
    }

    fn check_items(&mut self, items: &[Node], place: Place, schema: &'static Value, path: &mut Path) -> Value {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        if (items.len() as u64) < least {
            let name = path.last().cloned().unwrap_or_default();
            self.problems.report_at(place, format!("{name}: needs at least {least}"), None);
            self.problems.heal(path);
        }
        let checked = items.iter().enumerate().map(|(index, item)| {
            path.push(index.to_string());
            let value = self.check(item, &schema["items"], path);
            path.pop();
            value
        });
        Value::Array(checked.collect())
    }
}

/// Follows references into the schema's definitions.
fn resolve(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => json_schema().pointer(pointer).map_or(schema, resolve),
        None => schema,
    }
}

/// Of several alternatives the one for this kind of value, or the first if there is none.
fn choose(schema: &'static Value, node: &Node) -> &'static Value {
    let Some(alternatives) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) else { return schema };
    let kind = kind_of(node);
    let mut resolved = alternatives.iter().map(|alternative| choose(resolve(alternative), node));
    resolved.find(|alternative| allows(alternative, kind)).unwrap_or(schema)
}

fn kind_of(node: &Node) -> &'static str {
    match &node.tree {
        Tree::Mapping(_) => "object",
        Tree::Sequence(_) => "array",
        Tree::Scalar(value) => kind_of_scalar(value),
    }
}

fn kind_of_scalar(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        _ => "string",
    }
}

/// Whether the schema takes values of that kind. One that says nothing about kinds takes all, unless it only
/// lists alternatives.
fn allows(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == kind,
        Value::Array(several) => several.iter().any(|one| one == kind),
        _ => schema["anyOf"].is_null() && schema["oneOf"].is_null(),
    }
}

/// The schema of fields that are not named, where any are allowed.
fn extra_fields(schema: &'static Value) -> Option<&'static Value> {
    match &schema["additionalProperties"] {
        Value::Bool(false) => None,
        Value::Null if schema["properties"].is_object() => None,
        extra => Some(extra),
    }
}

fn scalar_is_wrong(value: &Value, schema: &'static Value) -> Option<String> {
    if !allows(schema, kind_of_scalar(value)) {
        return Some(format!("expected {}, found {value}", describe(schema)));
    }
    let words = schema["enum"].as_array().cloned().or_else(|| schema.get("const").map(|word| vec![word.clone()]));
    if let Some(words) = words.filter(|words| !words.contains(value)) {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        return Some(format!("expected {}, found {value}", words.join(" or ")));
    }
    let number = value.as_i64()?;
    let least = schema["minimum"].as_i64().filter(|least| number < *least);
    let most = schema["maximum"].as_i64().filter(|most| number > *most);
    least
        .map(|least| format!("must be at least {least}"))
        .or_else(|| most.map(|most| format!("must be at most {most}")))
}

/// What the schema asks for, for people.
fn describe(schema: &'static Value) -> String {
    if let Some(alternatives) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        let words: Vec<String> =
            alternatives.iter().map(|one| describe(resolve(one))).filter(|w| w != "nothing").collect();
        return words.join(" or ");
    }
    let kinds = match &schema["type"] {
        Value::Array(several) => several.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        one => one.as_str(),
    };
    let word = match kinds {
        Some("object") => "a mapping",
        Some("array") => "a list",
        Some("integer") => "a whole number",
        Some("boolean") => "true or false",
        Some("string") => return schema.get("const").map_or_else(|| "text".to_owned(), ToString::to_string),
        Some("null") => "nothing",
        _ => "a value",
    };
    word.to_owned()
}

/// Something of the right shape, in place of what is missing or wrong.
fn stand_in(schema: &'static Value) -> Value {
    let schema = resolve(schema);
    if let Some(first) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()).and_then(|all| all.first()) {
        return stand_in(first);
    }
    let kinds = match &schema["type"] {
        Value::Array(several) if several.iter().any(|kind| kind == "null") => return Value::Null,
        one => one.as_str(),
    };
    match kinds {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), stand_in(&schema["properties"][name])));
            Value::Object(fields.collect())
        }
        Some("array") => json!([]),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(0).into(),
        Some("boolean") => json!(false),
        Some("string") => match schema["enum"].as_array().and_then(|words| words.first()) {
            Some(word) => word.clone(),
            None => schema.get("const").cloned().unwrap_or_else(|| json!("")),
        },
        _ => Value::Null,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
