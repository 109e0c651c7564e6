-- The roles of the whole cluster, one for each service and one for Debezium. Run before the migrations; may be run
-- again, and by several at once. Passwords are not set here: locally loopback is trusted, elsewhere whoever runs the
-- cluster sets them.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['orders', 'orchestrator', 'payment', 'inventory', 'shipping', 'notification', 'dlq_admin',
        'debezium']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another run was faster
            END;
        END IF;
    END LOOP;
    -- Only Debezium reads the write-ahead log.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'debezium' AND rolreplication) THEN
        ALTER ROLE debezium REPLICATION;
    END IF;
END $$;
