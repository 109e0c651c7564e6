use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::fault::{BlastRadius, Target};

/// Who obeys: the service and its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The service's name.
    pub service: String,
    /// This process among its replicas.
    pub instance: String,
}

impl Target {
    /// Whether the fault concerns `identity` at all.
    pub(super) fn includes(&self, identity: &Identity) -> bool {
        matches(self.service.as_deref(), Some(&identity.service))
            && matches(self.instance.as_deref(), Some(&identity.instance))
    }

    /// Whether it concerns a message on `topic` that belongs to `step`.
    pub(super) fn covers(&self, topic: &str, step: Option<&str>) -> bool {
        matches(self.topic.as_deref(), Some(topic)) && matches(self.step.as_deref(), step)
    }
}

fn matches(wanted: Option<&str>, given: Option<&str>) -> bool {
    match wanted {
        None | Some("*") => true,
        wanted => wanted == given,
    }
}

/// Draws the victims of one fault in one instance.
#[derive(Debug, Default)]
pub(super) struct Aim {
    matched: AtomicU64,
    hit: AtomicU64,
}

impl Aim {
    /// Whether the message is hit. `place` names this delivery of it: the same one always draws the same lot.
    pub(super) fn takes(&self, radius: &BlastRadius, seed: u64, key: Option<&str>, place: &str) -> bool {
        if !radius.keys.is_empty() && !key.is_some_and(|key| radius.keys.iter().any(|wanted| wanted == key)) {
            return false;
        }
        let nth = self.matched.fetch_add(1, Ordering::Relaxed) + 1;
        if radius.every.is_some_and(|every| !nth.is_multiple_of(every.max(1)))
            || draw(seed, place) * 100.0 >= radius.percentage
        {
            return false;
        }
        match radius.first {
            None => {
                self.hit.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(first) => self
                .hit
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hit| (hit < first).then_some(hit + 1))
                .is_ok(),
        }
    }
}

/// A number from 0 up to 1 that depends on nothing but `seed` and `place`, on every machine and in every release.
pub(super) fn draw(seed: u64, place: &str) -> f64 {
    // A name-based UUID is a hash that never changes; its first 52 bits are free of version and variant but for four.
    let hash = Uuid::new_v5(&Uuid::from_u64_pair(seed, 0), place.as_bytes()).as_u128();
    let bits = (hash >> 80) as u64;
    bits as f64 / (1_u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_victims_and_about_the_share_asked_for() {
        let radius = BlastRadius { percentage: 25.0, ..BlastRadius::default() };
        let victims = |seed| {
            let aim = Aim::default();
            (0..4_000).filter(|n| aim.takes(&radius, seed, None, &format!("t/0@{n}"))).collect::<Vec<u32>>()
        };
        assert_eq!(victims(42), victims(42));
        assert_ne!(victims(42), victims(43));
        assert!((900..1_100).contains(&victims(42).len()), "{}", victims(42).len());
    }

    #[test]
    fn only_the_first_only_every_nth_and_only_named_keys_are_hit() {
        let hits = |radius: BlastRadius| {
            let aim = Aim::default();
            (1..=10).filter(|n| aim.takes(&radius, 1, Some(&n.to_string()), &n.to_string())).collect::<Vec<u32>>()
        };
        assert_eq!(hits(BlastRadius { first: Some(2), ..BlastRadius::default() }), [1, 2]);
        assert_eq!(hits(BlastRadius { every: Some(4), ..BlastRadius::default() }), [4, 8]);
        assert_eq!(hits(BlastRadius { keys: vec!["7".into()], ..BlastRadius::default() }), [7]);
        assert_eq!(hits(BlastRadius { percentage: 0.0, ..BlastRadius::default() }), [0_u32; 0]);
    }

    #[test]
    fn a_target_matches_what_it_names_and_everything_it_leaves_open() {
        let identity = Identity { service: "payment-svc".into(), instance: "payment-svc-1".into() };
        let target = |service: &str, topic: Option<&str>| Target {
            service: Some(service.into()),
            topic: topic.map(str::to_owned),
            ..Target::default()
        };
        assert!(target("*", None).includes(&identity));
        assert!(!target("shipping-svc", None).includes(&identity));
        assert!(target("payment-svc", Some("payment.requested")).covers("payment.requested", None));
        assert!(!target("payment-svc", Some("payment.requested")).covers("payment.refund.requested", None));
        assert!(!Target { step: Some("payment".into()), ..Target::default() }.covers("payment.requested", None));
    }
}
