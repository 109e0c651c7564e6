//! How the statements reach their rows, whenever they were planned.

use service_kit::db;
use testkit::{Env, assert_plans_by_key};

const FILL: &str = "
    INSERT INTO letter (id, topic, partition, \"offset\", group_name, source_format, dlq_topic, dlq_partition, dlq_offset,
        headers, reason, error, fingerprint, truncated, state, replay_id, sent_partition, sent_offset)
    SELECT gen_random_uuid(), 't' || n % 20, 0, n, 'g', 'symphony', 't.dlq', 0, n, '[]', 'r', 'e', 'f' || n % 500, false,
        CASE WHEN n % 100 = 0 THEN 'NEW' ELSE 'REPROCESSED' END, gen_random_uuid(), 0, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO letter_edit (letter_id, number, headers, actor) SELECT id, 1, '[]', 'ada' FROM letter LIMIT 10000;
    INSERT INTO letter_history (letter_id, event) SELECT id, 'SENT' FROM letter;
    INSERT INTO campaign (id, state, filter, rate, max_failure_share, actor, ended_at)
    SELECT gen_random_uuid(), CASE WHEN n % 50 = 0 THEN 'RUNNING' ELSE 'COMPLETED' END, '{}', 1, 0, 'ada', now()
    FROM generate_series(1, 5000) AS n;
    INSERT INTO campaign_item (campaign_id, position, letter_id, state)
    SELECT c.id, 1, l.id, 'SENT' FROM (SELECT id, row_number() OVER () AS n FROM campaign) c
    JOIN (SELECT id, row_number() OVER () AS n FROM letter) l USING (n);
    INSERT INTO audit (actor, act, arguments, result) SELECT 'ada', 'edit', '{}', 'done' FROM generate_series(1, 20000);";

#[tokio::test]
async fn every_statement_reaches_its_rows_by_key_in_empty_and_in_grown_tables() {
    // Groups of errors and their counts are few, however many letters there are.
    const WHOLE: &[&str] = &["COUNT", "LIST_GROUPS", "FORGET_GROUPS"];
    const GROWING: &[&str] = &["letter", "letter_edit", "letter_history", "campaign", "campaign_item", "audit"];
    let env = Env::bare("dlq-admin");
    env.create_database("dlq_admin").await;
    let pool = env.role_pool("dlq_admin");
    db::plan_by_key(&pool);
    assert_plans_by_key(&pool, dlq_admin::STATEMENTS, WHOLE, GROWING, (&env.pool("dlq_admin"), FILL)).await;
}
