//! Orders that have been PENDING for longer than they may.
//!
//! Time counts only while the system had its chance: from the order's last transition, not before the stack was up, not
//! while a message of it waits to be read, and not if it goes on before our eyes. Behind which messages it waits is settled
//! when it is found: under load there are always new ones, and they are no excuse.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use orders::topics::ORDER_CREATED;
use saga::Definition;
use uuid::Uuid;

use super::facts::messages::at;
use super::facts::sagas::{self, Entry, SagaRow};
use super::facts::topics::{self, Lane, Topics, Unread};
use super::report::Finding;
use super::{Target, World, facts};

/// What an order has beyond all that its saga's definition allows, or before it has a saga. Longer than any part of the
/// platform may need to notice and mend a loss: the reconciler publishes the event of an order that is PENDING for two
/// minutes again.
const GRACE: TimeDelta = TimeDelta::minutes(5);

/// A group that commits nothing for so long, while something waits for it, does not read.
/// What it had read by then has had its effect, too.
const STANDSTILL: Duration = Duration::from_secs(10);

/// With fewer sagas in flight no replica of the orchestrator leaves orders unread: `sagas.max_in_flight` by default.
const GATE: usize = 2_000;

/// Orders and timers past their time.
#[derive(Default)]
pub(super) struct Overdue {
    /// Those that are, and did not go on themselves while we looked.
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
    /// What it waits for and is still unread; none when it waits for nothing that anybody could still read.
    unread: Vec<Unread>,
    /// Whether somebody goes on reading there.
    is_read: bool,
    /// When it was last seen that some of it had been read.
    passed: Option<Instant>,
    /// Whether what is unread came of what was unread at first.
    is_aftermath: bool,
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
                let unread = search.unread(order.id);
                search.found.late.push(Late::new(order.id, None, What::NoSaga, unread));
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
            let mut unread = search.unread(order.id);
            unread.extend(world.topics.unread_answers());
            let what = What::Saga { state: saga.state.clone(), since: set_out(timelines[&saga.id]), last: last.at };
            search.found.late.push(Late::new(order.id, Some(saga), what, unread));
        }
    }
    for saga in world.sagas.in_flight() {
        if let Some(due) = saga.due_at.filter(|due| search.is_late(*due, GRACE)) {
            let unread = world.topics.unread_answers();
            let what = What::Timer { state: saga.state.clone(), due };
            search.found.late.push(Late::new(saga.id, Some(saga), what, unread));
        }
    }
    search.found
}

struct Search<'w> {
    world: &'w World,
    /// Only looked up when something is late.
    unread: Option<HashMap<Uuid, Vec<Unread>>>,
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

    fn unread(&mut self, order: Uuid) -> Vec<Unread> {
        self.unread.get_or_insert_with(|| self.world.topics.unread()).get(&order).cloned().unwrap_or_default()
    }

    /// Whether the order's event has been on its topic, so far as one can tell. One that is not published is for I2.
    fn is_published(&mut self, order: Uuid) -> bool {
        let topics = &self.world.topics;
        let events = || topics.on(ORDER_CREATED).filter_map(|message| message.key.order()).collect();
        !topics.is_whole(ORDER_CREATED, None) || self.published.get_or_insert_with(events).contains(&order)
    }
}

/// Takes away from `late` what has gone on by now: its saga has moved, or its timer has fired. Looks at what the others
/// wait behind.
pub(super) async fn forget_moved(late: &mut Vec<Late>, target: &Target, topics: &Topics) -> anyhow::Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = late.iter().map(|late| late.id).collect();
    let now = sagas::progress(&mut facts::snapshot(target, "orchestrator").await?, &ids).await?;
    late.retain(|late| {
        let now = now.get(&late.id);
        let has_fired = matches!(late.what, What::Timer { due, .. } if now.and_then(|(_, due)| *due) != Some(due));
        let has_moved = now.map(|(version, _)| *version) != late.version;
        !(has_moved || has_fired)
    });
    if late.iter().all(|late| late.unread.is_empty()) {
        return Ok(());
    }
    let next = topics::committed(target).await?;
    for late in late.iter_mut() {
        late.look(&next, |lane| topics.next_before(lane));
    }
    if late.iter().any(Late::has_aftermath) {
        let answers = topics::answers_by_now(target).await?;
        for late in late.iter_mut().filter(|late| late.has_aftermath()) {
            late.await_aftermath(&answers);
        }
    }
    Ok(())
}

/// Records what is overdue, and counts what is under way.
pub(super) fn check(world: &World, finding: &mut Finding) {
    let Overdue { late, going_on, since_down } = &world.overdue;
    // The orchestrator leaves orders unread while too many sagas are in flight.
    let is_closed = world.sagas.in_flight().count() >= GATE;
    let (lost, others): (Vec<_>, Vec<_>) = late.iter().partition(|late| late.is_lost(world.watched, is_closed));
    let (read, waiting): (Vec<_>, Vec<_>) = others.into_iter().partition(|late| late.is_read);
    for late in &lost {
        finding.violation(late.tell(world));
    }
    let pending = world.orders.orders.values().filter(|order| order.status == "PENDING").count();
    let orders: HashSet<Uuid> = lost.iter().map(|late| late.id).collect();
    finding.count("PENDING", pending);
    finding.count("of them still under way", pending.saturating_sub(orders.len()));
    for (what, count) in [
        ("late, but going on", *going_on + read.len()),
        ("late, behind what waits to be read", waiting.len()),
        ("late, but the stack was not up for so long", *since_down),
    ] {
        if count > 0 {
            finding.count(what, count);
        }
    }
}

