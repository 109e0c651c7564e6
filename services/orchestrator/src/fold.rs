//! Folding: a saga as it was loaded, and the messages of a batch in their order, give one new row, a timeline
//! entry for each transition, and what to publish. Nothing here waits for anything.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use messaging::{Delivery, Outgoing, Poison};
use saga::{Definition, IgnoredReason, Input, Message, Saga, SagaState, TimelineEntry, Transition, Verdict};

use crate::definitions::Pinned;
use crate::inbound::{Inbound, Kind};
use crate::load::Stored;
use crate::metrics;
use crate::outgoing::outgoing;
use crate::store::{Changes, timer_change};

/// One saga while the messages of a batch are folded into it.
pub(crate) struct Fold {
    /// As loaded; none for one that the batch starts.
    before: Option<Saga>,
    now: Option<Current>,
    entries: Vec<TimelineEntry>,
    outgoing: Vec<Outgoing>,
    /// Ids of `outgoing`: what two messages of a batch would send twice is sent once.
    sent: HashSet<uuid::Uuid>,
    duplicates: u64,
    ignored: Vec<IgnoredReason>,
}

struct Current {
    definition: Pinned,
    saga: Saga,
    partition: i32,
    /// `traceparent` of its trigger; stored with its start.
    trace: Option<String>,
}

/// What a fold leaves to do once it is stored.
pub struct Folded {
    /// What is to be published.
    pub outgoing: Vec<Outgoing>,
    /// By how much the number of sagas in flight changed.
    pub(crate) in_flight: i64,
    definition: Arc<Definition>,
    saga: Saga,
    entries: Vec<TimelineEntry>,
    duplicates: u64,
    ignored: Vec<IgnoredReason>,
}

impl Fold {
    /// Begins with a saga as loaded, and the definition it is pinned to; with none when there is no such saga yet.
    pub(crate) fn of(stored: Option<(Stored, Arc<Definition>)>) -> Self {
        let now = stored.map(|(stored, definition)| Current {
            definition: Pinned { id: stored.definition_id, definition },
            saga: stored.saga,
            partition: stored.partition,
            trace: stored.trace,
        });
        Fold {
            before: now.as_ref().map(|current| current.saga.clone()),
            now,
            entries: Vec::new(),
            outgoing: Vec::new(),
            sent: HashSet::new(),
            duplicates: 0,
            ignored: Vec::new(),
        }
    }

    /// Folds one message. `starts` is the definition that its topic starts, `at` the database's clock.
    ///
    /// # Errors
    /// When no participant that follows the protocol could have sent it.
    pub(crate) fn take(
        &mut self,
        delivery: &Delivery<Inbound>,
        starts: Option<Pinned>,
        at: DateTime<Utc>,
    ) -> Result<(), Poison> {
        match (&delivery.message.kind, self.now.take()) {
            (Kind::Trigger, None) => self.start(delivery, starts, at),
            (Kind::Trigger, Some(current)) => {
                let verdict = started_before(delivery, &current);
                self.now = Some(current);
                self.resend(verdict?, delivery);
                Ok(())
            }
            (Kind::Reply { .. }, None) => {
                Err(Poison::new("unknown-saga", format!("there is no saga {}", delivery.message.saga)))
            }
            (Kind::Reply { step, causation }, Some(current)) => {
                let verdict = answer(delivery, step, *causation, &current, at);
                self.now = Some(current);
                self.settle(verdict?, delivery)
            }
        }
    }

    fn start(&mut self, delivery: &Delivery<Inbound>, starts: Option<Pinned>, at: DateTime<Utc>) -> Result<(), Poison> {
        let Some(definition) = starts else {
            return Err(Poison::new("unknown-definition", format!("no saga starts at {}", delivery.topic)));
        };
        let Inbound { saga, data, .. } = &delivery.message;
        let transition = saga::start(&definition.definition, *saga, data.clone(), delivery.envelope.id, at);
        self.now = Some(Current {
            definition,
            saga: transition.saga.clone(),
            partition: delivery.partition,
            trace: delivery.trace.clone(),
        });
        self.step(transition, delivery);
        Ok(())
    }

    fn settle(&mut self, verdict: Verdict, delivery: &Delivery<Inbound>) -> Result<(), Poison> {
        match verdict {
            Verdict::Moved(transition) => self.step(*transition, delivery),
            Verdict::Duplicate(messages) => self.resend(messages, delivery),
            Verdict::Ignored(reason) => self.ignored.push(reason),
            Verdict::Poison(reason) => return Err(Poison::new(reason.as_str(), reason.to_string())),
            // Answers of the machine to deadlines and operators only.
            Verdict::Refused(_) | Verdict::NothingDue => {}
        }
        Ok(())
    }

