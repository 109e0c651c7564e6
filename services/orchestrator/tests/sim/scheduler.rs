//! One world: all processes under a scheduler that draws from a seed who goes on next, and what goes wrong.

use chrono::{DateTime, TimeDelta, Utc};
use saga::definition::Step;
use uuid::Uuid;

use crate::database::Database;
use crate::definitions;
use crate::log::{Broker, Network};
use crate::operator::Operator;
use crate::orchestrator::Orchestrator;
use crate::order_api::{Connect, OrderApi, Orders};
use crate::participant::Participant;
use crate::random::Random;
use crate::rules::{Sabotage, Seen};
use crate::surroundings::Surroundings;
use crate::work::{Habits, Work};

/// After so many steps the world heals, and has to come to rest.
const MOST_TROUBLE: usize = 500;

/// So many steps it may take, for each order placed.
const MOST_STEPS_TO_DRAIN: usize = 6_000;

pub(crate) struct World {
    pub(crate) around: Surroundings,
    slots: Vec<Slot>,
    operator: Operator,
    /// Dead members that their groups have not missed yet.
    ghosts: Vec<(String, u64)>,
    next_member: u64,
    wildness: usize,
    orders_to_place: usize,
}

/// A place for a process: it is started again after each crash.
struct Slot {
    role: Role,
    running: Option<Process>,
    /// Frozen: alive, and makes no step.
    asleep: bool,
}

#[derive(Clone)]
enum Role {
    Orchestrator,
    Participant(Box<Step>),
    OrderApi,
    Connect,
}

