//! `symphony certify`: every step of every saga under every fault, on the real stack, each cell with proof of its fault.
//!
//! A cell is one instance of a saga, started for it, with one fault aimed at one step of it. Faults are aimed at the
//! instance's key, so the cells of a wave run side by side; those that kill a process come one after the other. After
//! all of them each instance is judged by what is stored: its timeline, its messages on the topics, and the effects of
//! each step in the participants' databases; and at the end the whole audit is made, I1 to I8.
//!
//! The cells are read off the definitions that the orchestrator runs ([`cells`]). What no definition can say, how an
//! instance is started and where its effects are counted, is in a file beside it ([`samples`]); a definition without
//! that file has void cells and fails the run.

mod cells;
mod chaos;
mod checks;
mod instance;
mod journal;
mod kinds;
pub mod own;
mod page;
mod report;
mod runner;
mod samples;
mod stage;
mod start;

pub use cells::Fault;
pub use page::page;
pub use report::{CellReport, Report, SagaReport, Verdict};
pub use runner::{Select, certify};
pub use samples::Samples;
pub use stage::{Stand, Supervised};
