-- Refills that are still to be done. A row is written before something that was lost between the outbox and its readers is
-- made anew, and removed when all orders that have not ended everywhere were published again. Whoever is ended in between
-- leaves the row, and the next start, look or repair publishes them. Only the superuser writes it.
CREATE TABLE owed_refills (
    part  text        PRIMARY KEY, -- what was lost: topics, publication, slot
    since timestamptz NOT NULL DEFAULT clock_timestamp() -- when it was made anew, the last time
);
