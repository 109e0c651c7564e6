-- Orders, their lines, and the outbox from which Debezium publishes order.created.

-- Ids are UUIDv7, so the primary key is also the order of arrival: lists page by it.
-- One update per order (its end). Orders that arrived together end together, so one transaction may update every row
-- of a page before any old version can be pruned: half of each page stays free and every such update is HOT.
-- For the same reason no index, not even a partial one's predicate, mentions a column that changes.
CREATE TABLE orders (
    id              uuid        PRIMARY KEY,
    customer_id     text        NOT NULL,
    status          text        NOT NULL DEFAULT 'PENDING'
                    CONSTRAINT orders_status_known CHECK (status IN ('PENDING', 'COMPLETED', 'CANCELLED', 'PARKED')),
    reason          text,
    total_minor     bigint      NOT NULL CONSTRAINT orders_total_positive CHECK (total_minor > 0),
    currency        text        NOT NULL CONSTRAINT orders_currency_iso CHECK (currency ~ '^[A-Z]{3}$'),
    saga_version    integer     NOT NULL DEFAULT 0, -- of the last saga event applied; only a greater one is
    idempotency_key text,
    request_hash    bytea,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_key_has_hash CHECK ((idempotency_key IS NULL) = (request_hash IS NULL))
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX orders_idempotency_key ON orders (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX orders_customer ON orders (customer_id, id);
-- The reconciler reads a stretch of time. The table grows in that order, so a few bytes for each stretch of pages do.
CREATE INDEX orders_created ON orders USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

-- No foreign key: one statement writes an order with its lines, nothing deletes either, and the check would read and
-- lock the order once for every line.
CREATE TABLE order_items (
    order_id         uuid    NOT NULL,
    line             integer NOT NULL, -- from 0, as in the request
    sku              text    NOT NULL,
    quantity         integer NOT NULL CONSTRAINT order_items_quantity_positive CHECK (quantity > 0),
    unit_price_minor bigint  NOT NULL CONSTRAINT order_items_price_positive CHECK (unit_price_minor > 0),
    PRIMARY KEY (order_id, line)
);

-- Insert-only. It is the only source to publish an order from again, so rows stay for days and leave by the partition.
-- A row inserted again has the same id: consumers see the same message. So id is not unique here.
CREATE TABLE order_outbox (
    id            uuid        NOT NULL,
    aggregatetype text        NOT NULL, -- the topic
    aggregateid   text        NOT NULL, -- the key: the order's id
    type          text        NOT NULL, -- ce_type
    payload       bytea       NOT NULL
                  -- A record above the broker's limit would stop the connector, and with it every order.
                  CONSTRAINT order_outbox_payload_bounded CHECK (octet_length(payload) <= 262144),
    source        text        NOT NULL,
    time          text        NOT NULL, -- RFC 3339: goes into a header as it is
    sagaid        text        NOT NULL,
    specversion   text        NOT NULL DEFAULT '1.0',
    contenttype   text        NOT NULL DEFAULT 'application/json',
    traceparent   text,
    created_at    timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (created_at);

CREATE INDEX order_outbox_aggregateid ON order_outbox (aggregateid);

-- The safety net: were no partition made ahead for days, orders would still be accepted, into this one.
-- Maintenance then turns it into a partition of the days it holds, without moving a row, and makes a new one.
CREATE TABLE order_outbox_default PARTITION OF order_outbox DEFAULT
    WITH (autovacuum_vacuum_insert_threshold = -1);

-- Every partition but the default one.
CREATE TABLE outbox_partitions (
    name       text   PRIMARY KEY,
    from_day   date   NOT NULL, -- UTC, inclusive
    to_day     date   NOT NULL, -- UTC, exclusive
    -- A WAL position after the last row that the partition can ever get; known a day after its end, when every
    -- transaction that could write to it is long over.
    closed_lsn pg_lsn
);

-- The reconciler's progress: orders created before this have been looked at, and those found still pending are in
-- order_stragglers.
CREATE TABLE order_reconciler (
    only_row        boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    scanned_through timestamptz NOT NULL
);
INSERT INTO order_reconciler (scanned_through) VALUES (now());

CREATE TABLE order_stragglers (
    order_id   uuid        PRIMARY KEY,
    created_at timestamptz NOT NULL, -- of the order
    emitted_at timestamptz,          -- last time its outbox row was inserted again
    due_at     timestamptz NOT NULL,
    emissions  integer     NOT NULL DEFAULT 0
);

-- Partitions. Roles that serve requests cannot run DDL: these functions do, for their owner, and nothing else.

-- Makes the partitions of `today` and of the `days_ahead` days after it. Returns how many were made.
CREATE FUNCTION outbox_create_partitions(today date, days_ahead integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    first_day date;
    last_day  date;
    day       date;
    partition text;
    made      integer := 0;
BEGIN
    SELECT min((created_at AT TIME ZONE 'UTC')::date), max((created_at AT TIME ZONE 'UTC')::date)
      INTO first_day, last_day FROM order_outbox_default;
    IF first_day IS NOT NULL AND NOT EXISTS (
        SELECT FROM outbox_partitions WHERE from_day <= last_day AND to_day > first_day
    ) THEN
        partition := format('order_outbox_p%s', to_char(first_day, 'YYYYMMDD'));
        ALTER TABLE order_outbox DETACH PARTITION order_outbox_default;
        EXECUTE format('ALTER TABLE order_outbox_default RENAME TO %I', partition);
        EXECUTE format('ALTER TABLE order_outbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
            first_day::timestamp AT TIME ZONE 'UTC', (last_day + 1)::timestamp AT TIME ZONE 'UTC');
        CREATE TABLE order_outbox_default PARTITION OF order_outbox DEFAULT
            WITH (autovacuum_vacuum_insert_threshold = -1);
        INSERT INTO outbox_partitions (name, from_day, to_day) VALUES (partition, first_day, last_day + 1);
        made := made + 1;
    END IF;

    FOR day IN SELECT generate_series(today, today + days_ahead, interval '1 day')::date LOOP
        CONTINUE WHEN EXISTS (SELECT FROM outbox_partitions WHERE from_day <= day AND to_day > day);
        -- A clock that jumped can leave days in the default partition that no one range covers: they stay there.
        CONTINUE WHEN EXISTS (
            SELECT FROM order_outbox_default
             WHERE created_at >= day::timestamp AT TIME ZONE 'UTC' AND created_at < (day + 1)::timestamp AT TIME ZONE 'UTC');
        partition := format('order_outbox_p%s', to_char(day, 'YYYYMMDD'));
        -- Made apart and attached, which does not lock the outbox against the orders that come in meanwhile.
        EXECUTE format('CREATE TABLE %I (LIKE order_outbox INCLUDING ALL) WITH (autovacuum_vacuum_insert_threshold = -1)',
            partition);
        EXECUTE format('ALTER TABLE order_outbox ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
            day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        INSERT INTO outbox_partitions (name, from_day, to_day) VALUES (partition, day, day + 1);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the partitions that nobody needs any more: all of their days are more than `keep_days` old, the replication
-- slot confirmed a position after their last row, and every order in them that is still pending has a newer row.
-- Without a slot nothing is dropped. Returns how many were dropped.
CREATE FUNCTION outbox_drop_partitions(today date, keep_days integer) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    confirmed pg_lsn;
    expired   outbox_partitions%ROWTYPE;
    dropped   integer := 0;
BEGIN
    UPDATE outbox_partitions SET closed_lsn = pg_current_wal_insert_lsn()
     WHERE closed_lsn IS NULL AND to_day < today;

    SELECT min(confirmed_flush_lsn) INTO confirmed FROM pg_replication_slots
     WHERE database = current_database() AND slot_type = 'logical' AND NOT temporary;

    FOR expired IN
        SELECT p.* FROM outbox_partitions p CROSS JOIN order_reconciler r
         WHERE p.to_day <= today - keep_days
           AND p.closed_lsn <= confirmed
           AND r.scanned_through >= p.to_day::timestamp AT TIME ZONE 'UTC'
           AND NOT EXISTS (
               SELECT FROM order_stragglers s
                WHERE s.created_at < p.to_day::timestamp AT TIME ZONE 'UTC'
                  AND (s.emitted_at IS NULL OR s.emitted_at < p.to_day::timestamp AT TIME ZONE 'UTC'))
         ORDER BY p.from_day
    LOOP
        EXECUTE format('DROP TABLE %I', expired.name);
        DELETE FROM outbox_partitions WHERE name = expired.name;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- What order-api may call: the two above for the real date, by one replica at a time, never waiting long for a lock
-- that would make orders queue behind it. `keep_days` below 8 is refused.
CREATE FUNCTION outbox_maintain(keep_days integer, days_ahead integer,
    OUT created integer, OUT dropped integer, OUT partitions integer, OUT in_default bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    IF keep_days < 8 OR days_ahead NOT BETWEEN 1 AND 366 THEN
        RAISE EXCEPTION 'keep_days must be at least 8 and days_ahead between 1 and 366'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    created := 0;
    dropped := 0;
    IF pg_try_advisory_xact_lock(hashtextextended('outbox_maintain', 0)) THEN
        created := outbox_create_partitions(today, days_ahead);
        dropped := outbox_drop_partitions(today, keep_days);
    END IF;
    SELECT count(*) INTO partitions FROM outbox_partitions;
    SELECT count(*) INTO in_default FROM order_outbox_default;
END $$;

REVOKE ALL ON FUNCTION outbox_create_partitions(date, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION outbox_drop_partitions(date, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION outbox_maintain(integer, integer) FROM PUBLIC;

SELECT outbox_create_partitions((now() AT TIME ZONE 'UTC')::date, 7);

GRANT SELECT, INSERT ON orders, order_items, order_outbox TO orders;
GRANT UPDATE (status, reason, saga_version, updated_at) ON orders TO orders;
GRANT SELECT, UPDATE (scanned_through) ON order_reconciler TO orders;
GRANT SELECT, INSERT, UPDATE, DELETE ON order_stragglers TO orders;
GRANT EXECUTE ON FUNCTION outbox_maintain(integer, integer) TO orders;
