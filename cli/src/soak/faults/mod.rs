//! The injectors. Each does its fault, proves that it happened, and heals it; a fault without proof is an error.

mod capture;
mod clock;
mod connect;
mod disk;
mod hostile;
mod links;
mod messages;
mod processes;
mod restarts;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use stack::supervisor::SERVICES;

pub(super) use self::hostile::MARK;
use super::kinds::Kind;
use super::load::Load;
use super::stand::Stand;

/// What a fault is done to.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) stand: &'a Stand,
    pub(super) load: &'a Load,
}

/// A fault that was done, and is over.
#[derive(Debug)]
pub(super) struct Injected {
    /// Whom it hit.
    pub(super) target: String,
    /// How one can see that it happened.
    pub(super) proof: String,
    /// From when on everything should work again: the moment of a crash, or of the healing.
    pub(super) from: Instant,
}

/// Does `kind`. `draw` decides whom it hits.
///
/// # Errors
/// When it could not be done, or not be seen to have happened. Then it may need [`heal`].
pub(super) async fn inject(scene: Scene<'_>, kind: Kind, draw: u64) -> anyhow::Result<Injected> {
    match kind {
        Kind::Kill(name) => processes::kill(scene.stand, name).await,
        Kind::Freeze => processes::freeze(scene.stand, service(draw)).await,
        Kind::ConnectTaskFailed => connect::fail_task(scene.stand).await,
        Kind::Link(link, toxic) => links::spoil(scene.stand, link, toxic, draw).await,
        Kind::DiskFull => disk::fill(scene.stand).await,
        Kind::Message(message) => messages::announce(scene.stand, message, draw).await,
        Kind::HostileBytes => hostile::send(scene.stand).await,
        Kind::ClockStep => clock::step(scene.stand, service(draw)).await,
        Kind::RollingRestart => restarts::rolling(scene).await,
        Kind::SlotDropped => capture::drop_slot(scene.stand).await,
        Kind::OffsetsTopicDeleted => capture::delete_offsets(scene.stand).await,
        Kind::TopicDeleted => capture::delete_topic(scene.stand, draw).await,
    }
}

/// Takes back whatever a fault that went wrong may have left.
pub(super) async fn heal(stand: &Stand) -> anyhow::Result<()> {
    disk::free(stand)?;
    for service in SERVICES {
        clock::set(stand, service.name, Duration::ZERO)?;
    }
    for component in stand.state()?.components {
        if let Some(process) = component.process() {
            // Fails only if it has just ended.
            let _ = process.signal(Signal::SIGCONT);
        }
    }
    stand.proxy.heal().await?;
    capture::mend_all(stand).await
}

/// One of the services.
fn service(draw: u64) -> &'static str {
    SERVICES[(draw % SERVICES.len() as u64) as usize].name
}
