//! Carries a schedule out.

use std::time::{Duration, Instant};

use super::faults::{self, Scene};
use super::kinds::{Company, Kind, LeftOut};
use super::load::Load;
use super::report::{Entry, Report};
use super::schedule::{TURN, Turn};
use super::stand::Stand;
use super::{Options, finish, recovery};

/// What runs beside another fault has begun to work by then.
const AHEAD: Duration = Duration::from_secs(2);
/// After this time nothing more is expected of a recovery.
const PATIENCE: Duration = Duration::from_secs(90);
/// Faults in a row from which nothing recovered: the rest would only show the same again.
const HOPELESS: usize = 3;
/// Before the first fault, for everybody to be warm.
const WARM_UP: Duration = Duration::from_secs(5);

/// Places orders and injects the faults of `schedule`, then waits until all has come to rest, and audits.
pub(super) async fn run(
    stand: &Stand,
    options: &Options,
    schedule: Vec<Turn>,
    left_out: Vec<LeftOut>,
) -> anyhow::Result<Report> {
    let load = Load::start(stand, options.rate)?;
    let scene = Scene { stand, load: &load };
    tokio::time::sleep(WARM_UP).await;
    let start = Instant::now();
    let mut entries: Vec<Entry> = Vec::new();
    for (number, turn) in schedule.iter().enumerate() {
        tokio::time::sleep_until((start + turn.at).into()).await;
        let done = carry_out(scene, turn, start).await;
        let has_problem = done.iter().any(|entry| entry.problem.is_some());
        entries.extend(done);
        if has_problem {
            // Whatever is left of it must not be taken for the next fault's doing.
            if let Err(error) = faults::heal(stand).await {
                eprintln!("healing: {error:#}");
            }
        }
        let lost = entries.iter().rev().filter(|entry| entry.is_main);
        if lost.take_while(|entry| entry.recovery_seconds.is_none()).count() >= HOPELESS {
            eprintln!("nothing has recovered from {HOPELESS} faults in a row: the rest is left out");
            entries.push(Entry::problem("schedule", format!("ended after turn {} of {}", number + 1, schedule.len())));
            break;
        }
    }
    if let Some(turn) = schedule.last() {
        // The time that was asked for, also for what came last.
        let end = turn.at + TURN * turn.main.map_or(1, Kind::turns);
        tokio::time::sleep_until((start + end).into()).await;
    }
    let faults_seconds = start.elapsed().as_secs_f64();
    let ending = finish::finish(scene).await?;
    Ok(Report::new(options, entries, left_out, load.summary(), ending, faults_seconds))
}

/// One turn: its faults, the main one measured.
async fn carry_out(scene: Scene<'_>, turn: &Turn, start: Instant) -> Vec<Entry> {
    let main = async {
        let kind = turn.main?;
        if turn.beside.is_some() {
            tokio::time::sleep(AHEAD).await;
        }
        Some(one(scene, kind, turn.draw, start, turn.beside).await)
    };
    let beside = async {
        let kind = turn.beside?;
        Some(one(scene, kind, turn.draw, start, turn.main).await)
    };
    let (main, beside) = tokio::join!(main, beside);
    let entries: Vec<Entry> = main.into_iter().chain(beside).collect();
    for entry in &entries {
        eprintln!("{entry}");
    }
    entries
}

async fn one(scene: Scene<'_>, kind: Kind, draw: u64, start: Instant, other: Option<Kind>) -> Entry {
    let began = Instant::now();
    let injected = faults::inject(scene, kind, draw).await;
    let mut entry = Entry {
        kind: kind.to_string(),
        target: String::new(),
        at_seconds: (began - start).as_secs_f64(),
        seconds: began.elapsed().as_secs_f64(),
        is_main: kind.company() != Company::Beside,
        together_with: other.map(|other| other.to_string()),
        proof: None,
        recovery_seconds: None,
        limit_seconds: kind.limit().map(|limit| limit.as_secs_f64()),
        problem: None,
    };
    match injected {
        Err(error) => entry.problem = Some(format!("void: {error:#}")),
        Ok(injected) => {
            entry.target = injected.target;
            entry.proof = Some(injected.proof);
            if entry.is_main {
                let recovered = recovery::measure(scene, injected.from, PATIENCE).await;
                entry.recovery_seconds = recovered.map(|time| time.as_secs_f64());
                entry.problem = match (recovered, kind.limit()) {
                    (None, _) => Some(format!("not recovered after {} s", PATIENCE.as_secs())),
                    (Some(time), Some(limit)) if time > limit => {
                        Some(format!("recovered after {:.1} s, later than {} s", time.as_secs_f64(), limit.as_secs()))
                    }
                    _ => None,
                };
            }
        }
    }
    entry
}
