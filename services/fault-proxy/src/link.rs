//! One connection: bytes move from each side to the other, through the chain of toxics of that direction.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::sleep_until;

use crate::chain::Chain;
use crate::draw::Draw;
use crate::metrics::Traffic;
use crate::model::{Direction, Toxic};
use crate::toxics::{Chunk, End, Item};

/// The most bytes of one read.
const READ: usize = 32 * 1024;

/// The toxics of a proxy, as every connection sees them change.
pub(crate) type Toxics = watch::Receiver<Arc<[Arc<Toxic>]>>;

/// What a connection needs to know of its proxy.
pub(crate) struct Link {
    pub(crate) toxics: Toxics,
    pub(crate) draw: Draw,
    pub(crate) latency_buffer: usize,
    pub(crate) to_upstream: Traffic,
    pub(crate) to_client: Traffic,
}

impl Link {
    /// Moves bytes until both directions have ended, or one ends the whole connection. Both sockets are closed then.
    pub(crate) async fn run(self, mut client: TcpStream, mut upstream: TcpStream) {
        let (from_client, to_client) = client.split();
        let (from_upstream, to_upstream) = upstream.split();
        let chain = |direction| Chain::new(direction, self.draw, self.latency_buffer);
        let (client_reset, upstream_reset) = (AtomicBool::new(false), AtomicBool::new(false));
        let up = Half {
            source: from_client,
            sink: to_upstream,
            source_reset: &client_reset,
            sink_reset: &upstream_reset,
            toxics: self.toxics.clone(),
            chain: chain(Direction::Upstream),
            traffic: self.to_upstream,
        };
        let down = Half {
            source: from_upstream,
            sink: to_client,
            source_reset: &upstream_reset,
            sink_reset: &client_reset,
            toxics: self.toxics,
            chain: chain(Direction::Downstream),
            traffic: self.to_client,
        };
        // Whatever ends the whole connection in one direction drops the other.
        let ended = tokio::try_join!(up.run(), down.run());
        if ended == Err(End::Reset) {
            for stream in [&client, &upstream] {
                // Closing then sends RST. It fails only on a socket that is no more.
                if let Err(error) = stream.set_zero_linger() {
                    tracing::debug!(%error, "a connection cannot be reset: it is closed");
                }
            }
        }
    }
}

/// One direction of a connection.
struct Half<'s> {
    source: ReadHalf<'s>,
    sink: WriteHalf<'s>,
    /// The kernel reports a reset once. If writing was told, reading finds a clean end: each direction tells the other.
    source_reset: &'s AtomicBool,
    sink_reset: &'s AtomicBool,
    toxics: Toxics,
    chain: Chain,
    traffic: Traffic,
}

/// What writing came to.
enum Flow {
    /// Nothing more can be written now.
    Waits,
    /// Something was written: there is room again.
    Moved,
    /// This direction is done.
    Done,
}

impl Half<'_> {
    /// Until this direction has ended. The error ends the whole connection.
    async fn run(mut self) -> Result<(), End> {
        self.configure();
        loop {
            // A sender that never pauses must leave a turn to the other direction, and to everyone else on this thread.
            consume_budget().await;
            self.follow()?;
            let wake = self.chain.advance(Instant::now());
            match self.write().await? {
                Flow::Done => return Ok(()),
                Flow::Moved => continue,
                Flow::Waits => {}
            }
            // Readiness alone is awaited; what it is worth, the calls tell.
            tokio::select! {
                // Now it counts as seen: who does not take it here never will.
                changed = self.toxics.changed() => {
                    changed.map_err(|_| End::Close)?;
                    self.configure();
                }
                _ = self.source.readable(), if self.chain.has_room() => self.read()?,
                _ = self.sink.writable(), if self.chain.first().is_some() => {}
                () = reached(wake) => {}
            }
        }
    }

    /// Takes a change of the toxics, if there is one.
    fn follow(&mut self) -> Result<(), End> {
        if self.toxics.has_changed().map_err(|_| End::Close)? {
            self.configure();
        }
        Ok(())
    }

    fn configure(&mut self) {
        let toxics = self.toxics.borrow_and_update().clone();
        self.chain.configure(&toxics, Instant::now());
    }

    /// Reads once. The buffer lives only here, so that an idle connection has none.
    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; READ];
        let item = match self.source.try_read(&mut buffer) {
            Ok(0) if self.source_reset.load(Ordering::Relaxed) => Item::End(End::Reset),
            Ok(0) => Item::End(End::Finish),
            Ok(size) => {
                self.traffic.received.inc_by(size as u64);
                Item::Data(Chunk { bytes: Bytes::copy_from_slice(&buffer[..size]), at: Instant::now() })
            }
            Err(error) if is_passing(&error) => return Ok(()),
            Err(_) => Item::End(End::Reset),
        };
        // What was sent after a change must feel it: so it is looked for between reading and taking.
        self.follow()?;
        self.chain.push(item);
        Ok(())
    }

    /// Writes what may be written, each item by a call of its own: a slice stays a packet.
    async fn write(&mut self) -> Result<Flow, End> {
        let mut flow = Flow::Waits;
        while let Some(item) = self.chain.first() {
            match item {
                Item::Data(chunk) => match self.sink.try_write(&chunk.bytes) {
                    Ok(size) => {
                        self.traffic.sent.inc_by(size as u64);
                        self.chain.written(size);
                        flow = Flow::Moved;
                    }
                    Err(error) if is_passing(&error) => return Ok(flow),
                    // Nobody takes these bytes any more. What the other side still says is delivered; its end, or its
                    // reset, comes through the other direction.
                    Err(error) => {
                        self.sink_reset.fetch_or(error.kind() == io::ErrorKind::ConnectionReset, Ordering::Relaxed);
                        return Ok(Flow::Done);
                    }
                },
                Item::End(End::Finish) => {
                    // Fails only if the other side is gone, which the other direction notices.
                    if let Err(error) = self.sink.shutdown().await {
                        tracing::debug!(%error, "an end cannot be passed on");
                    }
                    return Ok(Flow::Done);
                }
                Item::End(end) => return Err(*end),
            }
        }
        Ok(flow)
    }
}

/// Whether the same call may succeed later.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until `at`, or for ever.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
