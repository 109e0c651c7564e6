//! Campaigns: many letters sent back, in waves that grow while what was sent is processed.
//!
//! All that a campaign is lies in the database. The replica that holds its lease takes it a step further at each turn; a
//! replica that dies loses the lease, and another goes on at the same place.

mod run;
pub(crate) mod start;
pub(crate) mod verbs;
pub(crate) mod view;

pub(crate) use run::Runner;
pub use run::{COUNTS, END, LEASE, MARK_ITEMS, NEXT_ITEMS, NEXT_WAVE, STILL_RUNS};

/// How many messages a wave has; later ones have as many as the last.
pub const RAMP: [u32; 8] = [1, 2, 5, 20, 50, 100, 200, 500];

/// Messages of the wave of that number, from 1.
fn wave_size(wave: i32) -> i64 {
    let index = usize::try_from(wave - 1).unwrap_or(0).min(RAMP.len() - 1);
    RAMP[index].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_grow_and_then_stay() {
        assert_eq!([1, 2, 3, 4, 5, 6, 8, 9, 100].map(wave_size), [1, 2, 5, 20, 50, 100, 500, 500, 500]);
    }
}
