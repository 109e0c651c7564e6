//! The rules a definition must keep, beyond its shape. Each rule reports everything it finds.

use std::collections::{BTreeSet, HashMap};

use super::diagnostic::{Path, Problems, at};
use super::graph::Graph;
use super::model::{Body, Outlet, Source, Step, Undo};
use super::pointer::Pointer;
use super::spelling::did_you_mean;

/// Kafka takes no longer names.
const MAX_TOPIC: usize = 249;
const MAX_NAME: usize = 64;

/// Reports every broken rule.
pub(super) fn check(body: &Body, problems: &mut Problems<'_>) {
    let graph = Graph::of(&body.steps);
    let mut checker = Checker { body, graph, problems };
    checker.names();
    checker.order();
    if checker.order_is_sound() {
        checker.pivot();
        checker.way_back();
    }
    checker.patience();
    checker.topics();
    checker.pointers();
}

struct Checker<'b, 'p, 't> {
    body: &'b Body,
    graph: Graph,
    problems: &'p mut Problems<'t>,
}

impl<'b> Checker<'b, '_, '_> {
    fn steps(&self) -> impl Iterator<Item = (usize, &'b Step)> + use<'b> {
        self.body.steps.iter().enumerate()
    }

    fn step_names(&self) -> impl Iterator<Item = &'b str> + use<'b> {
        self.body.steps.iter().map(|step| step.name.as_str())
    }

    /// Names are one word, and no two steps share one.
    fn names(&mut self) {
        self.name(&self.body.saga, &at!["saga"]);
        if self.body.version == 0 {
            self.problems.report(&at!["version"], "version: must be at least 1", None);
        }
        if self.body.steps.is_empty() {
            self.problems.report(&at!["steps"], "a saga needs at least one step", None);
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (index, step) in self.steps() {
            let at = at!["steps", index, "name"];
            self.name(&step.name, &at);
            if let Some(first) = seen.insert(&step.name, index) {
                let message = format!("step \"{}\" is there twice: steps {} and {}", step.name, first + 1, index + 1);
                self.problems.report(&at, message, "names of steps are unique".to_owned());
            }
        }
    }

    fn name(&mut self, name: &str, at: &Path) {
        let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !letters || !starts || name.len() > MAX_NAME {
            let hint = format!("lower case letters, digits and hyphens, a letter first, at most {MAX_NAME}");
            self.problems.report(at, format!("\"{name}\" is no name"), hint);
        }
    }

    /// `after` names other steps, each once, and never leads in a circle.
    fn order(&mut self) {
        let some_name_is_unknown = self.steps().any(|(index, _)| self.problems.is_healed(&at!["steps", index, "name"]));
        for (index, step) in self.steps() {
            let mut seen = BTreeSet::new();
            for (nth, name) in step.after.iter().enumerate() {
                let at = at!["steps", index, "after", nth];
                if !self.step_names().any(|known| known == name) {
                    if !some_name_is_unknown {
                        let hint = self.hint_step(name, &step.name);
                        self.problems.report(&at, format!("after: there is no step \"{name}\""), hint);
                    }
                } else if !seen.insert(name) {
                    self.problems.report(&at, format!("after: \"{name}\" is named twice"), None);
                }
            }
        }
        if self.names_are_unique() {
            self.cycles();
        }
    }

    fn names_are_unique(&self) -> bool {
        self.step_names().collect::<BTreeSet<_>>().len() == self.body.steps.len()
    }

    fn cycles(&mut self) {
        let mut told = BTreeSet::new();
        for (index, _) in self.steps() {
            if told.contains(&index) || !self.graph.is_after(index, index) {
                continue;
            }
            let circle = self.circle(index);
            let names: Vec<&str> = circle.iter().map(|step| self.body.steps[*step].name.as_str()).collect();
            let message = format!("steps wait for each other: {}", names.join(" after "));
            self.problems.report(
                &at!["steps", index, "after"],
                message,
                "remove one of these from \"after\"".to_owned(),
            );
            // the same knot is told once, wherever one starts in it
            let knot = self.graph.descendants[index].iter().filter(|later| self.graph.is_after(index, **later));
            told.extend(knot.copied());
        }
    }

    /// A way from `start` back to itself along `after`.
    fn circle(&self, start: usize) -> Vec<usize> {
        let mut circle = vec![start];
        let mut at = start;
        loop {
            let towards_start =
                |step: &&usize| **step == start || (!circle.contains(*step) && self.graph.is_after(**step, start));
            match self.graph.requires[at].iter().find(towards_start) {
                Some(&next) if next != start => circle.push(next),
                _ => break,
            }
            at = circle[circle.len() - 1];
        }
        circle.push(start);
        circle
    }

    /// At most one pivot, and every other step comes before it or after it: a step beside it could fail once
    /// there is no way back, and would not know whether to be undone.
    fn pivot(&mut self) {
        let Some(pivot) = self.graph.pivot else { return };
        let name = &self.body.steps[pivot].name;
        for (index, step) in self.steps().filter(|(index, _)| *index != pivot) {
            if step.pivot {
                let message = format!("\"{}\" cannot be the pivot too: \"{name}\" is", step.name);
                self.problems.report(&at!["steps", index, "pivot"], message, "a saga has at most one pivot".to_owned());
            } else if !self.graph.is_after(index, pivot) && !self.graph.is_after(pivot, index) {
                let message = format!("\"{}\" runs beside the pivot \"{name}\"", step.name);
                let hint = format!("let \"{name}\" come after it, or it after \"{name}\"");
                self.problems.report(&at!["steps", index, "name"], message, hint);
            }
        }
    }

    /// Whether it is known what comes before the pivot and what after it: every name in `after` is that of one
    /// step, nothing goes in a circle, and it is known which step is the pivot.
    fn order_is_sound(&self) -> bool {
        let known = |step: &Step| step.after.iter().all(|name| self.step_names().any(|known| known == name));
        let as_written = |index: usize| !self.problems.is_healed(&at!["steps", index, "pivot"]);
        let sound =
            |(index, step): (usize, &Step)| known(step) && as_written(index) && !self.graph.is_after(index, index);
        self.names_are_unique() && self.steps().all(sound)
    }

    /// Up to the pivot everything can be undone, or leaves nothing behind.
    fn way_back(&mut self) {
        for (index, step) in self.steps() {
            let before_the_end_of_return = !step.pivot && !self.graph.is_past_pivot(index);
            let at = at!["steps", index, "compensation"];
            if before_the_end_of_return && step.compensation.is_none() && !self.problems.is_healed(&at) {
                let message =
                    format!("\"{}\" has no compensation, and a later failure would have to undo it", step.name);
                let hint = "give its compensation, or \"compensation: none\" if it leaves nothing to undo";
                self.problems.report(&at!["steps", index, "name"], message, hint.to_owned());
            }
        }
    }

    fn patience(&mut self) {
        for (index, step) in self.steps() {
            if step.attempts == 0 {
                self.problems.report(&at!["steps", index, "attempts"], "attempts: must be at least 1", None);
            }
            if let Some(undo) = step.undo() {
                self.undo_patience(undo, index);
            }
        }
    }

    fn undo_patience(&mut self, undo: &Undo, index: usize) {
        let at = |field: &str| at!["steps", index, "compensation", field];
        if undo.attempts == 0 {
            self.problems.report(&at("attempts"), "attempts: must be at least 1", None);
        }
        if undo.max_backoff < undo.backoff {
            let message =
                format!("the pause after the undo of \"{}\" starts above its maximum", self.body.steps[index].name);
            self.problems.report(&at("maxBackoff"), message, "make maxBackoff at least backoff".to_owned());
        }
    }

    /// Every topic means one thing: an answer is known by the topic it came on.
    fn topics(&mut self) {
        let mut seen: HashMap<&str, String> = HashMap::new();
        for (topic, event_type, what, at) in self.channels() {
            let legal = topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
            let at_topic = [at.clone(), at!["topic"]].concat();
            if topic.is_empty() || !legal || topic.len() > MAX_TOPIC || topic == "." || topic == ".." {
                let hint = format!("letters, digits, \".\", \"_\" and \"-\", at most {MAX_TOPIC}");
                self.problems.report(&at_topic, format!("\"{topic}\" is no name of a Kafka topic"), hint);
            } else if let Some(first) = seen.get(topic) {
                let message = format!("topic \"{topic}\" is used twice: {first} and {what}");
                self.problems.report(&at_topic, message, "give each its own topic".to_owned());
            } else if !self.problems.is_healed(&at_topic) {
                seen.insert(topic, what);
            }
            if event_type.trim().is_empty() {
                self.problems.report(&[at, at!["type"]].concat(), "type: must not be empty", None);
            }
        }
    }

    /// Every topic with its type, what it is for, and where it is named.
    fn channels(&self) -> Vec<(&'b str, &'b str, String, Path)> {
        let body = self.body;
        let mut all = vec![(&body.trigger.topic, &body.trigger.event_type, "the trigger".to_owned(), at!["trigger"])];
        for (index, step) in self.steps() {
            let name = &step.name;
            let at = |rest: &[&str]| [at!["steps", index], rest.iter().map(ToString::to_string).collect()].concat();
            let Step { command, replies, .. } = step;
            let success = &replies.success;
            all.push((&command.topic, &command.event_type, format!("the command of {name}"), at(&["command"])));
            all.push((
                &success.topic,
                &success.event_type,
                format!("the success of {name}"),
                at(&["replies", "success"]),
            ));
            if let Some(failure) = &replies.failure {
                let at = at(&["replies", "failure"]);
                all.push((&failure.topic, &failure.event_type, format!("the failure of {name}"), at));
            }
            if let Some(Undo { command, reply, .. }) = step.undo() {
                let command_at = at(&["compensation", "command"]);
                all.push((&command.topic, &command.event_type, format!("the undo of {name}"), command_at));
                let reply_at = at(&["compensation", "reply"]);
                all.push((&reply.topic, &reply.event_type, format!("the undo reply of {name}"), reply_at));
            }
        }
        for (end, outlet) in self.ends() {
            all.push((&outlet.topic, &outlet.event_type, format!("the {end} event"), at!["ends", end]));
        }
        all.into_iter().map(|(topic, event_type, what, at)| (topic.as_str(), event_type.as_str(), what, at)).collect()
    }

    fn ends(&self) -> [(&'static str, &'b Outlet); 3] {
        let ends = &self.body.ends;
        [("completed", &ends.completed), ("cancelled", &ends.cancelled), ("parked", &ends.parked)]
    }

    /// Every pointer leads to something that is known when its message is sent, and stays the same when the
    /// message is sent again.
    fn pointers(&mut self) {
        for (index, step) in self.steps() {
            let command_at = at!["steps", index, "command", "data"];
            self.sources(&step.command, &command_at, &Reader::Command(index));
            if let Some(undo) = step.undo() {
                let undo_at = at!["steps", index, "compensation", "command", "data"];
                self.sources(&undo.command, &undo_at, &Reader::Undo(index));
            }
        }
        for (end, outlet) in self.ends() {
            self.sources(outlet, &at!["ends", end, "data"], &Reader::End);
        }
    }

    fn sources(&mut self, outlet: &Outlet, at: &Path, reader: &Reader) {
        for (field, source) in &outlet.data {
            if let Source::Pointer(pointer) = source
                && let Err((message, hint)) = self.pointer(pointer, reader)
            {
                let at = [at.clone(), at![field]].concat();
                self.problems.report(&at, format!("{pointer}: {message}"), hint);
            }
        }
    }

    fn pointer(&self, pointer: &Pointer, reader: &Reader) -> Result<(), (String, Option<String>)> {
        match pointer.tokens() {
            [root, ..] if root == "trigger" => Ok(()),
            [root, step, ..] if root == "steps" => self.output(step, reader),
            [root] if root == "steps" => {
                Err(("names no step".to_owned(), Some("write /steps/NAME/..., for the output of a step".to_owned())))
            }
            [root, field] if root == "saga" => saga_field(field, reader),
            [root] if root == "saga" => Err(("names no field".to_owned(), Some("write /saga/id".to_owned()))),
            [root, ..] => {
                let hint = did_you_mean(root, ["trigger", "steps", "saga"])
                    .unwrap_or_else(|| "a pointer starts with /trigger, /steps/NAME or /saga".to_owned());
                Err((format!("there is no /{root}"), Some(hint)))
            }
            [] => Ok(()),
        }
    }

    /// Outputs are there once their step has succeeded, which only steps before it can count on. An undo may
    /// look at its own step's: a field that is not there, as when the outcome is unknown, is left out.
    fn output(&self, name: &str, reader: &Reader) -> Result<(), (String, Option<String>)> {
        let Some(step) = self.step_names().position(|known| known == name) else {
            let reading = reader.step().map_or("", |step| &self.body.steps[step].name);
            return Err((format!("there is no step \"{name}\""), self.hint_step(name, reading)));
        };
        let Some(reading) = reader.step() else { return Ok(()) };
        let own = matches!(reader, Reader::Undo(_)) && step == reading;
        if own || self.graph.is_after(reading, step) {
            return Ok(());
        }
        let reader = &self.body.steps[reading].name;
        if reader == name {
            return Err(("a command cannot use the output of its own step".to_owned(), None));
        }
        let hint = format!("let \"{reader}\" come after \"{name}\"");
        Err((format!("\"{name}\" does not come before \"{reader}\""), Some(hint)))
    }

    fn hint_step(&self, wrong: &str, reader: &str) -> Option<String> {
        let others: Vec<&str> = self.step_names().filter(|name| *name != reader).collect();
        did_you_mean(wrong, others.iter().copied())
            .or_else(|| (!others.is_empty()).then(|| format!("steps: {}", others.join(", "))))
    }
}

/// Who reads through a pointer.
enum Reader {
    Command(usize),
    Undo(usize),
    End,
}

impl Reader {
    fn step(&self) -> Option<usize> {
        match self {
            Self::Command(step) | Self::Undo(step) => Some(*step),
            Self::End => None,
        }
    }
}

fn saga_field(field: &str, reader: &Reader) -> Result<(), (String, Option<String>)> {
    match (field, reader) {
        ("id", _) | ("version" | "reason", Reader::End) => Ok(()),
        ("version" | "reason", _) => Err((
            "changes while the saga runs, and a command that is sent again must be the same".to_owned(),
            Some("commands can use /saga/id; only ends have /saga/version and /saga/reason".to_owned()),
        )),
        _ => Err((
            format!("a saga has no \"{field}\""),
            did_you_mean(field, ["id", "version", "reason"]).or_else(|| Some("it has id, version, reason".to_owned())),
        )),
    }
}
