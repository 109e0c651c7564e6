//! The toxics on one direction of one connection, and what waits before each. No sockets and no timers: time comes in,
//! and out comes when to ask again.
//!
//! Everything that was read is in exactly one queue, in order. A toxic that comes finds an empty queue; what waits before
//! one that goes is put behind what waits before the next. So nothing is lost or reordered by a change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::draw::Draw;
use crate::model::{Direction, Toxic};
use crate::toxics::{Chunk, End, Item, ROOM, Stage, Verdict};

/// Items that wait in one queue, however small they are.
const MOST_ITEMS: usize = 8192;

static RESET: Item = Item::End(End::Reset);

/// The chain of one direction.
pub(crate) struct Chain {
    direction: Direction,
    draw: Draw,
    latency_buffer: usize,
    links: Vec<Link>,
    output: Queue,
    /// A toxic wants the connection reset.
    reset: bool,
}

/// A toxic and what waits before it.
struct Link {
    toxic: Arc<Toxic>,
    stage: Box<dyn Stage>,
    waiting: Queue,
}

impl Chain {
    /// A chain without toxics.
    pub(crate) fn new(direction: Direction, draw: Draw, latency_buffer: usize) -> Self {
        Self { direction, draw, latency_buffer, links: Vec::new(), output: Queue::new(ROOM), reset: false }
    }

    /// Makes the toxics those of `all` that are for this direction and hit this connection.
    pub(crate) fn configure(&mut self, all: &[Arc<Toxic>], now: Instant) {
        let draw = self.draw;
        let hits = |toxic: &&Arc<Toxic>| draw.toxicity(&toxic.name) < toxic.toxicity;
        let wanted: Vec<_> = all.iter().filter(|toxic| toxic.direction == self.direction).filter(hits).collect();
        let mut at = 0;
        while at < self.links.len() {
            if wanted.iter().any(|toxic| toxic.id == self.links[at].toxic.id) { at += 1 } else { self.remove(at) }
        }
        for (at, toxic) in wanted.into_iter().enumerate() {
            match self.links.get_mut(at) {
                Some(link) if link.toxic.id == toxic.id => link.update(toxic),
                _ => self.links.insert(at, Link::new(toxic, draw, self.latency_buffer, now)),
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let mut link = self.links.remove(at);
        if link.stage.closes_when_removed() {
            link.waiting.end(End::Close);
        }
        let mut next = self.links.get_mut(at).map_or(Next::Output(&mut self.output), Next::Link);
        link.waiting.items.drain(..).for_each(|item| next.take(item));
    }

    /// Whether more may be read.
    pub(crate) fn has_room(&self) -> bool {
        let first = self.links.first().map_or(&self.output, |link| &link.waiting);
        !first.ended && first.has_room()
    }

    /// Takes what was read.
    pub(crate) fn push(&mut self, item: Item) {
        match self.links.first_mut() {
            Some(link) => link.take(item),
            None => self.output.push(item),
        }
    }

    /// Moves everything as far as it may go at `now`, and tells when to ask again if nothing else happens.
    pub(crate) fn advance(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let mut moved = false;
            let mut wake: Option<Instant> = None;
            for at in 0..self.links.len() {
                let (before, after) = self.links.split_at_mut(at + 1);
                let link = &mut before[at];
                let next = match after.first_mut() {
                    Some(next) => Next::Link(next),
                    None => Next::Output(&mut self.output),
                };
                let step = link.advance(next, now);
                moved |= step.moved;
                self.reset |= step.reset;
                wake = wake.into_iter().chain(step.wake).min();
            }
            // What moved may have made room for what is behind it.
            if !moved {
                return wake;
            }
        }
    }

    /// The first item that may be written.
    pub(crate) fn first(&self) -> Option<&Item> {
        if self.reset { Some(&RESET) } else { self.output.items.front() }
    }

    /// So many bytes of the first item were written.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.output.split(bytes);
    }
}

