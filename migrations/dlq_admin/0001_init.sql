-- Dead letters: an index of every `*.dlq` topic, what operators did to the letters, and campaigns that send many back.

-- One row a letter. What it says and how it came never changes; the rest is where it is on its way.
CREATE TABLE letter (
    -- UUIDv5 of group, original topic, partition, offset and time: the same letter produced twice by a crash is one row.
    id              uuid        PRIMARY KEY,
    -- The order in which letters were found.
    seq             bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    -- Where the message was that could not be processed; without the deployment's prefix.
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    -- When the broker got that message.
    origin_at       timestamptz,
    -- Who could not process it; empty when the letter does not say.
    group_name      text        NOT NULL,
    source_format   text        NOT NULL CHECK (source_format IN ('symphony', 'spring', 'connect', 'raw')),
    -- Where the letter itself lies.
    dlq_topic       text        NOT NULL,
    dlq_partition   integer     NOT NULL,
    dlq_offset      bigint      NOT NULL,
    dlq_at          timestamptz,
    -- The original bytes.
    key             bytea,
    payload         bytea,
    -- [{"name", "text" | "base64"}], in their order, those of the letter too.
    headers         json        NOT NULL,
    -- The start of the key as text without NUL, to search by.
    key_text        text,
    reason          text        NOT NULL,
    error           text        NOT NULL,
    attempts        integer,
    first_failed_at timestamptz,
    -- Hash of topic, group, reason and the error without its numbers and ids.
    fingerprint     text        NOT NULL,
    -- The letter has only the start of its message: it can't be sent back.
    truncated       boolean     NOT NULL,
    saga_id         uuid,
    -- The replay that this letter is the end of, and the letter that was replayed.
    came_as         uuid,
    replay_of       uuid,
    indexed_at      timestamptz NOT NULL DEFAULT now(),

    state           text        NOT NULL DEFAULT 'NEW'
        CHECK (state IN ('NEW', 'REPLAYING', 'SENT', 'REPROCESSED', 'FAILED_AGAIN', 'DISCARDED')),
    state_at        timestamptz NOT NULL DEFAULT now(),
    -- The latest edit; 0: there is none.
    edit_number     integer     NOT NULL DEFAULT 0,
    -- How often it was claimed to be sent back, and the last time's id, which is the header `dlq-replay-id`.
    replay_number   integer     NOT NULL DEFAULT 0,
    replay_id       uuid        UNIQUE,
    -- Idempotency-Key of the request that claimed it.
    replay_key      text,
    -- The edit that the last replay sends.
    sent_edit       integer,
    -- Whoever claimed it has until some time after this to send it; then anybody may.
    claimed_at      timestamptz,
    -- Where the broker put it.
    sent_partition  integer,
    sent_offset     bigint,
    -- The letter in which its replay ended.
    failed_as       uuid,
    CONSTRAINT letter_replay CHECK (state NOT IN ('REPLAYING', 'SENT', 'REPROCESSED', 'FAILED_AGAIN') OR replay_id IS NOT NULL),
    CONSTRAINT letter_sent CHECK (state NOT IN ('SENT', 'REPROCESSED') OR sent_offset IS NOT NULL),
    CONSTRAINT letter_failed CHECK ((state = 'FAILED_AGAIN') = (failed_as IS NOT NULL))
);
CREATE INDEX letter_topic ON letter (topic, seq);
CREATE INDEX letter_key ON letter (key_text, seq);
CREATE INDEX letter_fingerprint ON letter (fingerprint, seq);
-- What is on its way: looked at several times a second while there is something.
CREATE INDEX letter_under_way ON letter (state, group_name, topic) WHERE state IN ('REPLAYING', 'SENT');

-- Edited messages, whole. The original stays in `letter`. Append-only.
CREATE TABLE letter_edit (
    letter_id uuid        NOT NULL REFERENCES letter,
    number    integer     NOT NULL,
    key       bytea,
    payload   bytea,
    headers   json        NOT NULL,
    actor     text        NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (letter_id, number)
);

-- What became of a letter, one row a step. Append-only.
CREATE TABLE letter_history (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_id uuid        NOT NULL REFERENCES letter,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    event     text        NOT NULL
        CHECK (event IN ('EDITED', 'REPLAYING', 'SENT', 'NOT_SENT', 'REPROCESSED', 'FAILED_AGAIN', 'DISCARDED')),
    actor     text,
    replay_id uuid,
    detail    text
);
CREATE INDEX letter_history_letter ON letter_history (letter_id, id);

-- A campaign sends the letters that matched its filter when it was started, in waves.
CREATE TABLE campaign (
    id                uuid             PRIMARY KEY,
    state             text             NOT NULL
        CHECK (state IN ('RUNNING', 'PAUSED', 'STOPPED', 'CANCELLED', 'COMPLETED')),
    -- Why it stopped.
    reason            text,
    filter            json             NOT NULL,
    -- Messages a second, at most.
    rate              integer          NOT NULL CHECK (rate > 0),
    -- It stops when a larger share of what it sent failed again.
    max_failure_share double precision NOT NULL CHECK (max_failure_share BETWEEN 0 AND 1),
    -- The wave that is under way; 0: none has begun.
    wave              integer          NOT NULL DEFAULT 0,
    actor             text             NOT NULL,
    created_at        timestamptz      NOT NULL DEFAULT now(),
    ended_at          timestamptz,
    -- The replica that runs it, for so long.
    lease_owner       uuid,
    lease_until       timestamptz      NOT NULL DEFAULT now()
);
CREATE INDEX campaign_created ON campaign (created_at, id);
CREATE INDEX campaign_running ON campaign (lease_until) WHERE state = 'RUNNING';

CREATE TABLE campaign_item (
    campaign_id uuid    NOT NULL REFERENCES campaign,
    position    integer NOT NULL,
    letter_id   uuid    NOT NULL REFERENCES letter,
    -- The wave it belongs to, once that has begun.
    wave        integer,
    -- SENT: claimed by this campaign; where it is from then on is the letter's state.
    state       text    NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'SENT', 'REFUSED', 'SKIPPED')),
    reason      text,
    PRIMARY KEY (campaign_id, position),
    UNIQUE (campaign_id, letter_id)
);
CREATE INDEX campaign_item_waiting ON campaign_item (campaign_id, position) WHERE state = 'WAITING';
CREATE INDEX campaign_item_letter ON campaign_item (letter_id);

-- What operators asked for, and what came of it. Append-only.
CREATE TABLE audit (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text        NOT NULL,
    act         text        NOT NULL,
    letter_id   uuid,
    campaign_id uuid,
    arguments   json        NOT NULL,
    result      text        NOT NULL CHECK (result IN ('done', 'refused', 'failed')),
    detail      text
);

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
-- For everybody, the owner too: without them even a superuser has to change the table's definition first.
CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_stays BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT USAGE ON SCHEMA public TO dlq_admin;
GRANT SELECT, INSERT ON letter, letter_edit, letter_history, campaign, campaign_item, audit TO dlq_admin;
GRANT UPDATE (state, state_at, edit_number, replay_number, replay_id, replay_key, sent_edit, claimed_at, sent_partition,
    sent_offset, failed_as) ON letter TO dlq_admin;
GRANT UPDATE (state, reason, wave, ended_at, lease_owner, lease_until) ON campaign TO dlq_admin;
GRANT UPDATE (wave, state, reason) ON campaign_item TO dlq_admin;
