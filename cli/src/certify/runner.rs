//! The run: the registry, a control, the wave of cells that run side by side, those that kill, and the verdicts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use futures_util::future::join_all;
use saga::Definition;
use uuid::Uuid;

use super::cells::{self, Cell, End, Fault};
use super::chaos::Chaos;
use super::checks::{Expected, judge};
use super::instance::{Run, SOON};
use super::journal::Journal;
use super::kinds;
use super::report::{CellReport, Report, SagaReport};
use super::samples::{Sample, Samples};
use super::stage::{Stage, Stand, until};
use super::start::{prepare, release};
use crate::api::Api;
use crate::audit::audit;

/// Which cells are played; empty means all.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names of sagas.
    pub definitions: Vec<String>,
    /// Names of steps.
    pub steps: Vec<String>,
    /// Faults.
    pub faults: Vec<Fault>,
}

/// Cells of one wave. A service obeys a hundred faults at a time, and a cell has two at most.
const SIDE_BY_SIDE: usize = 40;

impl Select {
    fn takes(&self, cell: &Cell) -> bool {
        fn among<T: PartialEq<U>, U: ?Sized>(wanted: &[T], found: &U) -> bool {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == found)
        }
        among(&self.definitions, cell.definition.name())
            && among(&self.steps, cell.step().name.as_str())
            && among(&self.faults, &cell.fault)
    }
}

/// The service that reads the commands of a step, by saga and step; or why the saga cannot be played.
type Participants = HashMap<String, Result<BTreeMap<String, String>, String>>;

/// Plays every cell that `select` takes, of every definition that the orchestrator starts sagas with.
///
/// # Errors
/// When the stack cannot be used, or no cell is selected.
pub async fn certify(stand: Stand, samples: &Samples, select: &Select, say: impl Fn(&str)) -> anyhow::Result<Report> {
    let started_at = Utc::now();
    let definitions = registry(&stand.api).await?;
    let cells: Vec<Cell> = definitions.iter().flat_map(cells::of).filter(|cell| select.takes(cell)).collect();
    if cells.is_empty() {
        let known: Vec<&str> = definitions.iter().map(|definition| definition.name()).collect();
        bail!("no cell is selected; the orchestrator knows the sagas {}", known.join(", "));
    }
    let mut kafka = messaging::KafkaConfig { bootstrap_servers: stand.target.kafka.clone(), ..Default::default() };
    kafka.topic_prefix.clone_from(&stand.target.topic_prefix);
    let producer = messaging::Producer::new(&kafka, "certify")?;
    let chaos = Chaos::new(stand.api.clone(), producer.clone());
    let journal = Journal::of(&definitions, &kafka)?;
    let stage = Stage { stand, producer, chaos, journal, observer: messaging::admin::Observer::new(kafka) };

    let participants = Box::pin(controls(&stage, &definitions, &cells, samples)).await?;
    let (mut reports, playable) = sort_out(&stage, &cells, samples, &participants);
    let (kills, rest): (Vec<usize>, Vec<usize>) = playable.into_iter().partition(|cell| cells[*cell].fault.kills());
    say(&format!("{} cells side by side, then {} that kill", rest.len(), kills.len()));
    let waves = rest.chunks(SIDE_BY_SIDE).chain(kills.chunks(1));
    for wave in waves {
        let begun = Instant::now();
        let told = if wave.len() == 1 { cells[wave[0]].label() } else { format!("{} cells", wave.len()) };
        for (cell, report) in Box::pin(play(&stage, &cells, wave, samples, &participants)).await? {
            reports[cell] = report;
        }
        say(&format!("{told}: played in {} s", begun.elapsed().as_secs()));
    }
    for (cell, report) in cells.iter().zip(&mut reports) {
        let (Some(saga), Some(sample)) = (report.saga, samples.of(cell.definition.name())) else { continue };
        let aimed = Some((cell.step().name.as_str(), cell.effects()));
        let expected = Expected { definition: &cell.definition, saga, end: cell.end(), aimed };
        report.violations = judge(&stage, &expected, sample).await?;
    }
    let audit = if stage.stand.audited { Some(blame(&stage, &mut reports).await?) } else { None };
    reports.iter_mut().for_each(CellReport::decide);
    Ok(Report::new(started_at, by_saga(&cells, reports), audit))
}

