//! The publication of the outbox: what PostgreSQL gives to whoever reads the slot.
//!
//! Without it PostgreSQL passes over everything that is written to the outbox, and says nothing.

use sqlx::{AssertSqlSafe, Connection, Executor};

use super::Names;
use super::databases::superuser;
use crate::Error;
use crate::servers::Endpoints;

/// What makes it, as in `migrations/orders/0002_publication.sql`.
pub const SQL: &str = "CREATE PUBLICATION orders_outbox FOR TABLE order_outbox, cdc_heartbeat
    WITH (publish = 'insert', publish_via_partition_root = true);";
const DROP: &str = "DROP PUBLICATION IF EXISTS orders_outbox";
const IS_WHOLE: &str = "SELECT EXISTS (SELECT FROM pg_publication \
     WHERE pubname = 'orders_outbox' AND pubinsert AND pubviaroot) \
    AND (SELECT count(*) FROM pg_publication_tables \
          WHERE pubname = 'orders_outbox' AND tablename IN ('order_outbox', 'cdc_heartbeat')) = 2";

/// Whether it is there and covers the outbox and the heartbeats.
pub async fn is_whole(endpoints: &Endpoints, names: &Names) -> Result<bool, Error> {
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let asked = sqlx::query_scalar(IS_WHOLE).fetch_one(&mut connection).await;
    asked.map_err(Error::database("looking up publication orders_outbox"))
}

/// Makes it as the migration does, in the place of one that lacks something. What was committed without it is never read
/// from the slot: it has to be inserted again, see [`super::refill`].
pub async fn make(endpoints: &Endpoints, names: &Names) -> Result<(), Error> {
    let doing = || Error::database("making publication orders_outbox");
    let mut connection = superuser(endpoints, &names.orders_database()).await?;
    let mut transaction = connection.begin().await.map_err(doing())?;
    for statement in [DROP, SQL] {
        transaction.execute(AssertSqlSafe(statement)).await.map_err(doing())?;
    }
    transaction.commit().await.map_err(doing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Repository;

    #[test]
    fn it_is_the_one_of_the_migration() {
        let file = Repository::find().unwrap().migrations().join("orders/0002_publication.sql");
        assert!(std::fs::read_to_string(file).unwrap().contains(SQL));
    }
}
