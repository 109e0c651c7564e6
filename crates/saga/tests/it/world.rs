//! A model of everything around a saga: participants that keep the protocol, and a network that loses,
//! repeats and reorders.

use std::collections::BTreeMap;

use saga::{Definition, Message, ids};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::random::Random;

/// What one participant has done for the saga.
#[derive(Clone, Debug, Default)]
pub(crate) struct Participant {
    pub(crate) effects: u32,
    pub(crate) undos: u32,
    answer: Option<Answer>,
    /// It was told to undo: no command is done any more.
    tombstone: bool,
    /// It has the command and has not decided yet: what `tok_slow` does.
    pondering: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}

/// How the participants of one history behave, in percent.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) refuses: usize,
    pub(crate) ponders: usize,
    pub(crate) ignores_commands: usize,
    pub(crate) ignores_undos: usize,
}

/// A message on its way to the saga.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) topic: String,
    pub(crate) message_id: Uuid,
    pub(crate) causation_id: Uuid,
    pub(crate) data: Value,
}

pub(crate) struct World {
    definition: &'static Definition,
    saga: Uuid,
    pub(crate) participants: BTreeMap<String, Participant>,
    pub(crate) habits: Habits,
    /// On their way to participants.
    pub(crate) commands: Vec<Message>,
    /// On their way to the saga.
    pub(crate) replies: Vec<Answered>,
    /// Every reply that ever was, since Kafka keeps them all.
    pub(crate) log: Vec<Answered>,
}

impl World {
    pub(crate) fn new(definition: &'static Definition, saga: Uuid, habits: Habits) -> Self {
        let participants = definition.steps().iter().map(|step| (step.name.clone(), Participant::default())).collect();
        Self { definition, saga, participants, habits, commands: Vec::new(), replies: Vec::new(), log: Vec::new() }
    }

    /// Puts messages of the saga on their way; events at the end go nowhere.
    pub(crate) fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.commands.extend(messages.into_iter().filter(|message| message.step.is_some()));
    }

    /// A participant takes a message.
    pub(crate) fn deliver(&mut self, message: &Message, random: &mut Random) {
        let name = message.step.clone().expect("commands name their step");
        if message.id == ids::undo_id(self.saga, &name) {
            self.undo(&name, random);
        } else {
            self.command(&name, random);
        }
    }

    fn command(&mut self, name: &str, random: &mut Random) {
        let can_fail = self.definition.step(name).is_some_and(|(_, step)| step.replies.failure.is_some());
        let habits = self.habits.clone();
        if random.percent(habits.ignores_commands) {
            return;
        }
        let participant = self.participants.get_mut(name).expect("a participant");
        if participant.tombstone {
            // cancelled before it was done: refused for ever
            participant.answer.get_or_insert(Answer::No);
        } else if participant.answer.is_none() && random.percent(habits.ponders) {
            participant.pondering = true;
            return;
        } else if participant.answer.is_none() {
            participant.decide(can_fail && random.percent(habits.refuses));
        }
        self.answer(name);
    }

    /// A participant that had been pondering makes up its mind.
    pub(crate) fn wake(&mut self, random: &mut Random) {
        let pondering = self.participants.iter().filter(|(_, participant)| participant.pondering);
        let names: Vec<String> = pondering.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let name = random.pick(&names).clone();
        let can_fail = self.definition.step(&name).is_some_and(|(_, step)| step.replies.failure.is_some());
        let refuses = can_fail && random.percent(self.habits.refuses);
        self.participants.get_mut(&name).expect("a participant").decide(refuses);
        self.answer(&name);
    }

    fn undo(&mut self, name: &str, random: &mut Random) {
        if random.percent(self.habits.ignores_undos) {
            return;
        }
        let participant = self.participants.get_mut(name).expect("a participant");
        if !participant.tombstone {
            participant.tombstone = true;
            participant.pondering = false;
            participant.undos += u32::from(participant.answer == Some(Answer::Yes));
        }
        let (_, step) = self.definition.step(name).expect("a step");
        let topic = step.undo().expect("only steps with an undo are undone").reply.topic.clone();
        self.reply(topic, ids::undo_reply_id(self.saga, name), ids::undo_id(self.saga, name), json!({}));
    }

    /// The stored answer, the same every time.
    fn answer(&mut self, name: &str) {
        let (_, step) = self.definition.step(name).expect("a step");
        let (topic, data) = match (self.participants[name].answer, &step.replies.failure) {
            (Some(Answer::Yes), _) => (step.replies.success.topic.clone(), json!({"made by": name})),
            (Some(Answer::No), Some(failure)) => (failure.topic.clone(), json!({"reason": "no"})),
            // one that has no way to refuse stays silent
            (Some(Answer::No), None) | (None, _) => return,
        };
        self.reply(topic, ids::reply_id(self.saga, name), ids::command_id(self.saga, name), data);
    }

    fn reply(&mut self, topic: String, message_id: Uuid, causation_id: Uuid, data: Value) {
        let reply = Answered { topic, message_id, causation_id, data };
        self.log.push(reply.clone());
        self.replies.push(reply);
    }

    /// What refused is asked again as if for the first time.
    pub(crate) fn forget_refusal(&mut self, name: &str) {
        let participant = self.participants.get_mut(name).expect("a participant");
        if participant.answer == Some(Answer::No) {
            participant.answer = None;
        }
    }
}

impl Participant {
    fn decide(&mut self, refuses: bool) {
        self.pondering = false;
        self.answer = Some(if refuses { Answer::No } else { Answer::Yes });
        self.effects += u32::from(!refuses);
    }
}
