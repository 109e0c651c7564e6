//! From the file to the model: texts are read, defaults filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::{Path, Problems, at};
use super::document::{
    ChannelDoc, CompensationDoc, DefaultsDoc, Document, FailureDoc, OutletDoc, RepliesDoc, SourceDoc, StepDoc, UndoDoc,
};
use super::duration;
use super::model::{Body, Channel, Compensation, Ends, FailureReply, Outlet, Replies, Source, Step, Template, Undo};
use super::pointer::{InvalidPointer, Pointer};

/// What holds where a file says nothing. A step is patient: all its attempts together outlast a restart of
/// the broker or of the participant, so that an outage does not undo good work.
mod default {
    use std::time::Duration;

    pub(super) const DEADLINE: Duration = Duration::from_secs(15);
    pub(super) const ATTEMPTS: u32 = 4;
    pub(super) const UNDO_ATTEMPTS: u32 = 20;
    pub(super) const BACKOFF: Duration = Duration::from_secs(1);
    pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(300);
}

/// Reads every text of the document. What cannot be read is reported and left out or replaced.
pub(super) fn lower(document: Document, problems: &mut Problems<'_>) -> Body {
    let Document { saga, version, trigger, defaults, steps, ends } = document;
    let mut lowering = Lowering { problems };
    let defaults = lowering.defaults(&defaults);
    let steps = (0..).zip(steps).map(|(index, step)| lowering.step(step, &at!["steps", index], &defaults)).collect();
    let ends = Ends {
        completed: lowering.outlet(ends.completed, at!["ends", "completed"]),
        cancelled: lowering.outlet(ends.cancelled, at!["ends", "cancelled"]),
        parked: lowering.outlet(ends.parked, at!["ends", "parked"]),
    };
    Body { saga, version, trigger: channel(trigger), steps, ends }
}

struct Lowering<'p, 't> {
    problems: &'p mut Problems<'t>,
}

struct Defaults {
    deadline: Duration,
    attempts: u32,
    undo: UndoDefaults,
}

struct UndoDefaults {
    deadline: Duration,
    attempts: u32,
    backoff: Duration,
    max_backoff: Duration,
}

impl Lowering<'_, '_> {
    fn defaults(&mut self, doc: &DefaultsDoc) -> Defaults {
        let at = at!["defaults"];
        let under = at!["defaults", "undo"];
        let undo = &doc.undo;
        Defaults {
            deadline: self.duration(doc.deadline.as_deref(), &at, "deadline", default::DEADLINE),
            attempts: doc.attempts.unwrap_or(default::ATTEMPTS),
            undo: UndoDefaults {
                deadline: self.duration(undo.deadline.as_deref(), &under, "deadline", default::DEADLINE),
                attempts: undo.attempts.unwrap_or(default::UNDO_ATTEMPTS),
                backoff: self.duration(undo.backoff.as_deref(), &under, "backoff", default::BACKOFF),
                max_backoff: self.duration(undo.max_backoff.as_deref(), &under, "maxBackoff", default::MAX_BACKOFF),
            },
        }
    }

    fn step(&mut self, doc: StepDoc, at: &Path, defaults: &Defaults) -> Step {
        let compensation = doc.compensation.map(|compensation| match compensation {
            CompensationDoc::Nothing(_) => Compensation::NothingToUndo,
            CompensationDoc::Command(undo) => {
                Compensation::Command(self.undo(*undo, &below(at, &["compensation"]), &defaults.undo))
            }
        });
        Step {
            name: doc.name,
            after: doc.after,
            pivot: doc.pivot,
            command: self.outlet(doc.command, below(at, &["command"])),
            replies: self.replies(doc.replies, at),
            deadline: self.duration(doc.deadline.as_deref(), at, "deadline", defaults.deadline),
            attempts: doc.attempts.unwrap_or(defaults.attempts),
            compensation,
        }
    }

    fn undo(&mut self, doc: UndoDoc, at: &Path, defaults: &UndoDefaults) -> Undo {
        Undo {
            command: self.outlet(doc.command, below(at, &["command"])),
            reply: channel(doc.reply),
            deadline: self.duration(doc.deadline.as_deref(), at, "deadline", defaults.deadline),
            attempts: doc.attempts.unwrap_or(defaults.attempts),
            backoff: self.duration(doc.backoff.as_deref(), at, "backoff", defaults.backoff),
            max_backoff: self.duration(doc.max_backoff.as_deref(), at, "maxBackoff", defaults.max_backoff),
        }
    }

    fn replies(&mut self, doc: RepliesDoc, step: &Path) -> Replies {
        let failure = doc.failure.map(|FailureDoc { topic, event_type, reason }| FailureReply {
            topic,
            event_type,
            reason: reason.and_then(|text| self.pointer(&text, &below(step, &["replies", "failure", "reason"]))),
        });
        Replies { success: channel(doc.success), failure }
    }

    fn outlet(&mut self, doc: OutletDoc, at: Path) -> Outlet {
        let data = self.template(doc.data, &below(&at, &["data"]));
        Outlet { topic: doc.topic, event_type: doc.event_type, data }
    }

    fn template(&mut self, doc: BTreeMap<String, SourceDoc>, at: &Path) -> Template {
        let sources = doc.into_iter().filter_map(|(name, source)| {
            let source = match source {
                SourceDoc::Constant(constant) => Source::Constant { value: constant.value },
                SourceDoc::Pointer(text) => Source::Pointer(self.pointer(&text, &below(at, &[&name]))?),
            };
            Some((name, source))
        });
        sources.collect()
    }

    fn pointer(&mut self, text: &str, at: &Path) -> Option<Pointer> {
        let read = Pointer::parse(text);
        if let Err(error) = &read {
            let hint = match error {
                InvalidPointer::NoSlash => format!("write \"/{text}\", or {{const: {text}}} for a fixed value"),
                InvalidPointer::BadEscape => "for example \"/trigger/a~1b\" for the field \"a/b\"".to_owned(),
            };
            self.problems.report(at, format!("\"{text}\" is no JSON Pointer: {error}"), hint);
        }
        read.ok()
    }

    /// A duration, or `otherwise` where the file has none, or none that can be read.
    fn duration(&mut self, text: Option<&str>, at: &Path, name: &str, otherwise: Duration) -> Duration {
        let Some(text) = text else { return otherwise };
        let at = below(at, &[name]);
        match duration::parse(text) {
            Some(duration) if !duration.is_zero() => duration,
            Some(_) => {
                self.problems.report(&at, format!("{name}: must be longer than nothing"), None);
                otherwise
            }
            None => {
                self.problems.report(
                    &at,
                    format!("{name}: \"{text}\" is no duration"),
                    format!("{}, up to nine digits", duration::FORM),
                );
                otherwise
            }
        }
    }
}

fn channel(doc: ChannelDoc) -> Channel {
    Channel { topic: doc.topic, event_type: doc.event_type }
}

fn below(at: &Path, names: &[&str]) -> Path {
    at.iter().cloned().chain(names.iter().map(ToString::to_string)).collect()
}
