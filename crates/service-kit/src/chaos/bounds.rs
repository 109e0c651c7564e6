//! What a fault may ask for. A record that asks for more is refused as a whole: it hurts nobody but its author.

use std::time::Duration;

use super::fault::{Fault, FaultRecord, Millis};

/// No fault lasts longer, and nothing that one does takes longer: a wrong clock or a slip of the pen must not make one
/// stay for ever.
pub(super) const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Copies of one message, and of all messages of a batch together, in multiples of it.
pub(super) const MOST_COPIES: u32 = 10;
const MOST_ATTEMPTS: u32 = 1_000;
const MOST_KEYS: usize = 1_000;
const MOST_HEADERS: usize = 8;
const MOST_MESSAGES: u64 = 1_000_000_000;
/// Bytes of a name, a key or a value of a header.
const LONGEST_TEXT: usize = 256;

/// A fault asks for what none may ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct OutOfBounds {
    /// The field of the record: `blastRadius.first`.
    pub field: &'static str,
    /// What would be right: `from 1 to 10`.
    pub rule: String,
}

fn within(field: &'static str, value: u64, most: u64) -> Result<(), OutOfBounds> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(OutOfBounds { field, rule: format!("from 1 to {most}") }) }
}

fn at_most(field: &'static str, value: usize, most: usize) -> Result<(), OutOfBounds> {
    if value <= most { Ok(()) } else { Err(OutOfBounds { field, rule: format!("at most {most}") }) }
}

fn time(field: &'static str, value: Millis) -> Result<(), OutOfBounds> {
    if Duration::from(value) <= LONGEST {
        return Ok(());
    }
    Err(OutOfBounds { field, rule: format!("at most {}", humantime::format_duration(LONGEST)) })
}

impl FaultRecord {
    /// Whether everything that it asks for is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let radius = &self.blast_radius;
        if !(0.0..=100.0).contains(&radius.percentage) {
            return Err(OutOfBounds { field: "blastRadius.percentage", rule: "from 0 to 100".to_owned() });
        }
        radius.first.map_or(Ok(()), |first| within("blastRadius.first", first, MOST_MESSAGES))?;
        radius.every.map_or(Ok(()), |every| within("blastRadius.every", every, MOST_MESSAGES))?;
        at_most("the number of blastRadius.keys", radius.keys.len(), MOST_KEYS)?;
        at_most("the number of blastRadius.headers", radius.headers.len(), MOST_HEADERS)?;
        let headers = radius.headers.iter().flat_map(|(name, value)| [name, value]);
        for text in radius.keys.iter().chain(headers) {
            at_most("the length of a key or header in blastRadius", text.len(), LONGEST_TEXT)?;
        }
        let target = &self.target;
        let names = [&target.service, &target.instance, &target.topic, &target.step, &target.definition];
        for name in names.into_iter().flatten() {
            at_most("the length of a name in target", name.len(), LONGEST_TEXT)?;
        }
        match &self.fault {
            Fault::Latency { duration, jitter } => {
                time("fault.duration", *duration)?;
                time("fault.jitter", *jitter)
            }
            Fault::SlowConsumer { per_message } => time("fault.perMessage", *per_message),
            Fault::Error { attempts, .. } => within("fault.attempts", (*attempts).into(), MOST_ATTEMPTS.into()),
            Fault::Duplicate { copies } => within("fault.copies", (*copies).into(), MOST_COPIES.into()),
            Fault::DropMessage | Fault::DropReply | Fault::Reorder | Fault::Corrupt { .. } | Fault::PauseConsumer => {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(fault: Value, radius: Value) -> Option<&'static str> {
        let record = json!({
            "id": "7f0c9f5e-6f0a-4a51-9d6f-0b9c3f1c2d11", "target": {}, "fault": fault, "blastRadius": radius,
            "expiresAt": "2026-11-21T12:00:00Z",
        });
        let record: FaultRecord = serde_json::from_value(record).expect("a fault");
        record.check().err().map(|error| error.field)
    }

    #[test]
    fn what_no_fault_may_ask_for_is_named() {
        let ages = "100000000years";
        let cases = [
            (json!({ "type": "latency", "duration": ages }), json!({}), "fault.duration"),
            (json!({ "type": "latency", "duration": "1s", "jitter": "16m" }), json!({}), "fault.jitter"),
            (json!({ "type": "slow-consumer", "perMessage": ages }), json!({}), "fault.perMessage"),
            (json!({ "type": "duplicate", "copies": 11 }), json!({}), "fault.copies"),
            (json!({ "type": "duplicate", "copies": 0 }), json!({}), "fault.copies"),
            (json!({ "type": "error", "kind": "transient", "attempts": u32::MAX }), json!({}), "fault.attempts"),
            (json!({ "type": "reorder" }), json!({ "every": 0 }), "blastRadius.every"),
            (json!({ "type": "reorder" }), json!({ "first": u64::MAX }), "blastRadius.first"),
            (json!({ "type": "reorder" }), json!({ "percentage": 101 }), "blastRadius.percentage"),
            (json!({ "type": "reorder" }), json!({ "percentage": -1 }), "blastRadius.percentage"),
            (json!({ "type": "reorder" }), json!({ "keys": vec!["k"; 1_001] }), "the number of blastRadius.keys"),
        ];
        for (fault, radius, field) in cases {
            assert_eq!(refused(fault.clone(), radius.clone()), Some(field), "{fault} {radius}");
        }
        assert_eq!(refused(json!({ "type": "latency", "duration": "15m", "jitter": "15m" }), json!({})), None);
        assert_eq!(refused(json!({ "type": "duplicate", "copies": 10 }), json!({ "first": 1, "every": 7 })), None);
    }
}
