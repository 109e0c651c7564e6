//! What can be done to the bytes of one direction. A toxic decides about one item at a time and holds none itself: what
//! waits, waits in the queue before it ([`crate::chain`]). So no toxic can lose or reorder what it does not mean to.

mod bandwidth;
mod half_open;
mod latency;
mod limit_data;
mod noop;
mod reset_peer;
mod slicer;
mod slow_close;
mod timeout;

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(crate) use bandwidth::Bandwidth;
pub(crate) use half_open::HalfOpen;
pub(crate) use latency::Latency;
pub(crate) use limit_data::LimitData;
pub(crate) use noop::Noop;
pub(crate) use reset_peer::ResetPeer;
pub(crate) use slicer::Slicer;
pub(crate) use slow_close::SlowClose;
pub(crate) use timeout::Timeout;

/// What waits before a toxic when it does not say otherwise. Bytes.
pub(crate) const ROOM: usize = 64 * 1024;

/// Timers fire up to a millisecond late, and later on a busy machine. A toxic that spaces its pieces catches up on no
/// more than this.
const CATCH_UP: Duration = Duration::from_millis(20);

/// What goes through a direction, in the order in which it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes.
    Data(Chunk),
    /// The last item.
    End(End),
}

/// Bytes that were read, and are written, by one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// When they were read. A latency moves it to when they should leave, so that two of them add up.
    pub(crate) at: Instant,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The sender has no more to say; it still listens.
    Finish,
    /// Both connections are closed.
    Close,
    /// Both connections are reset.
    Reset,
}

/// What happens to the first item that waits before a toxic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Pass,
    /// So many of its bytes go on, as an item of their own: more than none, fewer than all.
    Part(usize),
    /// It is lost.
    Drop,
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until there is something else to decide about.
    Hold,
    /// The connection is closed once everything before has left. What waits is lost.
    Close,
    /// The connection is reset now.
    Reset,
}

/// A toxic at work on one direction of one connection.
pub(crate) trait Stage: Send {
    /// What happens at `now` to the first item that waits. There is none when nothing waits, or when nothing more can go
    /// on. Whoever answers [`Verdict::Pass`] or [`Verdict::Part`] may count on it being done.
    fn decide(&mut self, head: Option<&mut Item>, now: Instant) -> Verdict;

    /// Takes new attributes while it works.
    fn update(&mut self, attributes: &Attributes);

    /// How many bytes may wait before it.
    fn room(&self) -> usize {
        ROOM
    }

    /// Whether the connection must not go on without it.
    fn closes_when_removed(&self) -> bool {
        false
    }
}

/// The attributes of a toxic, by its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Attributes {
    Bandwidth(Bandwidth),
    HalfOpen(HalfOpen),
    Latency(Latency),
    LimitData(LimitData),
    Noop(Noop),
    ResetPeer(ResetPeer),
    Slicer(Slicer),
    SlowClose(SlowClose),
    Timeout(Timeout),
}

impl Attributes {
    /// Those of the type `name`, all zero.
    pub(crate) fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "bandwidth" => Self::Bandwidth(Bandwidth::default()),
            "half_open" => Self::HalfOpen(HalfOpen::default()),
            "latency" => Self::Latency(Latency::default()),
            "limit_data" => Self::LimitData(LimitData::default()),
            "noop" => Self::Noop(Noop::default()),
            "reset_peer" => Self::ResetPeer(ResetPeer::default()),
            "slicer" => Self::Slicer(Slicer::default()),
            "slow_close" => Self::SlowClose(SlowClose::default()),
            "timeout" => Self::Timeout(Timeout::default()),
            _ => return None,
        })
    }

    /// These with what `changes` has; the rest stays.
    ///
    /// # Errors
    /// When a value has a wrong type.
    pub(crate) fn with(&self, changes: &Map<String, Value>) -> Result<Self, serde_json::Error> {
        Ok(match self {
            Self::Bandwidth(old) => Self::Bandwidth(merged(old, changes)?),
            Self::HalfOpen(old) => Self::HalfOpen(merged(old, changes)?),
            Self::Latency(old) => Self::Latency(merged(old, changes)?),
            Self::LimitData(old) => Self::LimitData(merged(old, changes)?),
            Self::Noop(old) => Self::Noop(merged(old, changes)?),
            Self::ResetPeer(old) => Self::ResetPeer(merged(old, changes)?),
            Self::Slicer(old) => Self::Slicer(merged(old, changes)?),
            Self::SlowClose(old) => Self::SlowClose(merged(old, changes)?),
            Self::Timeout(old) => Self::Timeout(merged(old, changes)?),
        })
    }

    /// The toxic, beginning its work now.
    pub(crate) fn stage(&self, rng: StdRng, latency_buffer: usize, now: Instant) -> Box<dyn Stage> {
        match *self {
            Self::Bandwidth(attributes) => Box::new(bandwidth::Slow::new(attributes, now)),
            Self::HalfOpen(_) => Box::new(half_open::Silence),
            Self::Latency(attributes) => Box::new(latency::Delay::new(attributes, rng, latency_buffer)),
            Self::LimitData(attributes) => Box::new(limit_data::Cut::new(attributes)),
            Self::Noop(_) => Box::new(noop::Nothing),
            Self::ResetPeer(attributes) => Box::new(reset_peer::Abort::new(attributes)),
            Self::Slicer(attributes) => Box::new(slicer::Slice::new(attributes, rng)),
            Self::SlowClose(attributes) => Box::new(slow_close::Linger::new(attributes)),
            Self::Timeout(attributes) => Box::new(timeout::BlackHole::new(attributes, now)),
        }
    }
}

fn merged<T>(old: &T, changes: &Map<String, Value>) -> Result<T, serde_json::Error>
where
    T: Serialize + DeserializeOwned,
{
    let mut fields: Map<String, Value> = serde_json::from_value(serde_json::to_value(old)?)?;
    // Toxiproxy leaves out a null, too.
    fields.extend(
        changes.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())),
    );
    serde_json::from_value(Value::Object(fields))
}

/// A number of milliseconds as clients write it: a negative one is none.
fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

/// `at` and so much later, or never: a duration that no clock can hold does not end.
fn after(at: Instant, duration: Duration) -> Option<Instant> {
    at.checked_add(duration)
}

/// Waits until `due`, or for ever.
fn until(due: Option<Instant>) -> Verdict {
    due.map_or(Verdict::Hold, Verdict::Wait)
}

#[cfg(test)]
pub(crate) mod testing {
    use rand::SeedableRng;

    use super::*;

    pub(crate) fn data(bytes: &'static [u8], at: Instant) -> Item {
        Item::Data(Chunk { bytes: Bytes::from_static(bytes), at })
    }

    pub(crate) fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    pub(crate) fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_that_are_not_named_stay_and_wrong_ones_are_refused() {
        let zero = Attributes::of_type("latency").unwrap();
        let one = zero.with(json!({ "latency": 100, "unknown": 1 }).as_object().unwrap()).unwrap();
        let two = one.with(json!({ "jitter": 5, "latency": null }).as_object().unwrap()).unwrap();
        assert_eq!(serde_json::to_value(&two).unwrap(), json!({ "latency": 100, "jitter": 5 }));
        for wrong in [json!({ "latency": "100" }), json!({ "latency": 1.5 })] {
            assert!(two.with(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
        assert_eq!(Attributes::of_type("gremlins"), None);
    }
}
