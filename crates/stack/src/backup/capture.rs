//! Change capture after a restore.

use crate::layout::create_dir;
use crate::provision::{Names, slot, topics};
use crate::servers::Endpoints;
use crate::{DataDir, Error};

/// Makes the slot that a restored cluster does not have, and takes from Connect, which does not run now, all that it knows:
/// its offsets are positions of a log that never was, and a connector that started with them would move the slot past
/// what is still to be published. The next start makes the connector anew. Whatever is written to the outbox after this
/// is published.
pub async fn renew_capture(data: &DataDir, endpoints: &Endpoints) -> Result<(), Error> {
    create_dir(&data.connect())?;
    topics::forget_connect(endpoints).await?;
    let marker = data.forget_offsets();
    std::fs::write(&marker, "").map_err(Error::io(format!("writing {}", marker.display())))?;
    slot::ensure(endpoints, &Names::default()).await.map(drop)
}
