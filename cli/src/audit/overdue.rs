//! Orders that have been PENDING for longer than they may.
//!
//! Time counts only while the system had its chance: from the order's last transition, not before the stack was up, not
//! while a message of it waits to be read, and not if it goes on before our eyes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use orders::topics::ORDER_CREATED;
use saga::Definition;
use uuid::Uuid;

use super::facts::messages::at;
use super::facts::sagas::{self, Entry};
use super::facts::topics::{Lane, Topics};
use super::report::Finding;
use super::{Target, World, facts};

/// What an order has beyond all that its saga's definition allows, or before it has a saga. Longer than any part of the
/// platform may need to notice and mend a loss: the reconciler publishes the event of an order that is PENDING for two
/// minutes again.
const GRACE: TimeDelta = TimeDelta::minutes(5);

/// A group that commits nothing for so long, while something waits for it, does not read.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Orders and timers past their time.
#[derive(Default)]
pub(super) struct Overdue {
    /// Those that are, and did not go on while we looked.
    pub(super) late: Vec<Late>,
    /// How many there were that went on.
    pub(super) going_on: usize,
    /// How many would be, if the stack had been up all the time.
    pub(super) since_down: usize,
}

/// Something past its time.
pub(super) struct Late {
    /// The order.
    id: Uuid,
    /// The version of its saga, if it has one.
    version: Option<i32>,
    what: What,
    /// Where something was unread that it waits for; none when it waits for nothing that anybody could still read.
    lanes: Vec<Lane>,
}

enum What {
    NoSaga,
    Saga { state: String, since: DateTime<Utc>, last: DateTime<Utc> },
    Timer { state: String, due: DateTime<Utc> },
}

/// Finds what is past its time by the database's clock; all others that are PENDING are in flight.
pub(super) fn find(world: &World) -> Overdue {
    let mut search = Search { world, unread: None, published: None, found: Overdue::default() };
    let timelines: HashMap<Uuid, &[Entry]> =
        world.sagas.timelines().map(|timeline| (timeline[0].saga_id, timeline)).collect();
    for order in world.orders.orders.values().filter(|order| order.status == "PENDING") {
        let Some(saga) = world.sagas.sagas.get(&order.id) else {
            if search.is_late(order.created_at, GRACE) && search.is_published(order.id) {
                let lanes = search.unread(order.id);
                search.found.late.push(Late { id: order.id, version: None, what: What::NoSaga, lanes });
            }
            continue;
        };
        // Otherwise it was not told yet, or never: that is compared where sagas are at rest.
        if !matches!(saga.state.as_str(), "RUNNING" | "COMPENSATING") {
            continue;
        }
        // A definition that cannot be read is named by I8, and so is a saga without a timeline.
        let Some(definition) = world.sagas.definition(saga) else { continue };
        let Some([.., last]) = timelines.get(&saga.id) else { continue };
        let allowed = patience(definition, &saga.state).checked_add(&GRACE).unwrap_or(TimeDelta::MAX);
        if search.is_late(last.at, allowed) {
            let mut lanes = search.unread(order.id);
            lanes.extend(world.topics.unread_answers(saga.partition));
            let what = What::Saga { state: saga.state.clone(), since: set_out(timelines[&saga.id]), last: last.at };
            search.found.late.push(Late { id: order.id, version: Some(saga.version), what, lanes });
        }
    }
    for saga in world.sagas.in_flight() {
        if let Some(due) = saga.due_at.filter(|due| search.is_late(*due, GRACE)) {
            let lanes = world.topics.unread_answers(saga.partition);
            let what = What::Timer { state: saga.state.clone(), due };
            search.found.late.push(Late { id: saga.id, version: Some(saga.version), what, lanes });
        }
    }
    search.found
}

struct Search<'w> {
    world: &'w World,
    /// Only looked up when something is late.
    unread: Option<HashMap<Uuid, Vec<Lane>>>,
    published: Option<HashSet<Uuid>>,
    found: Overdue,
}

