//! Carries out what the other commands ask for.

use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Inner;
use super::control::{Conversation, Listener, Reply, Request};
use super::fleet::Key;
use super::service::{SERVICES, Service};
use super::state::Kind;

/// The most instances of a service. Topics have four partitions, so more than four consumers only stand by.
pub const MOST_INSTANCES: u32 = 16;

/// Answers requests until it is dropped. `down` gets those that want the stack to end.
pub(super) async fn serve(inner: Arc<Inner>, listener: Listener, down: mpsc::Sender<Conversation>) {
    // Dropped with this future, so no half-done request outlives the supervisor's end.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok(stream) = accepted else {
                    // Out of file descriptors, for one: others may give some back.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                let (inner, down) = (Arc::clone(&inner), down.clone());
                open.spawn(async move {
                    if let Some(conversation) = Conversation::begin(stream).await {
                        answer(&inner, conversation, &down).await;
                    }
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

async fn answer(inner: &Arc<Inner>, mut conversation: Conversation, down: &mpsc::Sender<Conversation>) {
    let done = match &conversation.request {
        Request::Down => {
            // The supervisor answers when all is ended.
            let _ = down.send(conversation).await;
            return;
        }
        Request::Status => {
            inner.board.measure_memory();
            Ok(())
        }
        Request::Start { name } => {
            for_each(inner, name, |inner, key| async move { inner.fleet.start(&key).await }).await
        }
        Request::Stop { name } => for_each(inner, name, |inner, key| async move { inner.fleet.stop(&key).await }).await,
        Request::Restart { name } => {
            for_each(inner, name, |inner, key| async move { inner.fleet.restart(&key).await }).await
        }
        Request::Kill { name, signal } => match Signal::try_from(*signal) {
            Ok(signal) => {
                for_each(inner, name, move |inner, key| async move { inner.fleet.kill(&key, signal).await }).await
            }
            Err(_) => Err(format!("{signal} is no signal")),
        },
        Request::Scale { name, instances } => scale(inner, name, *instances).await,
    };
    let reply = match done {
        Ok(()) => Reply::Done { state: Box::new(inner.board.snapshot()) },
        Err(error) => Reply::Failed { error },
    };
    conversation.say(&reply).await;
}

/// Does the same to all that `name` means, at once; the first error is the answer.
async fn for_each<F>(inner: &Arc<Inner>, name: &str, act: impl Fn(Arc<Inner>, Key) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut open = JoinSet::new();
    for key in inner.fleet.resolve(name)? {
        open.spawn(act(Arc::clone(inner), key));
    }
    open.join_all().await.into_iter().collect()
}

async fn scale(inner: &Arc<Inner>, name: &str, instances: u32) -> Result<(), String> {
    let known = SERVICES.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
    let spec = SERVICES.iter().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| format!("{name} is no service; services are {known}"))?;
    if !(1..=MOST_INSTANCES).contains(&instances) {
        return Err(format!("the number of instances is 1 to {MOST_INSTANCES}; `symphony stop {name}` stops all"));
    }
    // Two at once would both count the same instances.
    let _alone = inner.scaling.lock().await;
    let around = inner.around.get().ok_or("the stack is still starting")?;
    let mut there = inner.fleet.resolve(name)?;
    there.sort_by_key(|key| key.instance);
    let surplus = there.split_off(there.len().min(instances as usize));
    for key in surplus.iter().rev() {
        inner.fleet.remove(key).await?;
    }
    let missing = instances as usize - there.len();
    let unused = (1..).filter(|number| there.iter().all(|key| key.instance != *number));
    let mut open = JoinSet::new();
    for instance in unused.take(missing) {
        let service = Arc::new(Service::new(*spec, instance, around));
        let key = inner.fleet.add(spec.name, instance, Kind::Service, service);
        let inner = Arc::clone(inner);
        open.spawn(async move { inner.fleet.start(&key).await });
    }
    open.join_all().await.into_iter().collect()
}
