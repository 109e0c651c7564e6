-- Payments: one row an order says what was asked and what came of it; the ledger says where the money is.

CREATE TABLE payments (
    order_id    uuid PRIMARY KEY,
    -- Absent in a tombstone: the undo came before its command.
    payment_id  uuid,
    state       text NOT NULL CHECK (state IN ('PENDING', 'CHARGED', 'DECLINED', 'REFUNDED', 'REFUSED')),
    amount      bigint CHECK (amount > 0),
    currency    text CHECK (currency ~ '^[A-Z]{3}$'),
    reason      text,
    -- When the command's answer was decided; it is the answer's ce_time for ever.
    answered_at timestamptz,
    -- When the undo was applied; it is the undo's answer's ce_time for ever.
    undone_at   timestamptz,
    CONSTRAINT payments_answer CHECK ((state = 'PENDING') = (answered_at IS NULL)),
    CONSTRAINT payments_charge CHECK (
        state NOT IN ('PENDING', 'CHARGED', 'REFUNDED')
        OR (payment_id IS NOT NULL AND amount IS NOT NULL AND currency IS NOT NULL)),
    CONSTRAINT payments_decline CHECK ((state = 'DECLINED') = (reason IS NOT NULL)),
    CONSTRAINT payments_undo CHECK (
        CASE WHEN state IN ('REFUNDED', 'REFUSED') THEN undone_at IS NOT NULL
             WHEN state IN ('PENDING', 'CHARGED') THEN undone_at IS NULL
             ELSE true END)
) WITH (fillfactor = 90);

-- Double entry: a row debits one account and credits another by the same amount, so the ledger sums to zero whatever
-- the code does. The primary key allows one charge and one refund an order; the foreign key, no refund without its
-- charge.
CREATE TABLE ledger_entries (
    order_id       uuid NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('CHARGE', 'REFUND')),
    debit_account  text NOT NULL,
    credit_account text NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    currency       text NOT NULL,
    posted_at      timestamptz NOT NULL DEFAULT now(),
    reverses       text GENERATED ALWAYS AS (CASE kind WHEN 'REFUND' THEN 'CHARGE' END) STORED,
    PRIMARY KEY (order_id, kind),
    CONSTRAINT ledger_entries_reverses FOREIGN KEY (order_id, reverses) REFERENCES ledger_entries (order_id, kind),
    CONSTRAINT ledger_entries_accounts CHECK (
        CASE kind WHEN 'CHARGE' THEN debit_account = 'receivable' AND credit_account = 'revenue'
                  WHEN 'REFUND' THEN debit_account = 'revenue' AND credit_account = 'receivable' END)
);

-- Charges whose answer comes later. A row goes when its answer was published, or when its payment was undone; what is
-- due and still here is published again.
CREATE TABLE slow_charges (
    order_id    uuid PRIMARY KEY REFERENCES payments,
    due_at      timestamptz NOT NULL,
    saga_id     uuid NOT NULL,
    step        text NOT NULL,
    command_id  uuid NOT NULL,
    traceparent text
);
CREATE INDEX slow_charges_due ON slow_charges (due_at);

-- The service may move a payment on, never rewrite what was asked, and only append to the ledger.
GRANT SELECT, INSERT, UPDATE (state, answered_at, undone_at) ON payments TO payment;
GRANT SELECT, INSERT ON ledger_entries TO payment;
GRANT SELECT, INSERT, DELETE ON slow_charges TO payment;
