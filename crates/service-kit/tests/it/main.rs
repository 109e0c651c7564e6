//! Services in this process, on port 0, and one as a process of its own.

mod drain;
mod http;
mod process;
mod support;
