//! Change capture after a restore.

use crate::layout::create_dir;
use crate::provision::{Names, slot};
use crate::servers::Endpoints;
use crate::{DataDir, Error};

/// Makes the slot that a restored cluster does not have, and has the next start forget Connect's offsets first: these are
/// positions of a log that never was. Whatever is written to the outbox after this is published.
pub async fn renew_capture(data: &DataDir, endpoints: &Endpoints) -> Result<(), Error> {
    create_dir(&data.connect())?;
    let marker = data.forget_offsets();
    std::fs::write(&marker, "").map_err(Error::io(format!("writing {}", marker.display())))?;
    slot::ensure(endpoints, &Names::default()).await.map(drop)
}