/// Every definition that new sagas start with.
async fn registry(api: &Api) -> anyhow::Result<Vec<Arc<Definition>>> {
    let page = api.get("orchestrator", "/api/definitions", &[]).await?;
    let mut definitions = Vec::new();
    for summary in page["items"].as_array().into_iter().flatten().filter(|summary| summary["current"] == true) {
        let name = summary["name"].as_str().unwrap_or_default();
        let shown = api.get("orchestrator", &format!("/api/definitions/{name}"), &[]).await?;
        let definition = Definition::from_json(&shown["definition"].to_string());
        definitions.push(Arc::new(definition.with_context(|| format!("the definition {name}"))?));
    }
    Ok(definitions)
}

/// Plays an instance of each saga without any fault: it must complete, and shows who reads each step's commands.
async fn controls(
    stage: &Stage,
    definitions: &[Arc<Definition>],
    cells: &[Cell],
    samples: &Samples,
) -> anyhow::Result<Participants> {
    let mut participants = Participants::new();
    for definition in definitions.iter().filter(|of| cells.iter().any(|cell| cell.definition == **of)) {
        let found = match samples.of(definition.name()) {
            Some(sample) => control(stage, definition, sample).await?,
            None => Err(format!("no file in sagas/certify says how {} is started", definition.name())),
        };
        participants.insert(definition.name().to_owned(), found);
    }
    Ok(participants)
}

async fn control(
    stage: &Stage,
    definition: &Definition,
    sample: &Sample,
) -> anyhow::Result<Result<BTreeMap<String, String>, String>> {
    let prepared = prepare(stage, definition, sample, 1).await?;
    let saga = prepared.sagas[0];
    let observed: Vec<_> = definition.steps().iter().map(|step| kinds::observed(&step.command.topic)).collect();
    let observers = stage.chaos.announce(Some(saga), &observed).await?;
    release(stage, &[prepared]).await?;
    stage.rests(saga, SOON).await;
    let expected = Expected { definition, saga, end: End::Completed, aimed: None };
    let wrong = judge(stage, &expected, sample).await?;
    let mut participants = BTreeMap::new();
    for (step, observer) in definition.steps().iter().zip(observers) {
        // A participant that obeys no faults is not seen.
        let seen = until(Duration::from_secs(2), async || stage.chaos.hits(observer).1.into_iter().next()).await;
        participants.extend(seen.map(|service| (step.name.clone(), service)));
        stage.chaos.end(observer).await?;
    }
    let told = format!("without a fault, saga {saga}: {}", wrong.join("; "));
    Ok(if wrong.is_empty() { Ok(participants) } else { Err(told) })
}

/// A report for each cell, those that cannot be played with the reason; and the indices of those that can.
fn sort_out(
    stage: &Stage,
    cells: &[Cell],
    samples: &Samples,
    participants: &Participants,
) -> (Vec<CellReport>, Vec<usize>) {
    let mut playable = Vec::new();
    let mut reports = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let name = cell.definition.name();
        let counted = samples.of(name).is_some_and(|sample| sample.effects.contains_key(&cell.step().name));
        let obstacle = match participants.get(name) {
            _ if cell.exempt().is_some() => cell.exempt().map(str::to_owned),
            Some(Err(error)) => Some(error.clone()),
            _ if !counted => Some("no sample says where the effects of this step are counted".to_owned()),
            _ if cell.fault.kills() && stage.stand.supervised.is_none() => {
                Some("no supervisor is there to start again what is killed".to_owned())
            }
            Some(Ok(reads)) if cell.fault.needs_participant() && !reads.contains_key(&cell.step().name) => {
                Some("nobody who obeys faults was seen to read the commands of this step".to_owned())
            }
            _ => None,
        };
        reports.push(match obstacle {
            Some(why) => CellReport::not_played(cell, &why),
            None => {
                playable.push(index);
                CellReport::of(cell)
            }
        });
    }
    (reports, playable)
}

