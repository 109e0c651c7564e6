//! Services in this process, on port 0, and one as a process of its own.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a helper fails the test that called it")]

mod drain;
mod http;
mod process;
mod support;
mod traces;
