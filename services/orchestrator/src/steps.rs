//! The steps of a saga as its row holds them: short names, whole milliseconds, nothing that is at its default.
//! Each transition writes the row anew, and the smaller it is, the more of its versions fit on its page.

use chrono::{DateTime, Utc};
use saga::{Phase, StepRun};
use serde::{Deserialize, Serialize};

/// [`StepRun`] under short names. They are in stored rows: none may change its meaning.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Packed {
    #[serde(rename = "p")]
    phase: char,
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    requested_at: Option<i64>,
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    requested_by: Option<u32>,
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    answered_by: Option<u32>,
    #[serde(rename = "ua", skip_serializing_if = "Option::is_none")]
    undo_attempts: Option<u32>,
    #[serde(rename = "ut", skip_serializing_if = "Option::is_none")]
    undo_requested_at: Option<i64>,
    #[serde(rename = "uv", skip_serializing_if = "Option::is_none")]
    undo_requested_by: Option<u32>,
    #[serde(rename = "uw", skip_serializing_if = "Option::is_none")]
    undone_by: Option<u32>,
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    deadline: Option<i64>,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    refused_before: Option<bool>,
}

/// Why a column cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("it is not the JSON of packed steps")]
    Json(#[from] serde_json::Error),
    #[error("there is no phase {0:?}")]
    Phase(char),
    #[error("there is no time {0}")]
    Time(i64),
}

fn letter(phase: Phase) -> char {
    match phase {
        Phase::Waiting => 'W',
        Phase::Requested => 'R',
        Phase::Succeeded => 'S',
        Phase::Failed => 'F',
        Phase::Unknown => 'U',
        Phase::Undoing => 'G',
        Phase::Undone => 'N',
        Phase::Skipped => 'K',
    }
}

/// The column of `steps`.
pub(crate) fn pack(steps: &[StepRun]) -> String {
    let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
    let some = |count: u32| Some(count).filter(|count| *count > 0);
    let packed: Vec<Packed> = steps
        .iter()
        .map(|run| {
            // Spelled out, so that a field which is added to it cannot be forgotten here.
            let StepRun {
                phase,
                attempts,
                requested_at,
                requested_by,
                answered_by,
                undo_attempts,
                undo_requested_at,
                undo_requested_by,
                undone_by,
                deadline,
                reason,
                refused_before,
            } = run.clone();
            Packed {
                phase: letter(phase),
                attempts: some(attempts),
                requested_at: millis(requested_at),
                requested_by,
                answered_by,
                undo_attempts: some(undo_attempts),
                undo_requested_at: millis(undo_requested_at),
                undo_requested_by,
                undone_by,
                deadline: millis(deadline),
                reason,
                refused_before: Some(refused_before).filter(|refused| *refused),
            }
        })
        .collect();
    serde_json::to_string(&packed).expect("plain data with string keys")
}

/// The steps of a column.
pub(crate) fn unpack(column: &str) -> Result<Vec<StepRun>, UnpackError> {
    let packed: Vec<Packed> = serde_json::from_str(column)?;
    packed.into_iter().map(Packed::run).collect()
}

impl Packed {
    fn run(self) -> Result<StepRun, UnpackError> {
        let phase = Phase::ALL.into_iter().find(|phase| letter(*phase) == self.phase);
        let time = |millis: Option<i64>| {
            millis.map(|millis| DateTime::from_timestamp_millis(millis).ok_or(UnpackError::Time(millis))).transpose()
        };
        Ok(StepRun {
            phase: phase.ok_or(UnpackError::Phase(self.phase))?,
            attempts: self.attempts.unwrap_or_default(),
            requested_at: time(self.requested_at)?,
            requested_by: self.requested_by,
            answered_by: self.answered_by,
            undo_attempts: self.undo_attempts.unwrap_or_default(),
            undo_requested_at: time(self.undo_requested_at)?,
            undo_requested_by: self.undo_requested_by,
            undone_by: self.undone_by,
            deadline: time(self.deadline)?,
            reason: self.reason,
            refused_before: self.refused_before.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;

    #[test]
    fn steps_come_back_as_they_went() {
        let full = |phase| StepRun {
            phase,
            attempts: 4,
            requested_at: Some(at(1)),
            requested_by: Some(1),
            answered_by: Some(2),
            undo_attempts: 3,
            undo_requested_at: Some(at(2)),
            undo_requested_by: Some(3),
            undone_by: Some(4),
            deadline: Some(at(3)),
            reason: Some("no answer\0".to_owned()),
            refused_before: true,
        };
        let mut steps: Vec<StepRun> = Phase::ALL.into_iter().map(full).collect();
        steps.push(StepRun::default());
        assert_eq!(unpack(&pack(&steps)).expect("packed steps"), steps);
    }

    #[test]
    fn a_step_that_succeeded_takes_little_room() {
        let run = StepRun {
            phase: Phase::Succeeded,
            attempts: 1,
            requested_at: Some(at(0)),
            requested_by: Some(1),
            answered_by: Some(2),
            ..StepRun::default()
        };
        assert_eq!(pack(&[run, StepRun::default()]), r#"[{"p":"S","a":1,"t":1795255200000,"v":1,"w":2},{"p":"W"}]"#);
    }

    #[test]
    fn what_was_never_packed_is_refused() {
        assert!(matches!(unpack("[{\"p\":\"Z\"}]"), Err(UnpackError::Phase('Z'))));
        assert!(matches!(unpack("{}"), Err(UnpackError::Json(_))));
    }
}
