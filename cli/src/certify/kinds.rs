//! The faults, one short function each: what is announced before the saga starts, and what is done and seen then.

use chrono::{DateTime, TimeDelta, Utc};
use saga::EntryKind;
use saga::definition::Step;
use serde_json::{Value, json};

use super::cells::{Cell, Fault};
use super::chaos::Planned;
use super::instance::{Run, SOON, sent_at, stored_at};
use super::stage::{Supervised, until};

/// Marks what a fault has put back; `service_kit::chaos::HEADER`.
const PUT_BACK: &str = "chaos-fault";
/// Databases keep microseconds and messages milliseconds.
const ROUNDING: TimeDelta = TimeDelta::milliseconds(2);

fn aimed(topic: &str, fault: Value) -> Planned {
    Planned { topic: topic.to_owned(), fault, first: None }
}

/// Counts what is read of a topic, and changes nothing.
pub(super) fn observed(topic: &str) -> Planned {
    aimed(topic, json!({ "type": "latency", "duration": "0ms" }))
}

/// What is announced for a cell, all of it on messages of its own saga.
pub(super) fn faults(cell: &Cell) -> Vec<Planned> {
    let Step { command, replies, .. } = cell.step();
    let (command, reply) = (command.topic.as_str(), replies.success.topic.as_str());
    let undo = cell.step().undo().map_or("", |undo| undo.command.topic.as_str());
    let error = json!({ "type": "error", "kind": "transient", "attempts": 2 });
    let twice = json!({ "type": "duplicate", "copies": 1 });
    let held = json!({ "type": "latency", "duration": "2m" });
    let unanswered = json!({ "type": "drop-reply" });
    match cell.fault {
        Fault::FailsBefore => vec![aimed(command, error)],
        Fault::FailsAfterCommit => Vec::new(),
        Fault::ReplyLost => vec![Planned { first: Some(1), ..aimed(reply, unanswered) }],
        Fault::DeliveredTwice => vec![aimed(command, twice)],
        Fault::Reordered => [command, reply].map(|topic| aimed(topic, json!({ "type": "reorder" }))).to_vec(),
        Fault::OrchestratorKilled => vec![aimed(reply, held)],
        Fault::ParticipantKilled => vec![aimed(command, held)],
        Fault::UndoFails => vec![aimed(reply, unanswered), aimed(undo, error)],
        Fault::UndoDeliveredTwice => vec![aimed(reply, unanswered), aimed(undo, twice)],
        Fault::CancelBeforeCommand => vec![aimed(command, json!({ "type": "drop-message" }))],
        Fault::ReplyAfterDeadline => vec![aimed(reply, unanswered), observed(reply)],
    }
}

/// What is to be done before the saga starts.
pub(super) async fn arm(run: &mut Run<'_>) -> anyhow::Result<()> {
    if let (Fault::FailsAfterCommit, Some(stack)) = (run.cell.fault, &run.stage.stand.supervised) {
        // A failpoint kills at the first commit of a process, while this file is missing.
        std::fs::remove_file(&stack.fired)?;
        stack.restart(&run.participant).await?;
        run.process = stack.pid(&run.participant).await?;
        run.stage.chaos.settled().await?;
    }
    Ok(())
}

/// Plays the cell, from the start of its saga until it rests.
pub(super) async fn play(run: &mut Run<'_>) -> anyhow::Result<()> {
    match run.cell.fault {
        Fault::FailsBefore => run.hit(0).await,
        Fault::FailsAfterCommit => fails_after_commit(run).await?,
        Fault::ReplyLost => reply_lost(run).await,
        Fault::DeliveredTwice => delivered_twice(run).await?,
        Fault::Reordered => reordered(run).await,
        Fault::OrchestratorKilled => orchestrator_killed(run).await?,
        Fault::ParticipantKilled => participant_killed(run).await?,
        Fault::UndoFails => undo_fails(run).await?,
        Fault::UndoDeliveredTwice => undo_delivered_twice(run).await?,
        Fault::CancelBeforeCommand => cancel_before_command(run).await?,
        Fault::ReplyAfterDeadline => reply_after_deadline(run).await?,
    }
    run.rests().await;
    Ok(())
}

async fn reply_lost(run: &mut Run<'_>) {
    run.hit(0).await;
    run.transition(EntryKind::StepRetried).await;
}

async fn delivered_twice(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    let command = &run.cell.step().command.topic;
    run.is_done_with(command).await;
    run.send_again(command, |run| run.replies()).await?;
    Ok(())
}

async fn reordered(run: &mut Run<'_>) {
    run.hit(0).await;
    run.hit(1).await;
    let Step { command, replies, .. } = run.cell.step();
    for topic in [&command.topic, &replies.success.topic] {
        let was_put_back = until(SOON, async || {
            let records = run.stage.journal.on(topic, run.saga);
            records.into_iter().find(|record| record.header(PUT_BACK).is_some())
        });
        let was_put_back = was_put_back.await.is_some();
        run.prove(was_put_back, format!("{topic} was put back at the end of its partition"));
    }
}