/// Plays the cells `wave` side by side.
async fn play(
    stage: &Stage,
    cells: &[Cell],
    wave: &[usize],
    samples: &Samples,
    participants: &Participants,
) -> anyhow::Result<Vec<(usize, CellReport)>> {
    let mut by_saga: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for index in wave {
        by_saga.entry(cells[*index].definition.name()).or_default().push(*index);
    }
    let (mut prepared, mut runs) = (Vec::new(), Vec::new());
    for (name, indices) in by_saga {
        let (Some(sample), Some(Ok(reads))) = (samples.of(name), participants.get(name)) else { continue };
        let instances = prepare(stage, &cells[indices[0]].definition, sample, indices.len()).await?;
        for (index, saga) in indices.into_iter().zip(&instances.sagas) {
            let cell = &cells[index];
            let reader = reads.get(&cell.step().name).map_or("", String::as_str);
            runs.push((index, Run::new(stage, cell, *saga, reader)));
        }
        prepared.push(instances);
    }
    for (_, run) in &mut runs {
        let planned = kinds::faults(run.cell);
        let ids: Vec<Uuid> = stage.chaos.announce(Some(run.saga), &planned).await?;
        run.faults = ids.into_iter().zip(planned).collect();
        kinds::arm(run).await?;
    }
    release(stage, &prepared).await?;
    Ok(join_all(runs.into_iter().map(|(index, run)| Box::pin(played(index, run)))).await)
}

async fn played(index: usize, mut run: Run<'_>) -> (usize, CellReport) {
    let begun = Instant::now();
    let mut done = kinds::play(&mut run).await;
    for fault in 0..run.faults.len() {
        done = done.and(run.end(fault).await);
    }
    if let Err(error) = done {
        run.missing.push(format!("{error:#}"));
    }
    let report = CellReport {
        saga: Some(run.saga),
        state: run.state().await,
        took_ms: u64::try_from(begun.elapsed().as_millis()).ok(),
        proof: run.facts,
        missing: run.missing,
        ..CellReport::of(run.cell)
    };
    (index, report)
}

/// Makes the whole audit. A violation that names a cell's saga belongs to that cell; the others are given.
async fn blame(stage: &Stage, reports: &mut [CellReport]) -> anyhow::Result<Vec<String>> {
    let audited = audit(&stage.stand.target).await?;
    let mut others = Vec::new();
    for finding in &audited.findings {
        for violation in &finding.violations {
            let told = format!("{}: {violation}", finding.invariant);
            let names = |report: &&mut CellReport| report.saga.is_some_and(|saga| told.contains(&saga.to_string()));
            match reports.iter_mut().find(names) {
                Some(report) => report.violations.push(told),
                None => others.push(told),
            }
        }
        let untold = finding.violated - finding.violations.len() as u64;
        if untold > 0 {
            others.push(format!("{}: and {untold} more", finding.invariant));
        }
    }
    Ok(others)
}

fn by_saga(cells: &[Cell], reports: Vec<CellReport>) -> Vec<SagaReport> {
    let mut sagas: Vec<SagaReport> = Vec::new();
    for (cell, report) in cells.iter().zip(reports) {
        let (name, digest) = (cell.definition.name(), cell.definition.digest());
        match sagas.last_mut().filter(|saga| saga.name == name) {
            Some(saga) => saga.cells.push(report),
            None => sagas.push(SagaReport {
                name: name.to_owned(),
                version: cell.definition.version(),
                digest: digest.to_owned(),
                cells: vec![report],
            }),
        }
    }
    sagas
}
