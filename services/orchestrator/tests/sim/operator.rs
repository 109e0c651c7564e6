//! Somebody who looks after sagas: reads one, decides on a verb, and has it written if nobody was faster.

use orchestrator::decisions::{Stored, Verb, decide_verb};
use saga::{Outcome, Phase, SagaState};
use uuid::Uuid;

use crate::surroundings::Surroundings;

#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// The saga as it was read, and the verb.
    in_hand: Option<(Stored, Verb)>,
}

impl Operator {
    /// Reads some saga, or writes what was decided on. Tells whether there was something to do.
    pub(crate) fn go_on(&mut self, around: &mut Surroundings) -> bool {
        if let Some((stored, verb)) = self.in_hand.take() {
            act(&stored, &verb, around);
            return true;
        }
        let ids = around.database.ids();
        if ids.is_empty() {
            return false;
        }
        let id = *around.random.pick(&ids);
        self.choose(id, around);
        true
    }

    /// Looks after one that is parked, at once. Tells whether there was one.
    pub(crate) fn look_after_parked(&mut self, around: &mut Surroundings) -> bool {
        let ids = around.database.ids();
        let parked = ids.into_iter().find(|id| around.database.state(*id) == Some(SagaState::Parked));
        let Some(id) = parked else { return false };
        self.choose(id, around);
        self.go_on(around);
        true
    }

    fn choose(&mut self, id: Uuid, around: &mut Surroundings) {
        let verb = match around.random.below(10) {
            0..=4 => Verb::Retry { reason: None },
            5..=7 => Verb::Compensate { reason: Some("customer called".to_owned()) },
            _ => {
                let outcome = *around.random.pick(&[Outcome::Completed, Outcome::Cancelled]);
                Verb::Resolve { outcome, reason: "by phone".to_owned() }
            }
        };
        self.in_hand = around.database.stored(id).map(|stored| (stored, verb));
    }
}

fn act(stored: &Stored, verb: &Verb, around: &mut Surroundings) {
    let definition = around.definition.clone();
    let (changes, transition) = decide_verb(&definition, stored, verb, "ada", around.now).expect("a verb's verdict");
    let is_applied = transition.is_ok();
    if around.database.write(changes, around.sabotage).is_err() {
        around.seen.insert("an operator is too slow");
        return;
    }
    if !is_applied {
        around.seen.insert("a verb is refused");
        return;
    }
    let goes_back = stored.saga.steps.iter().any(|run| run.phase == Phase::Undoing);
    if matches!(verb, Verb::Retry { .. }) && !goes_back && around.random.percent(70) {
        // What refused is asked again; anywhere else a refusal must be kept.
        for (step, run) in definition.steps().iter().zip(&stored.saga.steps) {
            if run.phase == Phase::Failed {
                around.seen.insert("a refusal is mended");
                around.works.get_mut(&step.name).expect("its database").mend(stored.saga.id);
            }
        }
    }
}