impl Late {
    fn new(id: Uuid, saga: Option<&SagaRow>, what: What, unread: Vec<Unread>) -> Self {
        let version = saga.map(|saga| saga.version);
        Self { id, version, what, unread, is_read: false, passed: None, is_aftermath: false }
    }

    /// Forgets what has been read by now; `next` are the offsets of the groups now, `before` gives those at the beginning.
    fn look(&mut self, next: &HashMap<Lane, i64>, before: impl Fn(&Lane) -> i64) {
        let (waited, next) = (self.unread.len(), |lane: &Lane| next.get(lane).copied().unwrap_or_default());
        self.unread.retain(|unread| next(&unread.lane) < unread.end);
        if self.unread.len() < waited {
            self.passed = Some(Instant::now());
        }
        self.is_read = self.unread.iter().any(|unread| next(&unread.lane) > before(&unread.lane));
    }

    /// Whether all that it waited behind was read just now, so that its saga may still have to read what came of that.
    fn has_aftermath(&self) -> bool {
        self.unread.is_empty() && self.passed.is_some() && self.version.is_some() && !self.is_aftermath
    }

    /// It waits once more, behind `answers`.
    fn await_aftermath(&mut self, answers: &[Unread]) {
        self.unread.extend(answers);
        self.is_aftermath = true;
    }

    /// Whether nothing will come of it any more. Whatever waits to be read may still be read, and what was read have its
    /// effect, unless somebody has looked for long enough. `is_closed` says whether the orchestrator leaves orders unread.
    fn is_lost(&self, watched: Duration, is_closed: bool) -> bool {
        if self.unread.is_empty() && self.passed.is_none() {
            return true;
        }
        let may_come = is_closed && self.unread.iter().any(|unread| unread.lane.1 == ORDER_CREATED.name);
        let has_settled = self.passed.is_none_or(|passed| passed.elapsed() >= STANDSTILL);
        watched >= STANDSTILL && has_settled && !self.is_read && !may_come
    }

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
        match self.unread.first() {
            None => told,
            Some(Unread { lane: (group, topic, partition), .. }) => {
                format!("{told}; {group} does not read {topic}/{partition}")
            }
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

    const ANSWERS: Lane = ("orchestrator", "payment.successful", 3);
    const COMMANDS: Lane = ("payment-svc", "payment.requested", 3);

    /// A saga without a step for long, found when `lane` was at offset 10 and its message, or the last answer, at 19.
    fn stuck(lane: Lane) -> Late {
        let at = Utc::now();
        let what = What::Saga { state: "RUNNING".to_owned(), since: at, last: at };
        Late { version: Some(4), ..Late::new(Uuid::nil(), None, what, vec![Unread { lane, end: 20 }]) }
    }

    fn look(late: &mut Late, lane: Lane, next: i64) {
        late.look(&HashMap::from([(lane, next)]), |_| 10);
    }

    /// As if what was read had been read longer ago than anything that comes of it takes.
    fn later(late: &mut Late) {
        late.passed = late.passed.and_then(|passed| passed.checked_sub(STANDSTILL));
    }

    #[test]
    fn a_backlog_excuses_a_saga_only_until_what_was_unread_at_first_is_read() {
        let mut late = stuck(ANSWERS);
        look(&mut late, ANSWERS, 19);
        assert!(!late.is_lost(STANDSTILL, false), "the orchestrator goes on reading");
        // New answers come all the time.
        look(&mut late, ANSWERS, 20);
        assert!(late.has_aftermath());
        late.await_aftermath(&[Unread { lane: ANSWERS, end: 30 }]);
        assert!(!late.has_aftermath());
        look(&mut late, ANSWERS, 29);
        assert!(!late.is_lost(STANDSTILL, false));
        look(&mut late, ANSWERS, 35);
        assert!(!late.has_aftermath(), "there is no third time");
        assert!(!late.is_lost(STANDSTILL, false), "what was read just now may still have its effect");
        later(&mut late);
        assert!(late.is_lost(STANDSTILL, false));
        assert!(!late.is_lost(Duration::ZERO, false), "nobody has watched");
    }

    #[test]
    fn an_answer_that_comes_of_a_backlog_of_commands_is_waited_for_too() {
        let mut late = stuck(COMMANDS);
        look(&mut late, COMMANDS, 20);
        late.await_aftermath(&[Unread { lane: ANSWERS, end: 30 }]);
        later(&mut late);
        look(&mut late, ANSWERS, 12);
        assert!(!late.is_lost(STANDSTILL, false), "the answer may be among what the orchestrator has not read");
    }

    #[test]
    fn an_order_that_nobody_reads_may_still_come_only_behind_a_closed_gate() {
        let mut late = Late::new(
            Uuid::nil(),
            None,
            What::NoSaga,
            vec![Unread { lane: ("orchestrator", ORDER_CREATED.name, 0), end: 20 }],
        );
        look(&mut late, ("orchestrator", ORDER_CREATED.name, 0), 10);
        assert!(late.is_lost(STANDSTILL, false) && !late.is_lost(STANDSTILL, true));
    }
}
