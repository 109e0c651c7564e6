//! I8: a timeline is a legal path of its definition, versions 1..n, and nothing comes after the end.

use std::collections::HashSet;

use saga::{Definition, EntryKind, SagaState, TimelineEntry, legal_path};

use super::World;
use super::facts::sagas::{Entry, SagaRow};
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I8", "each timeline is a legal path, versions 1..n, nothing after the end");
    let sagas = &world.sagas;
    for (id, stored) in &sagas.definitions {
        if let Err(error) = &stored.definition {
            finding.violation(format!("stored definition {id} ({}) cannot be read: {error}", stored.name));
        }
    }

    let mut with_timeline = HashSet::new();
    let mut entries = 0;
    for timeline in sagas.timelines() {
        let id = timeline[0].saga_id;
        with_timeline.insert(id);
        entries += timeline.len();
        let Some(saga) = sagas.sagas.get(&id) else {
            finding.violation(format!("there is a timeline but no saga {id}"));
            continue;
        };
        let Some(definition) = sagas.definition(saga) else { continue };
        if let Err(error) = judge(definition, saga, timeline) {
            finding.violation(format!("saga {id}: {error}"));
        }
    }
    for id in sagas.sagas.keys() {
        finding.require(with_timeline.contains(id), || format!("saga {id} has no timeline"));
    }
    finding.count("sagas", sagas.sagas.len());
    finding.count("timeline entries", entries);
    finding.count("definitions", sagas.definitions.len());
    finding
}

fn judge(definition: &Definition, saga: &SagaRow, timeline: &[Entry]) -> Result<(), String> {
    let mut path = Vec::with_capacity(timeline.len());
    for entry in timeline {
        path.push(read(entry)?);
    }
    for pair in timeline.windows(2) {
        if pair[1].at < pair[0].at {
            return Err(format!("version {} is older than version {}", pair[1].version, pair[0].version));
        }
    }
    let last = path.last().map_or(0, |entry| entry.version);
    if i64::from(last) != i64::from(saga.version) {
        return Err(format!("is at version {} but its timeline ends at {last}", saga.version));
    }
    let state = legal_path(definition, saga.id, &path).map_err(|error| error.to_string())?;
    if state.as_str() != saga.state {
        return Err(format!("is {} but its timeline leads to {state}", saga.state));
    }
    Ok(())
}

fn read(entry: &Entry) -> Result<TimelineEntry, String> {
    let version = u32::try_from(entry.version).map_err(|_| format!("has version {}", entry.version))?;
    let kind =
        EntryKind::from_name(&entry.kind).ok_or_else(|| format!("version {version} is of type {}", entry.kind))?;
    let state =
        SagaState::from_name(&entry.state).ok_or_else(|| format!("version {version} led to {}", entry.state))?;
    Ok(TimelineEntry {
        version,
        at: entry.at,
        kind,
        state,
        step: entry.step.clone(),
        message_id: entry.message_id,
        detail: entry.detail.clone(),
        data: None,
        emitted: entry.emitted.clone(),
    })
}
