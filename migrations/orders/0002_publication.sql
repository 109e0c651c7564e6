-- What Debezium decodes: the inserts of the outbox, and its own heartbeats. It is made before the slot, since a slot
-- that is older than its publication cannot be read.

-- Keeps the replication slot moving while no orders come in: a slot that stands still keeps the log on disk.
CREATE TABLE cdc_heartbeat (
    at timestamptz PRIMARY KEY DEFAULT clock_timestamp()
);

-- Inserts only: the outbox has no updates, and dropping its partitions or removing old heartbeats is no event.
-- Via the root: partitions that are attached later are in it, and the events carry the name of the outbox itself.
CREATE PUBLICATION orders_outbox FOR TABLE order_outbox, cdc_heartbeat
    WITH (publish = 'insert', publish_via_partition_root = true);

-- Decoding needs no right to read a table. The heartbeat query inserts one row and removes those of the last hours.
GRANT SELECT, INSERT, DELETE ON cdc_heartbeat TO debezium;
