//! Asking the supervisor of a running stack.

use std::time::Duration;

use anyhow::anyhow;
use stack::DataDir;
use stack::ports::Ports;
use stack::servers::Endpoints;
use stack::supervisor::Lock;
use stack::supervisor::control::{Client, Request};
use stack::supervisor::state::State;

use crate::{Context, output};

/// A status takes milliseconds: a supervisor that is silent for so long is stopped or stuck.
const SILENCE: Duration = Duration::from_secs(15);

/// Sends a request and waits for the outcome. Progress goes to stderr.
pub(super) async fn ask(data: &DataDir, request: &Request) -> anyhow::Result<State> {
    let client = Client::send(data, request).await?.ok_or_else(|| anyhow!("no stack runs here: symphony up"))?;
    Ok(client.finish(|text| eprintln!("{text}")).await?)
}

/// Like [`ask`], for a change that people only want to know done: says `done`, or prints the state as JSON.
pub(super) async fn change(context: &Context, request: &Request, done: &str) -> anyhow::Result<()> {
    let state = ask(&context.data, request).await?;
    if context.json {
        outln!("{}", output::json(&state)?);
    } else {
        eprintln!("{done}");
    }
    Ok(())
}

/// The state of the stack: of a running one as it is now, else what its last supervisor left. `None` if there
/// never was one.
pub(super) async fn state(data: &DataDir) -> anyhow::Result<Option<State>> {
    if Lock::is_taken(data)?
        && let Some(state) = ask_running(data).await?
    {
        return Ok(Some(state));
    }
    Ok(State::read(data)?.map(State::after_the_supervisor))
}

/// What a running supervisor says now; `None` if none listens.
pub(super) async fn ask_running(data: &DataDir) -> anyhow::Result<Option<State>> {
    let Some(client) = Client::send(data, &Request::Status).await? else { return Ok(None) };
    match tokio::time::timeout(SILENCE, client.finish(|_| ())).await {
        Ok(answer) => Ok(Some(answer?)),
        Err(_) => Err(anyhow!("the supervisor has not answered for {} s", SILENCE.as_secs())),
    }
}

/// Where the servers of a stack are reached; `None` before they have ports.
pub(super) fn endpoints(state: &State) -> Option<Endpoints> {
    let port = |name: &str| {
        let url = &state.components.iter().find(|component| component.name == name)?.url;
        url.rsplit(':').next()?.parse().ok()
    };
    Some(Endpoints::straight(Ports { postgres: port("postgres")?, kafka: port("kafka")?, connect: port("connect")? }))
}