    fn step(&mut self, transition: Transition, delivery: &Delivery<Inbound>) {
        if let Some(current) = &mut self.now {
            current.saga = transition.saga;
        }
        self.entries.push(transition.entry);
        self.send(transition.messages, delivery);
    }

    fn resend(&mut self, messages: Vec<Message>, delivery: &Delivery<Inbound>) {
        self.duplicates += 1;
        self.send(messages, delivery);
    }

    fn send(&mut self, messages: Vec<Message>, delivery: &Delivery<Inbound>) {
        // Only a saga that is there has something to say.
        let Some(current) = &self.now else { return };
        let (name, saga) = (current.definition.definition.name(), delivery.message.saga);
        for message in messages {
            if self.sent.insert(message.id) {
                self.outgoing.push(outgoing(name, saga, message, delivery.trace.as_deref()));
            }
        }
    }

    /// Adds what is to be stored to `changes`; nothing when every message was a duplicate or late.
    pub(crate) fn finish(self, changes: &mut Changes) -> Option<Folded> {
        let Current { definition, saga, partition, trace } = self.now?;
        if let Some(last) = self.entries.last() {
            debug_assert_eq!(last.version, saga.version, "one entry for each version");
            match &self.before {
                None => changes.start(&saga, partition, definition.id),
                Some(before) => changes.advance(&saga, before.version),
            }
            let mut trace = trace.filter(|_| self.before.is_none());
            for entry in &self.entries {
                changes.log(saga.id, entry, trace.take());
            }
            changes.timer(&saga, partition, timer_change(self.before.as_ref(), &saga));
        }
        let was = self.before.as_ref().is_some_and(|before| is_in_flight(before.state));
        Some(Folded {
            in_flight: i64::from(is_in_flight(saga.state)) - i64::from(was),
            outgoing: self.outgoing,
            definition: definition.definition,
            saga,
            entries: self.entries,
            duplicates: self.duplicates,
            ignored: self.ignored,
        })
    }
}

impl Folded {
    /// Counts what happened, once it is stored.
    pub(crate) fn count(&self) {
        count_transitions(&self.definition, &self.saga, &self.entries);
        let name = self.definition.name();
        if self.duplicates > 0 {
            metrics::DUPLICATES.with_label_values(&[name]).inc_by(self.duplicates);
        }
        for reason in &self.ignored {
            metrics::IGNORED.with_label_values(&[name, reason.as_str()]).inc();
            tracing::debug!(saga.id = %self.saga.id, %reason, "a reply changes nothing");
        }
    }
}

/// Counts stored transitions, and raises the alarm for a saga that parked. `saga` is the state they led to.
pub(crate) fn count_transitions(definition: &Definition, saga: &Saga, entries: &[TimelineEntry]) {
    for entry in entries {
        let labels = [definition.name(), entry.step.as_deref().unwrap_or_default(), entry.kind.as_str()];
        metrics::TRANSITIONS.with_label_values(&labels).inc();
    }
    if saga.state == SagaState::Parked && !entries.is_empty() {
        metrics::PARKED.with_label_values(&[definition.name()]).inc();
        let reason = saga.reason.as_deref().unwrap_or_default();
        tracing::error!(saga.id = %saga.id, saga.definition = definition.name(), reason, "a saga is parked: it needs an operator");
    }
}

/// Whether a saga in `state` does something by itself.
pub(crate) fn is_in_flight(state: SagaState) -> bool {
    matches!(state, SagaState::Running | SagaState::Compensating)
}

/// A trigger again: everything unanswered goes out again, or the event at the end.
fn started_before(delivery: &Delivery<Inbound>, current: &Current) -> Result<Vec<Message>, Poison> {
    let definition = &current.definition.definition;
    if definition.trigger().topic != delivery.topic {
        let name = definition.name();
        let detail = format!("the id {} belongs to a saga {name:?}, which does not start here", current.saga.id);
        return Err(Poison::new("saga-id-taken", detail));
    }
    Ok(saga::outstanding(definition, &current.saga))
}

fn answer(
    delivery: &Delivery<Inbound>,
    step: &str,
    causation: uuid::Uuid,
    current: &Current,
    at: DateTime<Utc>,
) -> Result<Verdict, Poison> {
    let definition = &current.definition.definition;
    let data = delivery.message.data.clone();
    let reply = definition.read_reply(&delivery.topic, delivery.envelope.id, causation, data).ok_or_else(|| {
        let detail = format!("no step of {:?} is answered on {}", definition.name(), delivery.topic);
        Poison::new("unexpected-topic", detail)
    })?;
    if reply.step != step {
        let detail = format!("{} answers the step {:?}, but ce_step is {step:?}", delivery.topic, reply.step);
        return Err(Poison::new("unexpected-step", detail));
    }
    Ok(saga::apply(definition, &current.saga, &Input::Reply(reply), at))
}

#[cfg(test)]
mod tests;
