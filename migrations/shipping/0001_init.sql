-- Shipments: one row an order says what was asked and what came of it.

CREATE TABLE shipments (
    order_id      uuid PRIMARY KEY,
    state         text NOT NULL CHECK (state IN ('SCHEDULED', 'FAILED', 'CANCELLED', 'REFUSED')),
    -- Absent when nothing was booked.
    shipment_id   uuid,
    carrier       text,
    tracking_code text,
    -- {"name", "street", "city", "postalCode", "country"}; absent, like the items, in a tombstone: the undo came first.
    destination   jsonb,
    -- [{"sku", "quantity"}]
    items         jsonb,
    reason        text,
    -- When the command's answer was decided; it is the answer's ce_time for ever.
    answered_at   timestamptz NOT NULL,
    -- When the undo was applied; it is the undo's answer's ce_time for ever.
    undone_at     timestamptz,
    CONSTRAINT shipments_booking CHECK (
        (state IN ('SCHEDULED', 'CANCELLED')) = (shipment_id IS NOT NULL)
        AND (shipment_id IS NULL) = (tracking_code IS NULL)
        AND (shipment_id IS NULL) = (carrier IS NULL)),
    CONSTRAINT shipments_destination CHECK (
        (state = 'REFUSED') = (destination IS NULL) AND (destination IS NULL) = (items IS NULL)),
    CONSTRAINT shipments_failure CHECK ((state = 'FAILED') = (reason IS NOT NULL)),
    CONSTRAINT shipments_undo CHECK (
        CASE WHEN state IN ('CANCELLED', 'REFUSED') THEN undone_at IS NOT NULL
             WHEN state = 'SCHEDULED' THEN undone_at IS NULL
             ELSE true END)
) WITH (fillfactor = 90);

-- The service may move a shipment on, never rewrite what was asked or booked.
GRANT SELECT, INSERT, UPDATE (state, undone_at) ON shipments TO shipping;
