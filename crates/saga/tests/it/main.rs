//! Tests of the public face of the crate.

mod coverage;
mod definitions;
mod diagnostics;
mod graph;
mod histories;
mod random;
mod schema;
mod script;
mod sequence;
mod stored;
mod world;
