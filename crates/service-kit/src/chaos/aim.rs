use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::fault::{BlastRadius, Target, Variant};
use super::seen::Seen;

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

    /// Whether it concerns `message`.
    pub(super) fn covers(&self, message: Seen<'_>) -> bool {
        let (topic, canary_of) = (self.topic.as_deref(), message.canary_of());
        let variant_fits = match self.variant {
            None => true,
            Some(Variant::Stable) => canary_of.is_none(),
            Some(Variant::Canary) => canary_of.is_some(),
        };
        // With the variant named, the canary's topic may be called by the name that both variants share.
        let topic_fits = matches(topic, Some(message.topic()))
            || self.variant.is_some() && canary_of.is_some_and(|shared| matches(topic, Some(shared)));
        variant_fits
            && topic_fits
            && matches(self.step.as_deref(), message.step())
            && (self.definition.is_none() || matches(self.definition.as_deref(), message.definition().as_deref()))
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
    /// Whether `message` is hit. `place` names this delivery of it: the same one always draws the same lot.
    pub(super) fn takes(&self, radius: &BlastRadius, seed: u64, message: Seen<'_>, place: &str) -> bool {
        let (key, mut headers) = (message.key(), radius.headers.iter());
        if !radius.keys.is_empty() && !key.is_some_and(|key| radius.keys.iter().any(|wanted| wanted == key))
            || !headers.all(|(name, wanted)| message.header(name).as_deref() == Some(wanted))
        {
            return false;
        }
        let nth = self.matched.fetch_add(1, Ordering::Relaxed) + 1;
        if radius.every.is_some_and(|every| !nth.is_multiple_of(every.max(1)))
            || draw(seed, place) * 100.0 >= radius.percentage
        {
            return false;
        }
        let first = radius.first.unwrap_or(u64::MAX);
        let counted = |hit| (hit < first).then_some(hit + 1);
        self.hit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_ok()
    }
}

/// A number from 0 up to 1 that depends on nothing but `seed` and `place`, on every machine and in every release.
pub(super) fn draw(seed: u64, place: &str) -> f64 {
    // A name-based UUID is a hash that never changes; its first 48 bits are free of version and variant.
    let hash = Uuid::new_v5(&Uuid::from_u64_pair(seed, 0), place.as_bytes()).as_u128();
    let bits = (hash >> 80) as u64;
    bits as f64 / (1_u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use messaging::Record;

    use super::*;

    fn record(topic: &str, key: &str, headers: &[(&str, &str)]) -> Record {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            topic: topic.to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: Some(key.as_bytes().to_vec()),
            payload: None,
            headers: headers.iter().map(header).collect(),
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_victims_and_about_the_share_asked_for() {
        let radius = BlastRadius { percentage: 25.0, ..BlastRadius::default() };
        let victims = |seed| {
            let (aim, record) = (Aim::default(), record("t", "k", &[]));
            let hit = |n: &u32| aim.takes(&radius, seed, Seen::In(&record), &format!("t/0@{n}"));
            (0..4_000).filter(hit).collect::<Vec<u32>>()
        };
        assert_eq!(victims(42), victims(42));
        assert_ne!(victims(42), victims(43));
        assert!((900..1_100).contains(&victims(42).len()), "{}", victims(42).len());
    }

    #[test]
    fn only_the_first_only_every_nth_and_only_what_is_named_are_hit() {
        let hits = |radius: BlastRadius| {
            let aim = Aim::default();
            let hit = |n: &u32| {
                let record = record("t", &n.to_string(), &[("tenant", if n.is_multiple_of(3) { "x" } else { "y" })]);
                aim.takes(&radius, 1, Seen::In(&record), &n.to_string())
            };
            (1..=10).filter(hit).collect::<Vec<u32>>()
        };
        assert_eq!(hits(BlastRadius { first: Some(2), ..BlastRadius::default() }), [1, 2]);
        assert_eq!(hits(BlastRadius { every: Some(4), ..BlastRadius::default() }), [4, 8]);
        assert_eq!(hits(BlastRadius { keys: vec!["7".into()], ..BlastRadius::default() }), [7]);
        let headers = BTreeMap::from([("tenant".to_owned(), "x".to_owned())]);
        assert_eq!(hits(BlastRadius { headers, ..BlastRadius::default() }), [3, 6, 9]);
        let headers = BTreeMap::from([("absent".to_owned(), "x".to_owned())]);
        assert_eq!(hits(BlastRadius { headers, ..BlastRadius::default() }), [0_u32; 0]);
        assert_eq!(hits(BlastRadius { percentage: 0.0, ..BlastRadius::default() }), [0_u32; 0]);
    }

    #[test]
    fn a_target_matches_what_it_names_and_everything_it_leaves_open() {
        let identity = Identity { service: "payment-svc".into(), instance: "payment-svc-1".into() };
        let target = |service: &str| Target { service: Some(service.into()), ..Target::default() };
        assert!(target("*").includes(&identity));
        assert!(!target("shipping-svc").includes(&identity));

        let stable = record("payment.requested", "k", &[("ce_step", "payment"), ("ce_sagadefinition", "order")]);
        let canary = record("payment.requested.canary", "k", &[]);
        let covered = |target: Target| [&stable, &canary].map(|record| target.covers(Seen::In(record)));
        let topic = |topic: &str| Target { topic: Some(topic.into()), ..Target::default() };
        assert_eq!(covered(Target::default()), [true, true]);
        assert_eq!(covered(topic("payment.requested")), [true, false]);
        assert_eq!(covered(topic("payment.refund.requested")), [false, false]);
        let variant = |variant| Target { variant: Some(variant), ..topic("payment.requested") };
        assert_eq!(covered(variant(Variant::Stable)), [true, false]);
        assert_eq!(covered(variant(Variant::Canary)), [false, true]);
        assert_eq!(covered(Target { step: Some("payment".into()), ..Target::default() }), [true, false]);
        assert_eq!(covered(Target { definition: Some("order".into()), ..Target::default() }), [true, false]);
        assert_eq!(covered(Target { definition: Some("refund".into()), ..Target::default() }), [false, false]);
    }
}
