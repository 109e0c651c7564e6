//! Thousands of random histories: whatever is lost, repeated, late or refused, every saga ends legally.
//!
//! `SAGA_HISTORIES=100000` runs more of them, `SAGA_SEED=17` runs one again, the one a failure names.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use saga::{
    Definition, EntryKind, Input, Message, Outcome, Phase, Saga, SagaState, StepRun, TimelineEntry, Transition,
    Verdict, apply, ids, legal_path, next_deadline, outstanding, start, step_view,
};
use serde_json::json;
use uuid::Uuid;

use crate::coverage::Walked;
use crate::definitions;
use crate::random::Random;
use crate::world::{Answered, Habits, World};

const HISTORIES: u64 = 8_000;

/// After so much trouble the world heals, and the saga has to end.
const MAX_TROUBLE: usize = 60;

#[test]
fn every_random_history_ends_legally() {
    let walked = match number("SAGA_SEED") {
        Some(seed) => return drop(run(seed)),
        None => (0..number("SAGA_HISTORIES").unwrap_or(HISTORIES)).fold(Walked::default(), |mut walked, seed| {
            walked.add(tell_which(seed));
            walked
        }),
    };
    walked.assert_complete();
}

/// Runs one history; if it fails, says how to run it again.
fn tell_which(seed: u64) -> Walked {
    match std::panic::catch_unwind(|| run(seed)) {
        Ok(walked) => walked,
        Err(panic) => {
            eprintln!("this history runs again with SAGA_SEED={seed}");
            std::panic::resume_unwind(panic)
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn run(seed: u64) -> Walked {
    let mut history = History::begin(seed);
    for _ in 0..history.random.below(MAX_TROUBLE) {
        history.trouble();
    }
    history.heal();
    history.judge();
    history.deliver_everything_again();
    history.walked
}

struct History {
    definition: &'static Definition,
    random: Random,
    world: World,
    saga: Saga,
    now: DateTime<Utc>,
    timeline: Vec<TimelineEntry>,
    /// Every message as it was first sent.
    sent: BTreeMap<Uuid, Message>,
    resolved: bool,
    walked: Walked,
}

impl History {
    fn begin(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let definition = *random.pick(&definitions::all());
        let id = Uuid::from_u128(u128::from(seed) + 1);
        // some histories are calm, some wild
        let wildness = random.below(50);
        let habits = Habits {
            refuses: if random.percent(50) { random.below(40) } else { 0 },
            ponders: random.below(wildness + 1) / 2,
            ignores_commands: random.below(wildness + 1),
            ignores_undos: if random.percent(30) { 90 } else { random.below(wildness + 1) },
        };
        let now = DateTime::from_timestamp_millis(1_790_000_000_000).expect("a time");
        let started = start(definition, id, json!({"orderId": id.to_string()}), Uuid::from_u128(1), now);
        let mut history = Self {
            definition,
            random,
            world: World::new(definition, id, habits),
            saga: started.saga.clone(),
            now,
            timeline: Vec::new(),
            sent: BTreeMap::new(),
            resolved: false,
            walked: Walked::default(),
        };
        history.walked.started(&started);
        history.keep(started);
        history
    }

    /// Something happens.
    fn trouble(&mut self) {
        match self.random.below(100) {
            0..=29 => self.a_command_arrives(),
            30..=59 => self.a_reply_arrives(),
            60..=69 => self.something_is_lost(),
            70..=81 => self.time_passes(),
            82..=85 => self.world.wake(&mut self.random),
            86..=89 => self.the_trigger_comes_again(),
            90..=93 => self.an_old_reply_comes_again(),
            _ => self.an_operator_acts(),
        }
    }

    /// From now on everybody answers; a parked saga is looked after until it ends.
    fn heal(&mut self) {
        self.world.habits =
            Habits { refuses: self.world.habits.refuses, ponders: 0, ignores_commands: 0, ignores_undos: 0 };
        for _ in 0..10_000 {
            if self.saga.state.is_terminal() {
                return;
            }
            if !self.world.commands.is_empty() {
                self.a_command_arrives();
            } else if !self.world.replies.is_empty() {
                self.a_reply_arrives();
            } else if self.saga.state == SagaState::Parked {
                self.an_operator_acts();
            } else {
                self.time_passes();
            }
        }
        panic!("does not end: {:#?}", self.saga);
    }

    fn a_command_arrives(&mut self) {
        if let Some(message) = take_any(&mut self.world.commands, &mut self.random) {
            self.world.deliver(&message, &mut self.random);
        }
    }

    fn a_reply_arrives(&mut self) {
        if let Some(reply) = take_any(&mut self.world.replies, &mut self.random) {
            self.reply(&reply);
        }
    }

    fn something_is_lost(&mut self) {
        let lost = if self.random.percent(50) {
            take_any(&mut self.world.commands, &mut self.random).is_some()
        } else {
            take_any(&mut self.world.replies, &mut self.random).is_some()
        };
        self.walked.lost(lost);
    }

    fn an_old_reply_comes_again(&mut self) {
        if !self.world.log.is_empty() {
            let reply = self.random.pick(&self.world.log).clone();
            self.reply(&reply);
        }
    }

    fn time_passes(&mut self) {
        // sometimes the timer is early
        match next_deadline(&self.saga) {
            Some(deadline) if self.random.percent(90) => self.now = self.now.max(deadline),
            _ => self.now += TimeDelta::milliseconds(100),
        }
        self.input(&Input::Tick);
    }

    fn the_trigger_comes_again(&mut self) {
        let messages = outstanding(self.definition, &self.saga);
        self.send_again(messages);
    }

    fn an_operator_acts(&mut self) {
        let by = "ada".to_owned();
        let input = match self.random.below(10) {
            0..=4 => {
                if self.random.percent(70) {
                    self.the_cause_of_refusals_is_mended();
                }
                Input::Retry { by }
            }
            5..=7 => Input::Compensate { by, reason: None },
            _ => {
                let outcome = *self.random.pick(&[Outcome::Completed, Outcome::Cancelled]);
                Input::Resolve { outcome, reason: "by phone".to_owned(), by }
            }
        };
        self.input(&input);
    }

    /// Only where the retry that follows asks again: anywhere else a refusal is kept, or a late copy of the
    /// command would be done after all.
    fn the_cause_of_refusals_is_mended(&mut self) {
        let goes_back = self.saga.steps.iter().any(|run| run.phase == Phase::Undoing);
        if self.saga.state != SagaState::Parked || goes_back {
            return;
        }
        for (step, run) in self.definition.steps().iter().zip(&self.saga.steps) {
            if run.phase == Phase::Failed {
                self.world.forget_refusal(&step.name);
            }
        }
    }

    fn reply(&mut self, reply: &Answered) {
        let Answered { topic, message_id, causation_id, data } = reply.clone();
        let reply = self.definition.read_reply(&topic, message_id, causation_id, data).expect("a reply topic");
        self.input(&Input::Reply(reply));
    }

    fn input(&mut self, input: &Input) {
        self.now += TimeDelta::milliseconds(1);
        let verdict = apply(self.definition, &self.saga, input, self.now);
        self.walked.verdict(&self.saga, &verdict);
        match verdict {
            Verdict::Moved(moved) => self.keep(*moved),
            Verdict::Duplicate(messages) => self.send_again(messages),
            Verdict::Poison(reason) => panic!("participants keep the protocol, but: {reason}"),
            Verdict::Ignored(_) | Verdict::Refused(_) | Verdict::NothingDue => {}
        }
    }

    fn keep(&mut self, moved: Transition) {
        let Transition { saga, entry, messages } = moved;
        let started = self.timeline.is_empty();
        assert_eq!(saga.version, if started { 1 } else { self.saga.version + 1 });
        assert_eq!(entry.version, saga.version);
        assert_eq!(entry.emitted, messages.iter().map(|message| message.id).collect::<Vec<_>>());
        assert_eq!(next_deadline(&saga).is_none(), saga.state.is_at_rest(), "only what moves has a deadline");
        for message in &messages {
            let first = self.sent.entry(message.id).or_insert_with(|| message.clone());
            assert_eq!(first, message, "sent again, it is the same");
            self.no_command_after_its_undo(message);
        }
        self.resolved |= entry.kind == EntryKind::OperatorResolved;
        self.saga = stored_and_read_back(&saga);
        self.timeline.push(entry);
        self.world.send(messages);
        assert_eq!(step_view(self.definition, &self.saga).len(), self.definition.steps().len());
    }

    fn send_again(&mut self, messages: Vec<Message>) {
        for message in &messages {
            assert_eq!(self.sent.get(&message.id), Some(message), "sent again, it is the same");
            self.no_command_after_its_undo(message);
        }
        self.world.send(messages);
    }

    fn no_command_after_its_undo(&self, message: &Message) {
        let Some(step) = &message.step else { return };
        if message.id == ids::command_id(self.saga.id, step) {
            let undo = ids::undo_id(self.saga.id, step);
            assert!(!self.sent.contains_key(&undo), "the command of {step} is sent after its undo");
        }
    }

    /// The saga has ended: its timeline is legal, and the world is as the end says.
    fn judge(&mut self) {
        let path = legal_path(self.definition, self.saga.id, &self.timeline);
        assert_eq!(path, Ok(self.saga.state), "{:#?}", self.timeline);
        self.judge_effects();
    }

    fn judge_effects(&self) {
        for (step, run) in self.definition.steps().iter().zip(&self.saga.steps) {
            let participant = &self.world.participants[&step.name];
            let (effects, undos) = (participant.effects, participant.undos);
            assert!(effects <= 1 && undos <= effects, "{}: {effects} effects, {undos} undos", step.name);
            let leaves_nothing = step.compensation == Some(saga::definition::Compensation::NothingToUndo);
            match self.saga.state {
                // an operator answers for it
                _ if self.resolved => {}
                SagaState::Completed => {
                    assert_eq!((effects, undos), (1, 0), "{} of a completed saga", step.name);
                    assert_eq!(run.phase, Phase::Succeeded);
                }
                SagaState::Compensated if leaves_nothing => {}
                SagaState::Compensated => {
                    assert_eq!(effects, undos, "{} of a compensated saga is {}", step.name, run.phase);
                    assert!(matches!(run.phase, Phase::Undone | Phase::Failed | Phase::Skipped), "{}", run.phase);
                }
                state => panic!("{state} is no end"),
            }
        }
    }

    /// All of Kafka again from the start, in any order, and what was still on its way: nothing changes.
    fn deliver_everything_again(&mut self) {
        let version = self.saga.version;
        self.world.commands.extend(self.sent.values().filter(|message| message.step.is_some()).cloned());
        while let Some(message) = take_any(&mut self.world.commands, &mut self.random) {
            self.world.deliver(&message, &mut self.random);
        }
        self.world.replies.extend(self.world.log.clone());
        while let Some(reply) = take_any(&mut self.world.replies, &mut self.random) {
            self.reply(&reply);
        }
        self.the_trigger_comes_again();
        self.now += TimeDelta::days(1);
        self.input(&Input::Tick);
        assert_eq!(self.saga.version, version, "nothing comes after the end");
        self.judge_effects();
    }
}

/// Takes any message, as if the network had kept no order; one in four stays, to come once more.
fn take_any<T: Clone>(from: &mut Vec<T>, random: &mut Random) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let index = random.below(from.len());
    if random.percent(25) { Some(from[index].clone()) } else { Some(from.swap_remove(index)) }
}

/// The steps go through JSON, as they do in a database.
fn stored_and_read_back(saga: &Saga) -> Saga {
    let json = serde_json::to_string(&saga.steps).expect("JSON");
    let steps: Vec<StepRun> = serde_json::from_str(&json).expect("the same");
    assert_eq!(steps, saga.steps);
    Saga { steps, ..saga.clone() }
}

#[test]
fn a_tampered_timeline_is_no_legal_path() {
    let mut kinds = BTreeSet::new();
    for seed in 0..300 {
        let mut history = History::begin(seed);
        for _ in 0..MAX_TROUBLE {
            history.trouble();
        }
        history.heal();
        let History { definition, saga, timeline, .. } = history;
        let legal = |timeline: &[TimelineEntry]| legal_path(definition, saga.id, timeline);
        let end = timeline.len() - 1;
        let renumbered = |mut timeline: Vec<TimelineEntry>| {
            (1..).zip(&mut timeline).for_each(|(version, entry)| entry.version = version);
            timeline
        };
        for at in 0..timeline.len() {
            kinds.insert(timeline[at].kind);
            let mut gap = timeline.clone();
            gap.remove(at);
            assert!(at == end || legal(&gap).is_err(), "a gap at {at}");
            let mut foreign = timeline.clone();
            foreign[at].emitted.push(Uuid::from_u128(77));
            assert!(legal(&foreign).is_err(), "a message nobody sent at {at}");
            let mut lost = timeline.clone();
            if lost[at].emitted.pop().is_some() {
                assert!(legal(&lost).is_err(), "a message that is not named at {at}");
            }
            let mut other = timeline.clone();
            other[at].state = *SagaState::ALL.iter().find(|state| **state != timeline[at].state).expect("several");
            assert!(legal(&other).is_err(), "another state at {at}");
            let mut after_the_end = timeline.clone();
            after_the_end.push(timeline[at].clone());
            assert!(legal(&renumbered(after_the_end)).is_err(), "{} after the end", timeline[at].kind);
        }
        assert!(legal(&[]).is_err());
    }
    assert_eq!(kinds.len(), EntryKind::ALL.len(), "every kind of entry was tampered with");
}
