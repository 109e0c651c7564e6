//! The sagas that run: the one of orders, and random graphs of steps.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use saga::Definition;

use crate::random::Random;

static ORDER: LazyLock<Arc<Definition>> = LazyLock::new(|| read(include_str!("../../../../sagas/order.yaml")));

/// The order saga, or any other.
pub(crate) fn any(random: &mut Random) -> Arc<Definition> {
    if random.percent(40) { ORDER.clone() } else { read(&any_yaml(random)) }
}

fn read(yaml: &str) -> Arc<Definition> {
    let definition = Definition::parse(yaml, "sim.yaml").unwrap_or_else(|found| panic!("{found:?}\n{yaml}"));
    Arc::new(definition)
}

/// One to five steps that come after random ones of the earlier, with a pivot or without.
fn any_yaml(random: &mut Random) -> String {
    let steps = 1 + random.below(5);
    let pivot = Some(random.below(steps)).filter(|_| random.percent(70));
    let (attempts, undo_attempts) = (1 + random.below(3), 1 + random.below(3));
    let (deadline, backoff) = (1 + random.below(15), 1 + random.below(3));
    let mut yaml = format!(
        "saga: any
version: 1
trigger: {{ topic: any.created, type: any.created.v1 }}
defaults: {{ deadline: {deadline}s, attempts: {attempts}, undo: {{ deadline: {deadline}s, attempts: {undo_attempts}, backoff: {backoff}s, maxBackoff: 9s }} }}
steps:
"
    );
    for step in 0..steps {
        let after = comes_after(step, pivot, random);
        write_step(&mut yaml, step, &after, pivot, random);
    }
    yaml.push_str("ends:\n");
    for (end, status) in [("completed", "COMPLETED"), ("cancelled", "CANCELLED"), ("parked", "PARKED")] {
        let data = format!(
            "orderId: /saga/id, status: {{ const: {status} }}, sagaVersion: /saga/version, reason: /saga/reason"
        );
        let _ = writeln!(yaml, "  {end}: {{ topic: any.{end}, type: any.{end}.v1, data: {{ {data} }} }}");
    }
    yaml
}

/// No step runs beside the pivot: what is before it in the list is before it, what is behind comes after it.
fn comes_after(step: usize, pivot: Option<usize>, random: &mut Random) -> Vec<usize> {
    match pivot {
        Some(pivot) if step == pivot => (0..step).collect(),
        Some(pivot) if step > pivot => {
            let beside = random.below(step - pivot);
            let mut after = vec![pivot + beside];
            after.extend((pivot..step).filter(|other| *other != pivot + beside && random.percent(30)));
            after
        }
        _ => (0..step).filter(|_| random.percent(40)).collect(),
    }
}

fn write_step(yaml: &mut String, step: usize, after: &[usize], pivot: Option<usize>, random: &mut Random) {
    let past = pivot.is_some_and(|pivot| step >= pivot);
    let names: Vec<String> = after.iter().map(|step| format!("s{step}")).collect();
    let mut data = "order: /saga/id, total: /trigger/total".to_owned();
    if let Some(earlier) = names.first() {
        let _ = write!(data, ", ref: /steps/{earlier}/ref");
    }
    let _ = write!(
        yaml,
        "  - name: s{step}
    after: [{}]
    pivot: {}
    command: {{ topic: s{step}.do, type: s{step}.do.v1, data: {{ {data} }} }}
    replies:
      success: {{ topic: s{step}.done, type: s{step}.done.v1 }}
",
        names.join(", "),
        pivot == Some(step),
    );
    if random.percent(80) {
        let _ = writeln!(yaml, "      failure: {{ topic: s{step}.failed, type: s{step}.failed.v1, reason: /reason }}");
    }
    if random.percent(if past { 60 } else { 90 }) {
        let _ = write!(
            yaml,
            "    compensation:
      command: {{ topic: s{step}.undo, type: s{step}.undo.v1, data: {{ order: /saga/id }} }}
      reply: {{ topic: s{step}.undone, type: s{step}.undone.v1 }}
"
        );
    } else if !past || random.percent(50) {
        yaml.push_str("    compensation: none\n");
    }
}