async fn undo_fails(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    run.turn_back().await?;
    run.hit(1).await;
    Ok(())
}

async fn undo_delivered_twice(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    run.turn_back().await?;
    run.hit(1).await;
    let undo = run.cell.step().undo().map(|undo| undo.command.topic.clone()).unwrap_or_default();
    run.is_done_with(&undo).await;
    run.send_again(&undo, |run| run.undo_replies()).await?;
    Ok(())
}

async fn cancel_before_command(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    run.turn_back().await?;
    run.rests().await;
    let undone = run.undo_replies().first().and_then(sent_at);
    run.end(0).await?;
    let answer = run.send_again(&run.cell.step().command.topic, |run| run.replies()).await?;
    let answered = answer.as_ref().and_then(sent_at);
    run.prove(undone.is_some() && undone < answered, "the undo was answered before the command was");
    Ok(())
}

async fn reply_after_deadline(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    let given_up = run.transition(EntryKind::StepTimedOut).await;
    run.rests().await;
    let (lost, attempts) = (run.stage.chaos.hits(run.faults[0].0).0, u64::from(run.cell.step().attempts));
    run.prove(lost >= attempts, format!("{lost} replies to {attempts} attempts were lost"));
    run.end(0).await?;
    let late = run.send_again(&run.cell.step().command.topic, |run| run.replies()).await?;
    let late = late.as_ref().and_then(sent_at);
    run.prove(given_up.is_some() && given_up < late, "the first reply to arrive came after the step was given up");
    // The orchestrator has read it.
    run.hit(1).await;
    Ok(())
}

async fn orchestrator_killed(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    let Some(killed) = kill(run, "orchestrator").await? else { return Ok(()) };
    let replied = run.replies().first().and_then(sent_at);
    run.prove(replied.is_some_and(|at| at < killed), format!("the reply was there before the death at {killed}"));
    let taken = run.transition(EntryKind::StepSucceeded).await;
    run.prove(taken.is_some_and(|at| at > killed), "and was taken only after it");
    Ok(())
}

async fn participant_killed(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.hit(0).await;
    let service = run.participant.clone();
    let Some(killed) = kill(run, &service).await? else { return Ok(()) };
    let asked = run.stage.journal.on(&run.cell.step().command.topic, run.saga).first().and_then(sent_at);
    run.prove(asked.is_some_and(|at| at < killed), format!("the command was there before the death at {killed}"));
    let replied = until(SOON, async || run.replies().first().and_then(sent_at)).await;
    run.prove(replied.is_some_and(|at| at > killed), "and was answered only after it");
    Ok(())
}

/// Kills `service`, which holds the saga's message, and waits for its next process. Says when it died.
async fn kill(run: &mut Run<'_>, service: &str) -> anyhow::Result<Option<DateTime<Utc>>> {
    let Some(stack) = run.stage.stand.supervised.clone() else { return Ok(None) };
    run.process = stack.pid(service).await?;
    stack.kill(service).await?;
    let killed = Utc::now();
    // Its next process shall not hold the message again.
    run.end(0).await?;
    next_process(run, &stack, service).await;
    Ok(Some(killed))
}

async fn next_process(run: &mut Run<'_>, stack: &Supervised, service: &str) {
    let before = run.process;
    let is_next = |pid: &Option<u32>| pid.is_some() && *pid != before;
    let after = until(SOON, async || stack.pid(service).await.ok().filter(is_next)).await.flatten();
    let name = |pid: Option<u32>| pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
    let fact = format!("{service} was process {} and is process {}", name(before), name(after));
    run.prove(before.is_some() && after.is_some(), fact);
}

async fn fails_after_commit(run: &mut Run<'_>) -> anyhow::Result<()> {
    let Some(stack) = run.stage.stand.supervised.clone() else { return Ok(()) };
    let service = run.participant.clone();
    let died = until(SOON, async || std::fs::metadata(&stack.fired).ok()?.modified().ok()).await;
    let died = died.map(DateTime::<Utc>::from);
    run.prove(
        died.is_some(),
        died.map_or("no commit killed".to_owned(), |at| format!("a commit killed {service} at {at}")),
    );
    // Whoever waits for that in vain must not be killed later.
    std::fs::write(&stack.fired, "")?;
    next_process(run, &stack, &service).await;
    let reply = until(run.patience(), async || run.replies().into_iter().next()).await;
    let (stored, sent) = (reply.as_ref().and_then(stored_at), reply.as_ref().and_then(sent_at));
    let was_stored = stored.zip(died).is_some_and(|(stored, died)| stored <= died + ROUNDING);
    run.prove(was_stored, "the effect was stored before that");
    let was_sent = sent.zip(died).is_some_and(|(sent, died)| sent + ROUNDING >= died);
    run.prove(was_sent, "and its reply was sent after it");
    Ok(())
}
