-- Stock: one row a unit, moved between three heaps; reservations say which order holds what.

-- The last CHECK is the conservation of stock itself: no statement can lose or invent a piece.
CREATE TABLE stock (
    sku       text PRIMARY KEY CHECK (char_length(sku) BETWEEN 1 AND 64),
    initial   bigint NOT NULL DEFAULT 0 CHECK (initial >= 0),
    -- Sum of the unit's adjustments.
    adjusted  bigint NOT NULL DEFAULT 0,
    available bigint NOT NULL CHECK (available >= 0),
    reserved  bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    shipped   bigint NOT NULL DEFAULT 0 CHECK (shipped >= 0),
    CONSTRAINT stock_is_conserved CHECK (available + reserved + shipped = initial + adjusted)
) WITH (fillfactor = 20); -- hot rows: room on the page for their next versions

CREATE TABLE adjustments (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku   text NOT NULL REFERENCES stock,
    delta bigint NOT NULL,
    at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reservations (
    order_id       uuid PRIMARY KEY,
    reservation_id uuid NOT NULL,
    state          text NOT NULL CHECK (state IN ('RESERVED', 'REJECTED', 'RELEASED', 'SHIPPED', 'REFUSED')),
    -- [{"sku", "quantity"}], a unit once, sorted. Empty in a tombstone: the undo came before its command.
    items          jsonb NOT NULL CHECK (jsonb_typeof(items) = 'array'),
    reason         text,
    -- When the command's answer was decided; it is the answer's ce_time for ever.
    answered_at    timestamptz NOT NULL,
    -- When the undo was applied; it is the undo's answer's ce_time for ever.
    undone_at      timestamptz,
    shipped_at     timestamptz,
    CONSTRAINT reservations_rejection CHECK ((state = 'REJECTED') = (reason IS NOT NULL)),
    CONSTRAINT reservations_undo CHECK (
        CASE WHEN state IN ('RELEASED', 'REFUSED') THEN undone_at IS NOT NULL
             WHEN state = 'RESERVED' THEN undone_at IS NULL
             ELSE true END),
    CONSTRAINT reservations_shipment CHECK ((state = 'SHIPPED') = (shipped_at IS NOT NULL))
) WITH (fillfactor = 50); -- every completed order updates its row once, in place

-- The service may move pieces and reservations on, never rewrite what was asked, where stock began, or an adjustment.
GRANT SELECT, INSERT (sku, adjusted, available), UPDATE (adjusted, available, reserved, shipped) ON stock TO inventory;
GRANT SELECT, INSERT ON adjustments TO inventory;
GRANT SELECT, INSERT, UPDATE (state, undone_at, shipped_at) ON reservations TO inventory;

INSERT INTO stock (sku, initial, available)
SELECT 'SKU-' || lpad(n::text, 3, '0'), 1000000, 1000000 FROM generate_series(1, 100) AS n;
