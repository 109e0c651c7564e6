//! What must hold of a world that has come to rest: the invariants of ARCHITECTURE.md, from databases and logs.

use std::collections::BTreeSet;

use messaging::dead_letter::topic_of;
use saga::definition::{Compensation, Step};
use saga::{EntryKind, SagaState, legal_path};
use uuid::Uuid;

use crate::database::Database;
use crate::order_api::Status;
use crate::rules::Seen;
use crate::scheduler::World;
use crate::surroundings::Surroundings;

/// Runs a world to its end, and checks it. Returns what happened there. Panics when something does not hold.
pub(crate) fn run(mut world: World) -> Seen {
    world.suffer();
    world.drain();
    judge(&mut world.around);
    let before = Dump::of(&world.around);
    world.deliver_everything_again();
    assert_eq!(before, Dump::of(&world.around), "I7: delivered again, everything stays as it is");
    judge(&mut world.around);
    let Surroundings { seen, broker, .. } = world.around;
    seen.into_iter().chain(broker.seen).collect()
}

/// All state that is to survive a repetition.
#[derive(Debug, PartialEq)]
struct Dump {
    database: Database,
    orders: String,
    works: Vec<String>,
}

impl Dump {
    fn of(around: &Surroundings) -> Self {
        let mut resolved: BTreeSet<Uuid> = around.database.ids().into_iter().collect();
        resolved.retain(|id| is_resolved(around, *id));
        Dump {
            database: around.database.clone(),
            orders: around.orders.dump(),
            works: around.works.values().map(|work| work.dump(&resolved)).collect(),
        }
    }
}

fn is_resolved(around: &Surroundings, id: Uuid) -> bool {
    around.database.timeline(id).iter().any(|entry| entry.kind == EntryKind::OperatorResolved)
}

fn judge(around: &mut Surroundings) {
    let orders: BTreeSet<Uuid> = around.orders.rows.keys().copied().collect();
    let sagas: BTreeSet<Uuid> = around.database.ids().into_iter().collect();
    assert_eq!(orders, sagas, "I1: every order has its saga");
    outbox_is_published(around, &orders);
    around.definition.steps().iter().for_each(|step| what_chokes_is_kept(around, step));
    assert_eq!(around.database.unfinished().count(), 0, "no timer outlives its saga");
    for id in orders {
        let saga = around.database.stored(id).expect("it was loaded").saga;
        let timeline = around.database.timeline(id);
        let path = legal_path(&around.definition, id, &timeline);
        assert_eq!(path, Ok(saga.state), "I8: {timeline:#?}");
        assert_eq!(u32::try_from(timeline.len()), Ok(saga.version), "I8: an entry for each version");

        let order = &around.orders.rows[&id];
        let expected = match saga.state {
            SagaState::Completed => Status::Completed,
            SagaState::Compensated => Status::Cancelled,
            state => panic!("I1: {id} is {state}, which is no end"),
        };
        assert_eq!(order.status, expected, "I1: the order is as its saga, {timeline:#?}");
        assert_eq!(order.saga_version, u64::from(saga.version), "I1: the last event was applied");

        let is_resolved = is_resolved(around, id);
        if is_resolved {
            around.seen.insert("a saga is resolved");
        } else {
            around.seen.insert(if saga.state == SagaState::Completed {
                "a saga is COMPLETED"
            } else {
                "a saga is COMPENSATED"
            });
        }
        if timeline.iter().any(|entry| entry.state == SagaState::Parked) {
            around.seen.insert("a saga was parked");
        }
        for step in around.definition.steps() {
            let counts = around.works[&step.name].counts(id);
            judge_effects(step, counts, Some(saga.state).filter(|_| !is_resolved));
        }
    }
}

/// I2: every row of the outbox is published, and nothing else.
fn outbox_is_published(around: &Surroundings, orders: &BTreeSet<Uuid>) {
    let subject = |record: &messaging::Record| record.header("ce_subject").and_then(|id| id.parse().ok());
    let records = around.broker.all(&around.definition.trigger().topic);
    let published: BTreeSet<Uuid> = records.filter_map(subject).collect();
    assert_eq!(&published, orders, "I2: every order is published, and nothing else");
}

/// I6: whatever a participant cannot apply is in its dead letters, and nothing else is.
fn what_chokes_is_kept(around: &Surroundings, step: &Step) {
    let keys = |topic: &str| around.broker.all(topic).map(|record| record.key.clone()).collect::<BTreeSet<_>>();
    let mut commands = keys(&step.command.topic);
    let work = &around.works[&step.name];
    commands
        .retain(|key| work.chokes_on(key.as_deref().and_then(|key| Uuid::try_parse_ascii(key).ok()).expect("an id")));
    assert_eq!(keys(&topic_of(&step.command.topic)), commands, "I6: dead letters of {}", step.name);
}

/// I3. `ended` is none for a saga whose end an operator declared: that person answers for it.
fn judge_effects(step: &Step, (effects, undos): (usize, usize), ended: Option<SagaState>) {
    let name = &step.name;
    assert!(effects <= 1 && undos <= effects, "I3: {name} had {effects} effects and {undos} undos");
    match ended {
        Some(SagaState::Completed) => assert_eq!((effects, undos), (1, 0), "I3: {name} of a completed saga"),
        Some(_) if step.compensation == Some(Compensation::NothingToUndo) => {}
        Some(_) => assert_eq!(effects, undos, "I3: {name} of a cancelled saga"),
        None => {}
    }
}