impl Search<'_> {
    fn is_late(&mut self, since: DateTime<Utc>, allowed: TimeDelta) -> bool {
        let now = self.world.sagas_before.began_at;
        if now - since <= allowed {
            return false;
        }
        let had_its_chance = self.world.ready_since.is_none_or(|ready| now - ready > allowed);
        if !had_its_chance {
            self.found.since_down += 1;
        }
        had_its_chance
    }

    fn unread(&mut self, order: Uuid) -> Vec<Lane> {
        self.unread.get_or_insert_with(|| self.world.topics.unread()).get(&order).cloned().unwrap_or_default()
    }

    /// Whether the order's event has been on its topic, so far as one can tell. One that is not published is for I2.
    fn is_published(&mut self, order: Uuid) -> bool {
        let topics = &self.world.topics;
        let events = || topics.on(ORDER_CREATED).filter_map(|message| message.key.order()).collect();
        !topics.is_whole(ORDER_CREATED, None) || self.published.get_or_insert_with(events).contains(&order)
    }
}

/// Takes away from `late` what has gone on by now: its saga has moved, its timer has fired, or what it waits behind is
/// being read.
pub(super) async fn forget_moved(late: &mut Vec<Late>, target: &Target, topics: &Topics) -> anyhow::Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = late.iter().map(|late| late.id).collect();
    let now = sagas::progress(&mut facts::snapshot(target, "orchestrator").await?, &ids).await?;
    let lanes: HashSet<Lane> = late.iter().flat_map(|late| &late.lanes).copied().collect();
    let read = if lanes.is_empty() { HashSet::new() } else { topics.gone_on(target, &lanes).await? };
    late.retain(|late| {
        let now = now.get(&late.id);
        let has_fired = matches!(late.what, What::Timer { due, .. } if now.and_then(|(_, due)| *due) != Some(due));
        let has_moved = now.map(|(version, _)| *version) != late.version;
        !(has_moved || has_fired || late.lanes.iter().any(|lane| read.contains(lane)))
    });
    Ok(())
}

/// Records what is overdue, and counts what is under way.
pub(super) fn check(world: &World, finding: &mut Finding) {
    let Overdue { late, going_on, since_down } = &world.overdue;
    let ids: HashSet<Uuid> = late.iter().map(|late| late.id).collect();
    // The orchestrator leaves orders unread while too many sagas are in flight.
    let is_busy = world.sagas.in_flight().any(|saga| !ids.contains(&saga.id));
    let may_come = |late: &Late| is_busy && late.lanes.iter().any(|(_, topic, _)| *topic == ORDER_CREATED.name);
    // Whatever waits to be read may still be read, unless somebody has looked for long enough.
    let (lost, waiting): (Vec<_>, Vec<_>) =
        late.iter().partition(|late| late.lanes.is_empty() || (world.watched >= STANDSTILL && !may_come(late)));
    for late in &lost {
        finding.violation(late.tell(world));
    }
    let pending = world.orders.orders.values().filter(|order| order.status == "PENDING").count();
    let orders: HashSet<Uuid> = lost.iter().map(|late| late.id).collect();
    finding.count("PENDING", pending);
    finding.count("of them still under way", pending.saturating_sub(orders.len()));
    for (what, count) in [
        ("late, but going on", *going_on),
        ("late, behind what waits to be read", waiting.len()),
        ("late, but the stack was not up for so long", *since_down),
    ] {
        if count > 0 {
            finding.count(what, count);
        }
    }
}

impl Late {
    fn tell(&self, world: &World) -> String {
        let id = self.id;
        let order = || {
            let created = world.orders.orders.get(&id).map(|order| order.created_at);
            format!("order {id} is PENDING since {}", created.unwrap_or_default())
        };
        let told = match &self.what {
            What::NoSaga => format!("{} and has no saga{}", order(), letter(world, id)),
            What::Saga { state, since, last } => format!(
                "{} and its saga is {state} since {since}, without a step since {last}{}",
                order(),
                letter(world, id)
            ),
            What::Timer { state, due } => format!("saga {id} is {state} and its timer is due since {due}"),
        };
        match self.lanes.first() {
            None => told,
            Some((group, topic, partition)) => format!("{told}; {group} does not read {topic}/{partition}"),
        }
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
