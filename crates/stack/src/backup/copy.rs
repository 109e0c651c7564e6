//! Copying files while their digest is taken.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::Entry;
use crate::Error;

const BUFFER_BYTES: usize = 1 << 18;

/// Copies `path` from one folder to another. `None` if it is not there (any more).
pub(super) fn copy(from: &Path, to: &Path, path: &Path) -> Result<Option<Entry>, Error> {
    let source = from.join(path);
    match File::open(&source) {
        Ok(mut reader) => write(to, path, &mut reader).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("opening {}", source.display()))(error)),
    }
}

/// Writes a new file.
pub(super) fn store(to: &Path, path: &Path, mut content: &[u8]) -> Result<Entry, Error> {
    write(to, path, &mut content)
}

fn write(to: &Path, path: &Path, reader: &mut impl Read) -> Result<Entry, Error> {
    let target = to.join(path);
    let doing = || Error::io(format!("copying into {}", target.display()));
    let mut writer = File::options().write(true).create_new(true).mode(0o600).open(&target).map_err(doing())?;
    let (mut digest, mut size) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(doing()(error)),
        };
        digest.update(&buffer[..read]);
        writer.write_all(&buffer[..read]).map_err(doing())?;
        size += read as u64;
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Entry { path: path.to_path_buf(), size, sha256 })
}

/// Whatever was written to the file system of `folder` is on the disk when this returns: one flush instead of one for
/// each of thousands of files.
pub(super) fn flush(folder: &Path) -> Result<(), Error> {
    let doing = || Error::io(format!("flushing {}", folder.display()));
    let open = File::open(folder).map_err(doing())?;
    nix::unistd::syncfs(&open).map_err(|errno| doing()(errno.into()))
}

/// Runs what blocks for long where it may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Other(format!("a copy was interrupted: {error}"))))
}
