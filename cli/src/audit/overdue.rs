//! Orders that have been PENDING for longer than they may.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use saga::Definition;
use uuid::Uuid;

use super::World;
use super::facts::sagas::Entry;
use super::facts::topics::at;
use super::report::Finding;

/// What an order has beyond all that its saga's definition allows, or before it has a saga. Longer than any part of the
/// platform may need to notice and mend a loss: the reconciler publishes the event of an order that is PENDING for two
/// minutes again.
pub(super) const GRACE: TimeDelta = TimeDelta::minutes(5);

/// Records every order that is overdue by the database's clock; all others that are PENDING are in flight.
pub(super) fn check(world: &World, finding: &mut Finding) {
    let sagas = &world.sagas;
    let set_out: HashMap<Uuid, DateTime<Utc>> =
        sagas.timelines().map(|timeline| (timeline[0].saga_id, set_out(timeline))).collect();
    for order in world.orders.orders.values().filter(|order| order.status == "PENDING") {
        let saga = sagas.sagas.get(&order.id);
        let (since, allowed, what) = match saga.map(|saga| (saga, saga.state.as_str())) {
            None => (order.created_at, TimeDelta::zero(), "has no saga".to_owned()),
            Some((saga, state @ ("RUNNING" | "COMPENSATING"))) => {
                // A definition that cannot be read is named by I8.
                let Some(definition) = sagas.definition(saga) else { continue };
                let since = set_out.get(&saga.id).copied().unwrap_or(order.created_at);
                (since, patience(definition, state), format!("its saga is {state} since {since}"))
            }
            // Not told yet, or never: that is compared where sagas are at rest.
            Some(_) => continue,
        };
        let is_in_time = world.sagas_before.began_at - since <= allowed.checked_add(&GRACE).unwrap_or(TimeDelta::MAX);
        finding.require(is_in_time, || {
            format!("order {} is PENDING since {} and {what}{}", order.id, order.created_at, letter(world, order.id))
        });
    }
}

/// When the saga began, or began again after it was parked.
fn set_out(timeline: &[Entry]) -> DateTime<Utc> {
    let again = timeline.windows(2).rfind(|pair| pair[0].state == "PARKED");
    again.map_or(timeline[0].at, |pair| pair[1].at)
}

/// The sum of what the definition gives its steps until the saga is at rest: all attempts of every command and, on the
/// way back, of every undo too.
fn patience(definition: &Definition, state: &str) -> TimeDelta {
    let mut sum = Duration::ZERO;
    for step in definition.steps() {
        sum = sum.saturating_add(step.deadline.saturating_mul(step.attempts));
        if let Some(undo) = step.undo().filter(|_| state == "COMPENSATING") {
            sum = (1..=undo.attempts).fold(sum, |sum, attempt| sum.saturating_add(undo.patience(attempt)));
        }
    }
    TimeDelta::from_std(sum).unwrap_or(TimeDelta::MAX)
}

/// Where the message of `order` is that a group gave up last; empty when there is none.
pub(super) fn letter(world: &World, order: Uuid) -> String {
    let Some(letter) = world.topics.last_letter(order) else { return String::new() };
    let topic = letter.origin.as_ref().map_or("a message", |origin| &origin.0);
    let (group, reason) = (letter.group.as_deref().unwrap_or("?"), letter.reason.as_deref().unwrap_or("?"));
    format!("; {topic} is in the dead letters at {}: {group} gave it up as {reason}", at(&letter.place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_has_the_sum_of_its_attempts_and_on_the_way_back_of_its_undos() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sagas/order.yaml");
        let yaml = std::fs::read_to_string(file).expect("the definition");
        let definition = Definition::parse(&yaml, file).expect("a definition");
        let forward = 3 * 4 * 15;
        // 20 attempts of 15 s; pauses of 1 s to 256 s, then of 5 min.
        let back = 3 * (20 * 15 + 511 + 11 * 300);
        assert_eq!(patience(&definition, "RUNNING"), TimeDelta::seconds(forward));
        assert_eq!(patience(&definition, "COMPENSATING"), TimeDelta::seconds(forward + back));
    }
}
