/// What decides whether letters may be sent, as they would be sent. Of a key, as much as an id can have.
pub const CHECK: &str = "
SELECT l.id, l.topic, l.dlq_topic, l.source_format, l.state, l.truncated, l.replay_key,
    coalesce(e.headers, l.headers)::text AS headers,
    substr(CASE WHEN e.number IS NULL THEN l.key ELSE e.key END, 1, 64) AS key
FROM letter l LEFT JOIN letter_edit e ON e.letter_id = l.id AND e.number = l.edit_number
WHERE l.id = ANY($1)";

/// Claims letters for an operator ($2, with the request's key $3), or for the campaign $4 while the replica $5 runs it.
/// The id of a replay follows from letter and number, in the form of a UUIDv8. An operator can claim an UNCONFIRMED one
/// too: it keeps its number, so the same message goes out with the same id.
pub const CLAIM: &str = "
WITH claimed AS (
    UPDATE letter SET state = 'REPLAYING', state_at = now(), replay_number = replay_number + (state = 'NEW')::integer,
        replay_id = overlay(overlay(md5(id::text || ':' || (replay_number + (state = 'NEW')::integer))
            PLACING '8' FROM 13) PLACING 'a' FROM 17)::uuid,
        replay_key = $3, sent_edit = edit_number, claimed_at = now(), may_be_sent = state <> 'NEW'
    WHERE id = ANY($1) AND (state = 'NEW' OR state = 'UNCONFIRMED' AND $4::uuid IS NULL) AND NOT truncated
      AND ($4::uuid IS NULL OR EXISTS (
        SELECT FROM campaign c WHERE c.id = $4 AND c.state = 'RUNNING' AND c.lease_owner = $5))
    RETURNING id, seq, replay_id, edit_number
), told AS (
    INSERT INTO letter_history (letter_id, event, actor, replay_id, detail)
    SELECT id, 'REPLAYING', $2, replay_id, 'by campaign ' || $4::uuid FROM claimed
), items AS (
    UPDATE campaign_item SET state = 'SENT' WHERE campaign_id = $4 AND letter_id IN (SELECT id FROM claimed)
), audited AS (
    INSERT INTO audit (actor, act, letter_id, arguments, result)
    SELECT $2, 'replay', id, json_build_object('replayId', replay_id, 'edit', edit_number, 'idempotencyKey', $3), 'done'
    FROM claimed WHERE $4::uuid IS NULL
)
SELECT id FROM claimed ORDER BY seq";

/// The messages of claimed letters, edited or not, as the claim says.
pub const LOAD_CLAIMED: &str = "
SELECT l.id, l.replay_id, l.topic, CASE WHEN e.number IS NULL THEN l.key ELSE e.key END,
    CASE WHEN e.number IS NULL THEN l.payload ELSE e.payload END, coalesce(e.headers, l.headers)::text
FROM letter l LEFT JOIN letter_edit e ON e.letter_id = l.id AND e.number = l.sent_edit
WHERE l.id = ANY($1) AND l.state = 'REPLAYING'
ORDER BY l.seq";

/// The broker has them. One that was shown as UNCONFIRMED meanwhile has its place now.
pub const MARK_SENT: &str = "
WITH sent AS (
    UPDATE letter l SET state = 'SENT', state_at = now(), sent_partition = t.partition, sent_offset = t.\"offset\"
    FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[]) AS t (id, replay_id, partition, \"offset\")
    WHERE l.id = t.id AND l.replay_id = t.replay_id AND l.state IN ('REPLAYING', 'UNCONFIRMED')
    RETURNING l.id, l.replay_id, l.sent_partition, l.sent_offset
)
INSERT INTO letter_history (letter_id, event, replay_id, detail)
SELECT id, 'SENT', replay_id, 'partition ' || sent_partition || ', offset ' || sent_offset FROM sent";

/// The message will never be taken: it is as before, and a running campaign counts it as refused. If an attempt before this
/// one may have succeeded it is not: the letter is UNCONFIRMED then, and keeps its replay's id.
pub const UNCLAIM: &str = "
WITH back AS (
    UPDATE letter SET state = CASE WHEN may_be_sent THEN 'UNCONFIRMED' ELSE 'NEW' END, state_at = now(),
        replay_id = CASE WHEN may_be_sent THEN replay_id END, replay_key = NULL, claimed_at = NULL
    WHERE id = $1 AND replay_id = $2 AND state = 'REPLAYING'
    RETURNING id, state
), items AS (
    UPDATE campaign_item SET state = 'REFUSED', reason = 'not-sendable'
    WHERE state = 'SENT' AND letter_id IN (SELECT id FROM back WHERE state = 'NEW')
      AND campaign_id IN (SELECT id FROM campaign WHERE state IN ('RUNNING', 'PAUSED'))
)
INSERT INTO letter_history (letter_id, event, replay_id, detail) SELECT id, 'NOT_SENT', $2, $3 FROM back";

/// Why a letter was not sent the last time.
pub const NOT_SENT: &str =
    "SELECT detail FROM letter_history WHERE letter_id = $1 AND event = 'NOT_SENT' ORDER BY id DESC LIMIT 1";

/// Claims whose holder did not send in time; it may have died, before or after it sent.
pub const TAKE_OVER: &str = "
UPDATE letter SET claimed_at = now(), may_be_sent = true WHERE id IN (
    SELECT id FROM letter WHERE state = 'REPLAYING' AND claimed_at < now() - $1 * interval '1 millisecond'
    ORDER BY claimed_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id";

/// What was sent, or may have been, and is not confirmed in time.
pub const EXPIRE: &str = "
WITH late AS (
    UPDATE letter SET state = 'UNCONFIRMED', state_at = now() WHERE id IN (
        SELECT id FROM letter WHERE state IN ('REPLAYING', 'SENT') AND (state = 'SENT' OR may_be_sent)
          AND state_at < now() - $1 * interval '1 millisecond'
        ORDER BY state_at LIMIT 500 FOR UPDATE SKIP LOCKED)
    RETURNING id, replay_id
)
INSERT INTO letter_history (letter_id, event, replay_id) SELECT id, 'UNCONFIRMED', replay_id FROM late";