/// Where a toxic's items go.
enum Next<'a> {
    Link(&'a mut Link),
    Output(&'a mut Queue),
}

impl Next<'_> {
    fn has_room(&self) -> bool {
        match self {
            Self::Link(link) => link.waiting.has_room(),
            Self::Output(queue) => queue.has_room(),
        }
    }

    fn take(&mut self, item: Item) {
        match self {
            Self::Link(link) => link.take(item),
            Self::Output(queue) => queue.push(item),
        }
    }
}

#[derive(Default)]
struct Step {
    moved: bool,
    reset: bool,
    wake: Option<Instant>,
}

impl Link {
    fn new(toxic: &Arc<Toxic>, draw: Draw, latency_buffer: usize, now: Instant) -> Self {
        toxic.hits.connections.inc();
        let stage = toxic.attributes.stage(draw.rng(&toxic.name), latency_buffer, now);
        let waiting = Queue::new(stage.room());
        Self { toxic: toxic.clone(), stage, waiting }
    }

    fn update(&mut self, toxic: &Arc<Toxic>) {
        if !Arc::ptr_eq(&self.toxic, toxic) {
            if self.toxic.attributes != toxic.attributes {
                self.stage.update(&toxic.attributes);
            }
            self.toxic = toxic.clone();
        }
    }

    fn take(&mut self, item: Item) {
        if let Item::Data(chunk) = &item {
            self.toxic.hits.bytes.inc_by(chunk.bytes.len() as u64);
        }
        self.waiting.push(item);
    }

    fn advance(&mut self, mut next: Next<'_>, now: Instant) -> Step {
        let mut step = Step::default();
        loop {
            let head = if next.has_room() { self.waiting.items.front_mut() } else { None };
            match self.stage.decide(head, now) {
                Verdict::Pass => match self.waiting.pop() {
                    Some(item) => next.take(item),
                    None => return step,
                },
                Verdict::Part(size) => match self.waiting.split(size) {
                    Some(item) => next.take(item),
                    None => return step,
                },
                Verdict::Drop => {
                    if let Some(Item::Data(chunk)) = self.waiting.pop() {
                        self.toxic.hits.dropped.inc_by(chunk.bytes.len() as u64);
                    }
                }
                Verdict::Wait(until) => {
                    step.wake = Some(until);
                    return step;
                }
                Verdict::Hold => return step,
                Verdict::Close => {
                    // It goes on saying so, and once is enough.
                    if self.waiting.closed {
                        return step;
                    }
                    self.waiting.end(End::Close);
                    self.waiting.items.drain(..).for_each(|item| next.take(item));
                    step.moved = true;
                    return step;
                }
                Verdict::Reset => {
                    step.reset = true;
                    return step;
                }
            }
            step.moved = true;
        }
    }
}

/// Items in order.
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    room: usize,
    /// The end came in: nothing comes after it.
    ended: bool,
    /// That end was a toxic's decision.
    closed: bool,
}

impl Queue {
    fn new(room: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, room, ended: false, closed: false }
    }

    fn has_room(&self) -> bool {
        self.bytes < self.room && self.items.len() < MOST_ITEMS
    }

    fn push(&mut self, item: Item) {
        if self.ended {
            return;
        }
        match &item {
            Item::Data(chunk) => self.bytes += chunk.bytes.len(),
            Item::End(_) => self.ended = true,
        }
        self.items.push_back(item);
    }

    /// Ends here, instead of with what waits.
    fn end(&mut self, end: End) {
        self.items.clear();
        self.bytes = 0;
        self.ended = true;
        self.closed = true;
        self.items.push_back(Item::End(end));
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Data(chunk) = &item {
            self.bytes -= chunk.bytes.len();
        }
        Some(item)
    }

    /// The first `size` bytes of the first item, or all of it if it has no more.
    fn split(&mut self, size: usize) -> Option<Item> {
        match self.items.front_mut() {
            Some(Item::Data(chunk)) if size < chunk.bytes.len() => {
                self.bytes -= size;
                Some(Item::Data(Chunk { bytes: chunk.bytes.split_to(size), at: chunk.at }))
            }
            _ => self.pop(),
        }
    }
}

#[cfg(test)]
mod tests;
