-- Sagas: their state, their history, their timers, and the definitions they are pinned to.

-- The bodies of all definitions that ever started a saga. Rows are never changed: an edited file is a new row.
CREATE TABLE definition (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- SHA-256 of the body, in hex.
    digest     text        NOT NULL UNIQUE,
    name       text        NOT NULL,
    version    integer     NOT NULL,
    -- Canonical JSON, byte for byte what the digest was taken of.
    body       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One narrow row a saga, updated in place. Every update must stay on its page (HOT), so:
-- no index on a column that changes, and most of each page is kept free. Sagas that start in one batch lie on one page
-- and tend to move in one batch, so at the worst a page holds two versions of all its rows at once: 14 rows of 205
-- bytes when they start, of 255 when they end.
CREATE TABLE saga (
    id            uuid        PRIMARY KEY,
    -- The partition of its messages, the same for every topic.
    partition     integer     NOT NULL,
    definition_id integer     NOT NULL REFERENCES definition,
    version       integer     NOT NULL,
    state         text        NOT NULL CHECK (state IN ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'PARKED')),
    reason        text,
    -- Why it turned back; `reason` of a parked saga tells why it is parked.
    cause         text,
    -- An entry for each step, packed, since every update writes the row anew. `json`, not `jsonb`: it is smaller
    -- and only ever read whole.
    steps         json        NOT NULL,
    started_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
) WITH (fillfactor = 35, autovacuum_vacuum_scale_factor = 0.02);

-- Every transition of every saga, versions 1..n without a gap. Append-only.
CREATE TABLE saga_timeline (
    saga_id    uuid        NOT NULL,
    version    integer     NOT NULL,
    at         timestamptz NOT NULL,
    type       text        NOT NULL,
    -- The saga's state after it.
    state      text        NOT NULL,
    step       text,
    -- The message that caused it; none for a timer or an operator.
    message_id uuid,
    detail     text,
    -- The messages it caused.
    emitted    uuid[]      NOT NULL,
    -- What later commands draw from: the trigger at version 1, a step's output at its success.
    -- `json` keeps the text as it came, so a command made again has the same bytes.
    data       json,
    -- W3C trace context of the trigger, at version 1: what a timer or an operator causes belongs to that trace.
    trace      text,
    PRIMARY KEY (saga_id, version)
);

-- One row for each saga that has not ended, so what is unfinished is found without reading what has.
CREATE TABLE saga_timer (
    saga_id   uuid        PRIMARY KEY,
    partition integer     NOT NULL,
    -- Not after the saga's next deadline; replies leave it alone, so it can be early. None while parked.
    due_at    timestamptz,
    -- A transition without a Kafka message behind it: its messages are not yet known to be published.
    emit      boolean     NOT NULL,
    -- The saga's version when this row was written: whoever settles the row must have seen that version.
    version   integer     NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX saga_timer_partition_due_at ON saga_timer (partition, due_at);

-- What operators did, and what was refused to them. Append-only.
CREATE TABLE saga_audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    saga_id uuid        NOT NULL,
    verb    text        NOT NULL CHECK (verb IN ('retry', 'compensate', 'resolve')),
    actor   text        NOT NULL,
    reason  text,
    -- Of `resolve`: the end that was declared.
    outcome text,
    result  text        NOT NULL CHECK (result IN ('applied', 'refused')),
    -- Why it was refused.
    detail  text,
    -- The saga's version after the act, or the one that refused it.
    version integer     NOT NULL
);
CREATE INDEX saga_audit_saga_id ON saga_audit (saga_id);

-- Makes a statement fail, whole, when it wrote fewer rows than it had to: another writer was faster.
-- 40001 is what callers try again on.
CREATE FUNCTION require_rows(written bigint, expected bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF written IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'wrote % rows of %', written, expected USING ERRCODE = '40001';
    END IF;
    RETURN written;
END
$$;

GRANT USAGE ON SCHEMA public TO orchestrator;
GRANT SELECT, INSERT ON definition, saga, saga_timeline, saga_audit TO orchestrator;
GRANT UPDATE (version, state, reason, cause, steps, updated_at) ON saga TO orchestrator;
GRANT SELECT, INSERT, UPDATE, DELETE ON saga_timer TO orchestrator;
