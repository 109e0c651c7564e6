//! The disk of PostgreSQL: small, in memory, and its own, so that it can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use stack::DataDir;
use stack::supervisor::Lock;

/// More than 20 minutes of orders write, log and rows. It takes memory only as it is filled, but a full one takes all of
/// it.
const SIZE: &str = "4g";
/// The least memory that must be available for it, in kilobytes: as much again for everything else.
const MEMORY_KB: u64 = 8 << 20;
/// What such disks are called in the list of all mounts.
const SOURCE: &str = "symphony-soak";

/// A file system that only PostgreSQL writes to; unmounted with the value.
pub(super) struct Disk {
    pub(super) folder: PathBuf,
}

impl Disk {
    /// Mounts one at `folder`, or says why it cannot.
    pub(super) fn mount(folder: &Path) -> Result<Self, &'static str> {
        if available_kb().is_none_or(|kb| kb < MEMORY_KB) {
            return Err("it needs 8 GB of available memory");
        }
        std::fs::create_dir_all(folder).map_err(|_| "its folder could not be made")?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0755"), SOURCE]).arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if mounted { Ok(Self { folder: folder.to_path_buf() }) } else { Err("it needs the right to mount") }
    }

    /// Where the cluster is on it.
    pub(super) fn cluster(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// Copies the cluster of `data`, which must not run, to `to`, where `data` finds it from then on: what is on the disk
    /// ends with it. Should that fail, the disk stays mounted.
    pub(super) fn keep(self, data: &DataDir, to: &Path) {
        let copied = Command::new("cp").arg("--archive").arg(self.cluster()).arg(to).output();
        let is_copied = copied.is_ok_and(|output| output.status.success());
        if !is_copied || std::fs::write(data.postgres_location(), to.as_os_str().as_encoded_bytes()).is_err() {
            let disk = self.folder.display();
            eprintln!("PostgreSQL's files could not be copied; they stay in memory, in {disk}, until the next soak");
            std::mem::forget(self);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).output();
    }
}

/// Unmounts the disks of soaks that were killed: nobody else would, and they take memory. That of a soak that runs stays,
/// as somebody holds the lock of the `stack` beside it.
pub(super) fn unmount_leftovers() {
    for folder in mounted(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()) {
        let data = folder.parent().and_then(|parent| DataDir::at(&parent.join("stack")).ok());
        if data.is_some_and(|data| Lock::is_taken(&data).is_ok_and(|taken| !taken)) {
            eprintln!("a soak was killed and its disk is still there: unmounting {}", folder.display());
            drop(Disk { folder });
        }
    }
}

/// Where such disks are, by the list of all mounts.
fn mounted(mounts: &str) -> Vec<PathBuf> {
    let folder = |line: &str| {
        let mut words = line.split(' ');
        let (source, folder, kind) = (words.next()?, words.next()?, words.next()?);
        // A space in a name is written as its number.
        (source == SOURCE && kind == "tmpfs").then(|| PathBuf::from(folder.replace("\\040", " ")))
    };
    mounts.lines().filter_map(folder).collect()
}

fn available_kb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_of_soaks_are_found_among_all_mounts() {
        let mounts = "proc /proc proc rw 0 0\n\
                      tmpfs /run tmpfs rw 0 0\n\
                      symphony-soak /tmp/symphony-soak-a/disk tmpfs rw,size=4194304k 0 0\n\
                      symphony-soak /mnt ext4 rw 0 0\n\
                      symphony-soak /tmp/a\\040b/disk tmpfs rw 0 0\n";
        assert_eq!(mounted(mounts), [PathBuf::from("/tmp/symphony-soak-a/disk"), PathBuf::from("/tmp/a b/disk")]);
    }
}
