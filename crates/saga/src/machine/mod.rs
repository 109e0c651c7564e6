//! The saga machine: `(state, input) -> (state, messages)`, without clock, randomness or I/O.
//!
//! | file | what it decides |
//! |---|---|
//! | `start` | the first commands |
//! | `read` | which answer a message is |
//! | `reply` | what an answer does, and whether it is one that is waited for |
//! | `tick` | what a deadline does |
//! | `operator` | retry, compensate, resolve |
//! | `forward`, `compensate` | which command or undo comes next |
//! | `outstanding` | what has to be sent again, byte for byte |
//! | `path` | whether a timeline could have been written by this machine |

mod compensate;
mod draft;
mod forward;
mod message;
mod operator;
mod outstanding;
mod path;
mod read;
mod reply;
mod start;
mod state;
mod tick;
mod timeline;
mod verdict;
mod view;

use chrono::{DateTime, Utc};

use crate::definition::Definition;

pub use message::Message;
pub use outstanding::{next_deadline, outstanding};
pub use path::{PathError, legal_path};
pub use start::start;
pub use state::{Phase, Saga, SagaState, StepRun};
pub use timeline::{EntryKind, TimelineEntry};
pub use verdict::{IgnoredReason, Input, Outcome, PoisonReason, Reply, ReplyKind, Transition, Verdict};
pub use view::{StepView, step_view};

/// Decides what `input` does to `saga` at the time `now`.
///
/// Nothing is changed in place: the new state is in [`Verdict::Moved`], and is to be stored together with
/// its timeline entry before any of its messages is sent.
#[must_use]
pub fn apply(definition: &Definition, saga: &Saga, input: &Input, now: DateTime<Utc>) -> Verdict {
    let now = whole_millis(now);
    match input {
        Input::Reply(reply) => reply::apply(definition, saga, reply, now),
        Input::Tick => tick::apply(definition, saga, now),
        Input::Retry { by } => operator::retry(definition, saga, by, now),
        Input::Compensate { by, reason } => operator::compensate(definition, saga, by, reason.as_deref(), now),
        Input::Resolve { outcome, reason, by } => operator::resolve(definition, saga, *outcome, reason, by, now),
    }
}

/// Times are whole milliseconds, so that a store of any precision gives back what was put in, and a message
/// that is sent again has the very same time.
fn whole_millis(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time)
}
