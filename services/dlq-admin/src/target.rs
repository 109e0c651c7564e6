//! Where a message may be sent back to. Whoever can write to one dead letter topic can write any header there, and dlq-admin
//! may write to every topic: so a letter is believed only as far as the topic that it lies on.

use crate::SUFFIX;

/// The last record of a key is its value, to every service: a message that comes again would bring back an old one.
const SHARED_STATE: [&str; 2] = ["chaos.faults", "platform.config"];

/// Why no message goes back to a topic.
pub(crate) const FORBIDDEN: &str = "forbidden-target";

/// The topics to which letters may go back that do not lie on those topics' own dead letters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    foreign: Vec<String>,
}

impl Targets {
    /// `foreign` are topics for letters of Spring and Kafka Connect, which can gather those of many topics on one.
    pub(crate) fn new(foreign: Vec<String>) -> Self {
        Targets { foreign }
    }

    /// Why a letter on `dlq_topic`, with headers of `format`, must not go back to `topic`.
    pub(crate) fn refusal(&self, topic: &str, dlq_topic: &str, format: &str) -> Option<String> {
        if topic.starts_with("__") || topic.ends_with(SUFFIX) || SHARED_STATE.contains(&topic) {
            return Some(format!("nothing is sent to {topic}: it is Kafka's own, holds dead letters, or shared state"));
        }
        let own = dlq_topic.strip_suffix(SUFFIX) == Some(topic);
        let foreign = matches!(format, "spring" | "connect") && self.foreign.iter().any(|allowed| allowed == topic);
        (!own && !foreign).then(|| {
            format!(
                "the letter lies on {dlq_topic}, and dead letters of {topic} lie on {topic}{SUFFIX}: \
                 replay.foreign_targets does not name {topic}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_goes_back_only_to_the_topic_whose_dead_letters_it_lies_on() {
        let targets = Targets::new(vec!["export".into(), "chaos.faults".into()]);
        let refused = |topic: &str, dlq: &str, format: &str| targets.refusal(topic, dlq, format).is_some();
        assert!(!refused("work", "work.dlq", "symphony") && !refused("work", "work.dlq", "raw"));
        assert!(!refused("work", "work.dlq", "spring"));
        assert!(refused("other", "work.dlq", "symphony") && refused("other", "work.dlq", "connect"));
        assert!(!refused("export", "sink.dlq", "connect") && !refused("export", "sink.dlq", "spring"));
        assert!(refused("export", "sink.dlq", "symphony"), "ours always lie on their topic's own");
        for topic in ["__consumer_offsets", "work.dlq", "chaos.faults", "platform.config"] {
            for format in ["symphony", "connect", "raw"] {
                assert!(refused(topic, &format!("{topic}.dlq"), format), "{topic}");
            }
        }
    }
}
