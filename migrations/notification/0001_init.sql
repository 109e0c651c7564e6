-- Notifications: what customers were told, at most once an order and kind.

CREATE TABLE notifications (
    order_id    uuid NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('COMPLETED', 'CANCELLED')),
    customer_id text NOT NULL,
    message     text NOT NULL,
    sent_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, kind)
);

-- What was said stays said.
GRANT SELECT, INSERT ON notifications TO notification;
