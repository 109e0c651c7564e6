//! Chance that can be had again: every draw follows from the seed, the proxy, the number of the connection and the
//! toxic, whatever else happens at the same time.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The draws of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    /// Those of the connection that is `number` of the proxy named `proxy`.
    pub(crate) fn new(seed: u64, proxy: &str, number: u64) -> Self {
        Self(mix(mix(mix(seed) ^ hash(proxy)) ^ number))
    }

    /// From 0 (included) to 1 (excluded): a toxic hits the connection if this is below its toxicity. A changed toxicity
    /// changes nothing here, so a higher one hits the same connections and some more.
    pub(crate) fn toxicity(self, toxic: &str) -> f64 {
        // The upper 53 bits: as many as the fraction of an f64 has.
        let bits = (mix(self.0 ^ hash(toxic)) >> 11) as f64;
        bits / (1u64 << 53) as f64
    }

    /// What a toxic draws while it works.
    pub(crate) fn rng(self, toxic: &str) -> StdRng {
        StdRng::seed_from_u64(mix(!self.0 ^ hash(toxic)))
    }
}

/// FNV-1a: the same in every build, unlike the standard library's hasher.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64: spreads every bit over all.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(seed: u64, toxicity: f64) -> Vec<bool> {
        (0..1_000).map(|number| Draw::new(seed, "db", number).toxicity("latency_downstream") < toxicity).collect()
    }

    #[test]
    fn the_same_seed_hits_the_same_connections_and_another_one_others() {
        assert_eq!(hit(7, 0.5), hit(7, 0.5));
        assert_ne!(hit(7, 0.5), hit(8, 0.5));
    }

    #[test]
    fn a_toxicity_hits_about_its_share_and_a_higher_one_the_same_and_more() {
        let (some, more) = (hit(7, 0.3), hit(7, 0.6));
        let count = some.iter().filter(|hit| **hit).count();
        assert!((250..350).contains(&count), "{count}");
        assert!(some.iter().zip(&more).all(|(some, more)| !some | more));
        assert!(hit(7, 1.0).iter().all(|hit| *hit));
        assert!(!hit(7, 0.0).iter().any(|hit| *hit));
    }
}
