//! The runtime against a real broker.

mod dead_letters;
mod delivery;
mod groups;
mod harness;
mod partial_produce;
mod raw;
mod retries;
mod timers;
mod transactions;
