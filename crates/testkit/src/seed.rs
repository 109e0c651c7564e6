//! Randomness that can be had again.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A generator seeded from `TEST_SEED`, or afresh. The seed is printed, so a failed run can be repeated.
///
/// # Panics
/// When `TEST_SEED` is set and is no unsigned 64-bit number.
pub fn rng() -> StdRng {
    let seed = match std::env::var("TEST_SEED") {
        Ok(text) => text.parse().expect("TEST_SEED is an unsigned 64-bit number"),
        Err(_) => rand::rng().next_u64(),
    };
    eprintln!("TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
