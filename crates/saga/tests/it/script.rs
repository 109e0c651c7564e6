//! Sagas told as scripts: what comes in, and what it sends.

use chrono::{DateTime, TimeDelta, Utc};
use saga::{
    Definition, IgnoredReason, Input, Message, Outcome, Phase, PoisonReason, Reply, ReplyKind, Saga, SagaState,
    TimelineEntry, Transition, Verdict, apply, ids, legal_path, next_deadline, outstanding, start,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A saga on its way, with everything it did so far.
pub(crate) struct Script {
    definition: &'static Definition,
    pub(crate) saga: Saga,
    pub(crate) now: DateTime<Utc>,
    pub(crate) timeline: Vec<TimelineEntry>,
    verdict: Verdict,
}

pub(crate) fn begin(definition: &'static Definition) -> Script {
    begin_with(definition, json!({"orderId": "o-1", "customerId": "c-1", "total": 3998}))
}

pub(crate) fn begin_with(definition: &'static Definition, trigger: Value) -> Script {
    let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let now = DateTime::from_timestamp_millis(1_790_000_000_000).expect("a time");
    let started = start(definition, id, trigger, Uuid::from_u128(1), now);
    let saga = started.saga.clone();
    let verdict = Verdict::Moved(Box::new(started));
    let mut script = Script { definition, saga, now, timeline: Vec::new(), verdict };
    script.settle();
    script
}

impl Script {
    /// Keeps the result of an input; what moved must be a legal path.
    fn settle(&mut self) {
        if let Verdict::Moved(moved) = &self.verdict {
            let Transition { saga, entry, messages } = &**moved;
            assert_eq!(entry.emitted, messages.iter().map(|m| m.id).collect::<Vec<_>>());
            self.saga = saga.clone();
            self.timeline.push(entry.clone());
            assert_eq!(legal_path(self.definition, self.saga.id, &self.timeline), Ok(self.saga.state));
        }
    }

    pub(crate) fn input(&mut self, input: &Input) -> &mut Self {
        self.now += TimeDelta::milliseconds(1);
        self.verdict = apply(self.definition, &self.saga, input, self.now);
        self.settle();
        self
    }

    fn reply(&mut self, step: &str, kind: ReplyKind, data: Value) -> &mut Self {
        let (message_id, causation_id) = match kind {
            ReplyKind::Undone => (ids::undo_reply_id(self.saga.id, step), ids::undo_id(self.saga.id, step)),
            _ => (ids::reply_id(self.saga.id, step), ids::command_id(self.saga.id, step)),
        };
        self.input(&Input::Reply(Reply { step: step.to_owned(), kind, message_id, causation_id, data }))
    }

    // what comes in

    pub(crate) fn succeeds(&mut self, step: &str) -> &mut Self {
        self.reply(step, ReplyKind::Success, json!({"by": step}))
    }

    pub(crate) fn succeeds_with(&mut self, step: &str, output: Value) -> &mut Self {
        self.reply(step, ReplyKind::Success, output)
    }

    pub(crate) fn fails(&mut self, step: &str, reason: &str) -> &mut Self {
        self.reply(step, ReplyKind::Failure { reason: Some(reason.to_owned()) }, json!({"reason": reason}))
    }

    pub(crate) fn confirms_undo(&mut self, step: &str) -> &mut Self {
        self.reply(step, ReplyKind::Undone, json!({}))
    }

    /// Goes to the next deadline, and over it.
    pub(crate) fn deadline_passes(&mut self) -> &mut Self {
        self.now = next_deadline(&self.saga).expect("something is in flight");
        self.input(&Input::Tick)
    }

    /// Lets `times` deadlines pass.
    pub(crate) fn deadlines_pass(&mut self, times: usize) -> &mut Self {
        for _ in 0..times {
            self.deadline_passes();
        }
        self
    }

    pub(crate) fn operator_retries(&mut self) -> &mut Self {
        self.input(&Input::Retry { by: "ada".to_owned() })
    }

    pub(crate) fn operator_compensates(&mut self) -> &mut Self {
        self.input(&Input::Compensate { by: "ada".to_owned(), reason: Some("customer called".to_owned()) })
    }

    pub(crate) fn operator_resolves(&mut self, outcome: Outcome) -> &mut Self {
        self.input(&Input::Resolve { outcome, reason: "settled by phone".to_owned(), by: "ada".to_owned() })
    }

    // what is expected

    fn messages(&self) -> &[Message] {
        match &self.verdict {
            Verdict::Moved(moved) => &moved.messages,
            Verdict::Duplicate(messages) => messages,
            other => panic!("nothing was sent: {other:?}"),
        }
    }

    fn topics(&self) -> Vec<&str> {
        self.messages().iter().map(|message| message.topic.as_str()).collect()
    }

    /// The input moved the saga, and sent exactly this.
    #[track_caller]
    pub(crate) fn sends<const N: usize>(&mut self, topics: [&str; N]) -> &mut Self {
        assert!(matches!(self.verdict, Verdict::Moved(_)), "{:?}", self.verdict);
        assert_eq!(self.topics(), topics);
        self
    }

    /// The input had been taken before, and this is sent again.
    #[track_caller]
    pub(crate) fn repeats<const N: usize>(&mut self, topics: [&str; N]) -> &mut Self {
        assert!(matches!(self.verdict, Verdict::Duplicate(_)), "{:?}", self.verdict);
        assert_eq!(self.topics(), topics);
        self
    }

    #[track_caller]
    pub(crate) fn is_ignored(&mut self, reason: IgnoredReason) -> &mut Self {
        assert_eq!(self.verdict, Verdict::Ignored(reason));
        self
    }

    #[track_caller]
    pub(crate) fn is_poison(&mut self, reason: PoisonReason) -> &mut Self {
        assert_eq!(self.verdict, Verdict::Poison(reason));
        self
    }

    #[track_caller]
    pub(crate) fn is_refused(&mut self, because: &str) -> &mut Self {
        assert!(matches!(&self.verdict, Verdict::Refused(why) if why.contains(because)), "{:?}", self.verdict);
        self
    }

    #[track_caller]
    pub(crate) fn nothing_is_due(&mut self) -> &mut Self {
        assert_eq!(self.verdict, Verdict::NothingDue);
        self
    }

    #[track_caller]
    pub(crate) fn is(&mut self, state: SagaState) -> &mut Self {
        assert_eq!(self.saga.state, state);
        assert_eq!(next_deadline(&self.saga).is_none(), state.is_at_rest(), "a moving saga has a deadline");
        self
    }

    #[track_caller]
    pub(crate) fn because(&mut self, reason: &str) -> &mut Self {
        assert_eq!(self.saga.reason.as_deref(), Some(reason));
        self
    }

    #[track_caller]
    pub(crate) fn step_is(&mut self, step: &str, phase: Phase) -> &mut Self {
        let (index, _) = self.definition.step(step).expect("a step");
        assert_eq!(self.saga.steps[index].phase, phase, "{step}");
        self
    }

    /// What a redelivered trigger sends again.
    #[track_caller]
    pub(crate) fn outstanding<const N: usize>(&mut self, topics: [&str; N]) -> &mut Self {
        let messages = outstanding(self.definition, &self.saga);
        assert_eq!(messages.iter().map(|m| m.topic.as_str()).collect::<Vec<_>>(), topics);
        self
    }

    /// The one message the last input sent.
    #[track_caller]
    pub(crate) fn sent(&self) -> &Message {
        let [message] = self.messages() else { panic!("not one message: {:?}", self.topics()) };
        message
    }
}
