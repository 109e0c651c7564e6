//! What is committed beside a partition's offset, so that the next process knows what this one has been through.

use chrono::{DateTime, SecondsFormat, Utc};

/// So many processes in a row may end while they handle a batch that begins with the same message; from then on its
/// messages are handled one by one.
const SUSPICIOUS: u32 = 3;
/// A message that was alone in so many more is taken to be the cause, and given up.
const GUILTY: u32 = SUSPICIOUS + 3;

/// How it stands with what begins at a partition's committed offset. The metadata of the offset holds it as text, such as
/// `begun=1 attempts=7 since=2026-11-21T16:00:00Z`; none for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// How often it was begun and neither ended nor failed: the process died meanwhile.
    pub(super) begun: u32,
    /// How often it was tried and a dependency was away.
    pub(super) attempts: u32,
    /// Since when one of the two has happened again and again.
    pub(super) since: Option<DateTime<Utc>>,
}

impl Note {
    /// What `text` says; whatever it does not say is as in the default.
    pub(super) fn read(text: &str) -> Self {
        let mut note = Note::default();
        for (name, value) in text.split(' ').filter_map(|pair| pair.split_once('=')) {
            match name {
                "begun" => note.begun = value.parse().unwrap_or_default(),
                "attempts" => note.attempts = value.parse().unwrap_or_default(),
                "since" => note.since = DateTime::parse_from_rfc3339(value).ok().map(|since| since.to_utc()),
                _ => {}
            }
        }
        note
    }

    /// The text that [`Note::read`] reads.
    pub(super) fn text(&self) -> String {
        let Note { begun, attempts, since } = self;
        match since {
            Some(since) => {
                let since = since.to_rfc3339_opts(SecondsFormat::Millis, true);
                format!("begun={begun} attempts={attempts} since={since}")
            }
            None => String::new(),
        }
    }

    /// The same when it is begun once more, `alone` or in a batch.
    pub(super) fn begin(self, alone: bool) -> Self {
        // A batch says no more than that one of its messages is suspicious, however often.
        let begun =
            if alone { self.begun.max(SUSPICIOUS) + 1 } else { (self.begun + 1).min(self.begun.max(SUSPICIOUS)) };
        Note { begun, since: self.since.or_else(|| Some(Utc::now())), ..self }
    }

    /// What is left to say when the process lives on: the attempts that failed, if any did.
    pub(super) fn survived(attempts: u32, since: Option<DateTime<Utc>>) -> Self {
        if attempts == 0 { Note::default() } else { Note { begun: 0, attempts, since } }
    }

    /// Whether its messages are to be handled one by one, to find the one that ends processes.
    pub(super) fn is_suspicious(&self) -> bool {
        self.begun >= SUSPICIOUS
    }

    /// Whether its first message is the one that ends processes.
    pub(super) fn is_guilty(&self) -> bool {
        self.begun >= GUILTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_as_it_was_written_and_anything_else_as_none() {
        let since = DateTime::from_timestamp_millis(1_790_000_000_123);
        let note = Note { begun: 2, attempts: 7, since };
        assert_eq!(Note::read(&note.text()), note);
        assert_eq!(Note::default().text(), "");
        for strange in ["", "by hand", "begun=-1 attempts=x since=today", "NODE:7"] {
            assert_eq!(Note::read(strange), Note::default(), "{strange:?}");
        }
    }

    #[test]
    fn a_message_is_guilty_only_after_three_ends_in_a_batch_and_three_alone() {
        let mut note = Note::default();
        for _ in 0..3 {
            assert!(!note.is_suspicious());
            note = note.begin(false);
        }
        // However many batches begin with it.
        note = note.begin(false).begin(false);
        for _ in 0..3 {
            assert!(note.is_suspicious() && !note.is_guilty());
            note = note.begin(true);
        }
        assert!(note.is_guilty());
        // One that is handled alone for its neighbour's sake has to be alone three times as well.
        let neighbour = Note::default().begin(true).begin(true);
        assert!(!neighbour.is_guilty() && neighbour.begin(true).is_guilty());
        assert_eq!(Note::survived(0, note.since), Note::default());
    }
}
