-- What was sent and is not confirmed in time, counters instead of counting, and what retention needs. No release has had
-- the tables before, so that they are small enough for all of it at once.
SET lock_timeout = '10s';

-- An attempt to send may have succeeded without anybody knowing: a claim ran out, or the broker did not acknowledge.
-- Such a letter never becomes NEW again.
ALTER TABLE letter ADD COLUMN may_be_sent boolean NOT NULL DEFAULT false;
-- UNCONFIRMED: it is sent, or may be, and nobody could say in time what became of it. It is still followed; an operator
-- can send the same once more, or discard it.
ALTER TABLE letter
    DROP CONSTRAINT letter_state_check,
    ADD CONSTRAINT letter_state_check
        CHECK (state IN ('NEW', 'REPLAYING', 'SENT', 'UNCONFIRMED', 'REPROCESSED', 'FAILED_AGAIN', 'DISCARDED')),
    DROP CONSTRAINT letter_replay,
    ADD CONSTRAINT letter_replay CHECK (
        state NOT IN ('REPLAYING', 'SENT', 'UNCONFIRMED', 'REPROCESSED', 'FAILED_AGAIN') OR replay_id IS NOT NULL);
ALTER TABLE letter_history
    DROP CONSTRAINT letter_history_event_check,
    ADD CONSTRAINT letter_history_event_check CHECK (event IN
        ('EDITED', 'REPLAYING', 'SENT', 'NOT_SENT', 'UNCONFIRMED', 'REPROCESSED', 'FAILED_AGAIN', 'DISCARDED'));

-- A letter changes its state a few times in its life, when somebody acts on it: these indexes are on no hot path.
DROP INDEX letter_under_way;
CREATE INDEX letter_state ON letter (state, seq);
CREATE INDEX letter_sent_to ON letter (group_name, topic, sent_partition, sent_offset)
    WHERE state IN ('SENT', 'UNCONFIRMED');
CREATE INDEX letter_ended ON letter (state_at) WHERE state IN ('REPROCESSED', 'FAILED_AGAIN', 'DISCARDED');
CREATE INDEX campaign_ended ON campaign (ended_at);

-- Letters with the same trouble: one row a fingerprint, and one for each state that its letters are in. Kept by triggers,
-- so that no statement can forget it and nobody has to count letters.
CREATE TABLE letter_group (
    fingerprint text        PRIMARY KEY,
    topic       text        NOT NULL,
    group_name  text        NOT NULL,
    reason      text        NOT NULL,
    -- Of the newest letter: the start of its error, and which it is.
    error       text        NOT NULL,
    example     uuid        NOT NULL,
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    indexed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE letter_count (
    fingerprint text   NOT NULL,
    state       text   NOT NULL,
    count       bigint NOT NULL,
    PRIMARY KEY (fingerprint, state)
) WITH (fillfactor = 50);

-- Every writer locks rows in one order, so that none waits for another in a circle: groups, then the counts of NEW, which
-- every way of a letter begins at, then all others. One statement can fire two triggers, first that of what it inserted.
CREATE FUNCTION count_letters() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO letter_group AS g
            (fingerprint, topic, group_name, reason, error, example, first_seen, last_seen)
        SELECT DISTINCT ON (fingerprint) fingerprint, topic, group_name, reason, left(error, 500), id,
            min(coalesce(first_failed_at, dlq_at, indexed_at)) OVER same,
            max(coalesce(first_failed_at, dlq_at, indexed_at)) OVER same
        FROM fresh WINDOW same AS (PARTITION BY fingerprint)
        ORDER BY fingerprint, seq DESC
        ON CONFLICT (fingerprint) DO UPDATE SET error = excluded.error, example = excluded.example,
            first_seen = least(g.first_seen, excluded.first_seen), last_seen = greatest(g.last_seen, excluded.last_seen),
            indexed_at = now();
        INSERT INTO letter_count AS c (fingerprint, state, count)
        SELECT fingerprint, state, count(*) FROM fresh GROUP BY 1, 2 ORDER BY state <> 'NEW', state, fingerprint
        ON CONFLICT (fingerprint, state) DO UPDATE SET count = c.count + excluded.count;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO letter_count AS c (fingerprint, state, count)
        SELECT fingerprint, state, sum(n) FROM (
            SELECT fingerprint, state, 1 AS n FROM fresh UNION ALL SELECT fingerprint, state, -1 FROM gone) d
        GROUP BY 1, 2 HAVING sum(n) <> 0 ORDER BY state <> 'NEW', state, fingerprint
        ON CONFLICT (fingerprint, state) DO UPDATE SET count = c.count + excluded.count;
    ELSE
        INSERT INTO letter_count AS c (fingerprint, state, count)
        SELECT fingerprint, state, -count(*) FROM gone GROUP BY 1, 2 ORDER BY state <> 'NEW', state, fingerprint
        ON CONFLICT (fingerprint, state) DO UPDATE SET count = c.count + excluded.count;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER letters_come AFTER INSERT ON letter REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION count_letters();
CREATE TRIGGER letters_change AFTER UPDATE ON letter REFERENCING NEW TABLE AS fresh OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_letters();
CREATE TRIGGER letters_go AFTER DELETE ON letter REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_letters();

INSERT INTO letter_group (fingerprint, topic, group_name, reason, error, example, first_seen, last_seen)
SELECT DISTINCT ON (fingerprint) fingerprint, topic, group_name, reason, left(error, 500), id,
    min(coalesce(first_failed_at, dlq_at, indexed_at)) OVER same, max(coalesce(first_failed_at, dlq_at, indexed_at)) OVER same
FROM letter WINDOW same AS (PARTITION BY fingerprint)
ORDER BY fingerprint, seq DESC;
INSERT INTO letter_count (fingerprint, state, count) SELECT fingerprint, state, count(*) FROM letter GROUP BY 1, 2;

GRANT UPDATE (may_be_sent) ON letter TO dlq_admin;
-- Only the triggers, which run as their owner, write these; retention removes what has no letter left.
GRANT SELECT, DELETE ON letter_group, letter_count TO dlq_admin;
GRANT DELETE ON letter, letter_edit, letter_history, campaign, campaign_item TO dlq_admin;
