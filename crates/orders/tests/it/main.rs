//! The committed contract files are the generated ones.

mod contracts;
