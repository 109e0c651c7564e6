//! What the kernel knows about processes, read from `/proc`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Process number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now; `None` if there is none, or it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != 'Z').then_some(Self { pid, started_ticks: stat.started_ticks })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal if it still runs.
    pub fn signal(self, signal: Signal) -> nix::Result<()> {
        if self.is_alive() { send(self.pid, signal) } else { Ok(()) }
    }

    /// Waits until it is gone, at most `limit`; `false` if it still runs then.
    pub async fn gone_within(self, limit: Duration) -> bool {
        let gone = async {
            while self.is_alive() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }
}

/// Whether a process is suspended by a signal, SIGSTOP for example.
pub fn is_suspended(pid: u32) -> bool {
    Stat::read(pid).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// Sends a signal to a process by its number.
pub fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), signal)
}

struct Stat {
    state: char,
    parent: u32,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold blanks and brackets itself.
        let mut fields = line.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // `starttime` is field 22 of the line, the 18th after `ppid`.
        let started_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started_ticks })
    }
}

fn numbers() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The memory of many process trees, from one look at all processes.
pub struct Memory {
    children: HashMap<u32, Vec<u32>>,
}

impl Memory {
    /// Looks at the parents of all processes.
    pub fn look() -> Self {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, stat) in numbers().filter_map(|pid| Some((pid, Stat::read(pid)?))) {
            children.entry(stat.parent).or_default().push(pid);
        }
        Self { children }
    }

    /// Proportional set size of a process and all below it, in bytes: pages that several share count in parts.
    /// `None` if nothing could be read.
    pub fn of_tree(&self, root: u32) -> Option<u64> {
        let mut open = vec![root];
        let mut sum = None;
        while let Some(pid) = open.pop() {
            if let Some(bytes) = proportional_set_size(pid) {
                *sum.get_or_insert(0) += bytes;
            }
            open.extend(self.children.get(&pid).into_iter().flatten());
        }
        sum
    }
}

fn proportional_set_size(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The processes whose current directory is `directory`.
pub fn working_in(directory: &Path) -> Vec<u32> {
    numbers().filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)).collect()
}

/// The program that a process runs, if we may know.
pub fn program(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 123456 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started_ticks), ('S', 7, 123_456));
    }

    #[test]
    fn this_process_is_alive_and_has_memory_and_a_directory() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started_ticks: own.started_ticks + 1, ..own }.is_alive());
        assert!(Memory::look().of_tree(own.pid).unwrap() > 100_000);
        assert!(working_in(&std::env::current_dir().unwrap()).contains(&own.pid));
    }
}