enum Process {
    Orchestrator(Box<Orchestrator>),
    Participant(Box<Participant>),
    OrderApi(Box<OrderApi>),
    Connect(Connect),
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random::new(seed);
        let definition = definitions::any(&mut random);
        // Some worlds are calm, some wild.
        let wildness = random.below(10);
        let network = Network { loses_acks: random.below(2 * wildness + 1), loses_records: random.below(wildness + 1) };
        let habits = Habits {
            declines: if random.percent(50) { random.below(60) } else { 0 },
            ponders: if random.percent(30) { random.below(50) } else { 0 },
            chokes: if random.percent(20) { random.below(40) } else { 0 },
        };
        let mut roles = vec![Role::Orchestrator, Role::Orchestrator, Role::OrderApi, Role::Connect];
        for step in definition.steps() {
            roles.extend(vec![Role::Participant(Box::new(step.clone())); 1 + random.below(2)]);
        }
        let works = (seed..).zip(definition.steps());
        let works = works.map(|(salt, step)| (step.name.clone(), Work::new(habits, salt))).collect();
        let orders = Orders::new(random.percent(50));
        let orders_to_place = 1 + random.below(5);
        let mut world = World {
            around: Surroundings {
                definition,
                random,
                now: DateTime::from_timestamp_millis(1_790_000_000_000).expect("a time"),
                broker: Broker::default(),
                network,
                database: Database::default(),
                orders,
                works,
                sabotage,
                seen: Seen::new(),
            },
            slots: roles.into_iter().map(|role| Slot { role, running: None, asleep: false }).collect(),
            operator: Operator::default(),
            ghosts: Vec::new(),
            next_member: 0,
            wildness,
            orders_to_place,
        };
        (0..world.slots.len()).for_each(|slot| world.start(slot));
        world
    }

    /// Things happen, in any order, until there was enough of them.
    pub(crate) fn suffer(&mut self) {
        let steps = 100 + self.around.random.below(MOST_TROUBLE);
        for _ in 0..steps {
            self.around.now += TimeDelta::milliseconds(1);
            let slot = self.around.random.below(self.slots.len());
            match self.around.random.below(1_000) {
                0..=19 => self.place_order(),
                20..=49 => self.time_passes(),
                50..=64 => drop(self.operator.go_on(&mut self.around)),
                65..=74 if self.wildness > 0 => self.around.broker.repeat_any(&mut self.around.random),
                75..=99 if self.around.random.percent(10 * self.wildness) => self.crash(slot),
                100..=114 if self.around.random.percent(10 * self.wildness) => self.freeze(slot),
                115..=134 => self.slots[slot].asleep = false,
                135..=144 => self.miss_ghosts(),
                _ => self.go_on(slot),
            }
        }
        (0..self.orders_to_place).for_each(|_| self.place_order());
    }

    /// Nothing goes wrong any more: every order has to end, in a bounded number of steps.
    pub(crate) fn drain(&mut self) {
        self.around.network = Network::default();
        self.miss_ghosts();
        let most = MOST_STEPS_TO_DRAIN * self.around.orders.rows.len().max(1);
        for _ in 0..most {
            self.around.now += TimeDelta::milliseconds(1);
            if !self.everybody_goes_on() && !self.something_becomes_due() {
                return;
            }
        }
        panic!("no rest after {most} steps: {}", self.around.orders.dump());
    }

    /// All of Kafka and the outbox again from the start, to processes that know nothing.
    pub(crate) fn deliver_everything_again(&mut self) {
        let members: Vec<(String, u64)> =
            self.slots.iter_mut().filter_map(|slot| slot.running.take()?.member()).collect();
        self.ghosts.extend(members);
        self.around.broker.rewind();
        self.around.orders.rewind();
        self.drain();
    }

    fn place_order(&mut self) {
        if self.orders_to_place > 0 {
            self.orders_to_place -= 1;
            let (high, low) = (self.around.random.next(), self.around.random.next());
            self.around.orders.place(Uuid::from_u64_pair(high, low), self.around.now);
        }
    }

    fn time_passes(&mut self) {
        let next = self.next_time().filter(|_| self.around.random.percent(50));
        let some = self.around.now + TimeDelta::seconds(i64::try_from(self.around.random.below(20)).expect("small"));
        self.around.now = next.map_or(some, |next| next.max(self.around.now));
    }

    fn next_time(&self) -> Option<DateTime<Utc>> {
        let answers = self.around.works.values().filter_map(Work::next_answer);
        answers.chain(self.around.database.next_timer()).chain(self.around.orders.next_look()).min()
    }

    /// A process makes its next step, or starts.
    fn go_on(&mut self, slot: usize) {
        if self.slots[slot].asleep {
            return;
        }
        let around = &mut self.around;
        match &mut self.slots[slot].running {
            None => self.start(slot),
            Some(process) if process.is_stale(around) && around.random.percent(30) => process.notice(around),
            Some(process) => drop(process.go_on(around)),
        }
    }

    fn start(&mut self, slot: usize) {
        self.next_member += 1;
        let (id, definition) = (self.next_member, self.around.definition.clone());
        let mut process = match &self.slots[slot].role {
            Role::Orchestrator => Process::Orchestrator(Box::new(Orchestrator::new(id, &definition))),
            Role::Participant(step) => Process::Participant(Box::new(Participant::new(id, step))),
            Role::OrderApi => Process::OrderApi(Box::new(OrderApi::new(id, &definition))),
            Role::Connect => Process::Connect(Connect::new(&self.around)),
        };
        process.notice(&mut self.around);
        self.slots[slot].running = Some(process);
    }

    /// `kill -9`. Its group may take a while to miss it.
    fn crash(&mut self, slot: usize) {
        let killed = self.slots[slot].running.take();
        self.slots[slot].asleep = false;
        self.ghosts.extend(killed.and_then(|process| process.member()));
        if self.around.random.percent(50) {
            self.miss_ghosts();
        }
    }

    /// A process stops for a while and does not know it. Its group may give its partitions to others: then it is a
    /// zombie when it wakes up.
    fn freeze(&mut self, slot: usize) {
        self.slots[slot].asleep = true;
        let member = self.slots[slot].running.as_ref().and_then(Process::member);
        if let Some((group, member)) = member
            && self.around.random.percent(70)
        {
            self.around.broker.leave(&group, member);
        }
    }

    fn miss_ghosts(&mut self) {
        for (group, member) in self.ghosts.drain(..) {
            self.around.broker.leave(&group, member);
        }
    }

    /// Each process makes a step. Tells whether one of them had something to do.
    fn everybody_goes_on(&mut self) -> bool {
        let mut some = false;
        for slot in 0..self.slots.len() {
            self.slots[slot].asleep = false;
            let around = &mut self.around;
            some |= match &mut self.slots[slot].running {
                None => {
                    self.start(slot);
                    true
                }
                Some(process) if process.is_stale(around) => {
                    process.notice(around);
                    true
                }
                Some(process) => process.go_on(around),
            };
        }
        some
    }

    /// Nobody has anything to do: somebody looks after what is parked, or time goes on to the next thing that is due.
    fn something_becomes_due(&mut self) -> bool {
        if self.operator.look_after_parked(&mut self.around) {
            return true;
        }
        let Some(next) = self.next_time() else { return false };
        self.around.now = self.around.now.max(next);
        true
    }
}

impl Process {
    fn go_on(&mut self, around: &mut Surroundings) -> bool {
        match self {
            Process::Orchestrator(process) => process.go_on(around),
            Process::Participant(process) => process.go_on(around),
            Process::OrderApi(process) => process.go_on(around),
            Process::Connect(process) => process.go_on(around),
        }
    }

    fn notice(&mut self, around: &mut Surroundings) {
        match self {
            Process::Orchestrator(process) => process.notice(around),
            Process::Participant(process) => process.notice(around),
            Process::OrderApi(process) => process.notice(around),
            Process::Connect(_) => {}
        }
    }

    fn is_stale(&self, around: &Surroundings) -> bool {
        match self {
            Process::Orchestrator(process) => process.member.is_stale(&around.broker),
            Process::Participant(process) => process.member.is_stale(&around.broker),
            Process::OrderApi(process) => process.member.is_stale(&around.broker),
            Process::Connect(_) => false,
        }
    }

    /// Its group, and its id there.
    fn member(&self) -> Option<(String, u64)> {
        let member = match self {
            Process::Orchestrator(process) => &process.member,
            Process::Participant(process) => &process.member,
            Process::OrderApi(process) => &process.member,
            Process::Connect(_) => return None,
        };
        Some((member.group.clone(), member.id))
    }
}
