//! What is wrong for longer than a moment: said once when it begins and once when it ends, and shown by
//! `symphony status` in between.

use std::sync::Arc;

use chrono::Utc;

use super::super::Report;
use super::super::state::{Alarm, Board, State};

/// The alarms of a stack.
pub(in super::super) struct Alarms {
    report: Report,
    board: Arc<Board>,
}

impl Alarms {
    pub(in super::super) fn new(report: &Report, board: &Arc<Board>) -> Self {
        Self { report: report.clone(), board: Arc::clone(board) }
    }

    /// Whether `name` is raised.
    pub(super) fn is_raised(&self, name: &str) -> bool {
        self.board.snapshot().alarms.iter().any(|alarm| alarm.name == name)
    }

    /// The state of the stack.
    pub(super) fn state(&self) -> State {
        self.board.snapshot()
    }

    /// Raises `name` for the reason given, or ends it without one. What is so already is not said again, but shown as it
    /// is now.
    pub(in super::super) fn set(&self, name: &str, reason: Option<String>) {
        match (reason, self.is_raised(name)) {
            (Some(detail), false) => {
                self.report.say(&format!("ALARM {name}: {detail}"));
                let alarm = Alarm { name: name.to_owned(), detail, since: Utc::now() };
                self.board.change(|state| state.alarms.push(alarm));
            }
            (None, true) => {
                self.report.say(&format!("alarm {name} is over"));
                self.board.change(|state| state.alarms.retain(|alarm| alarm.name != name));
            }
            (Some(detail), true) => self.refresh(name, detail),
            (None, false) => {}
        }
    }
}

impl Alarms {
    fn refresh(&self, name: &str, detail: String) {
        let same = |alarm: &Alarm| alarm.name == name && alarm.detail == detail;
        if !self.board.snapshot().alarms.iter().any(same) {
            self.board.change(|state| {
                if let Some(alarm) = state.alarms.iter_mut().find(|alarm| alarm.name == name) {
                    alarm.detail = detail;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::process::ProcessId;

    #[test]
    fn an_alarm_is_said_when_it_begins_and_when_it_ends_and_never_in_between() {
        let folder = tempfile::tempdir().unwrap();
        let own = ProcessId::of(std::process::id()).unwrap();
        let board = Arc::new(Board::new(&folder.path().join("state.json"), own));
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        let report =
            Report::new(move |line| lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()));
        let alarms = Alarms::new(&report, &board);
        for reason in [None, Some("80 MB behind"), Some("90 MB behind"), Some("95 MB behind")] {
            alarms.set("slot-lag", reason.map(str::to_owned));
        }
        let raised: Vec<_> = board.snapshot().alarms.into_iter().map(|alarm| (alarm.name, alarm.detail)).collect();
        assert_eq!(raised, [("slot-lag".to_owned(), "95 MB behind".to_owned())], "it is shown as it is now");
        alarms.set("slot-lag", None);
        alarms.set("slot-lag", None);
        assert!(board.snapshot().alarms.is_empty());
        assert_eq!(*said.lock().unwrap(), ["ALARM slot-lag: 80 MB behind", "alarm slot-lag is over"]);
    }
}
