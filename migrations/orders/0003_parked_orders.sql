-- The reconciler now publishes parked orders again too, so order_stragglers holds every order that has not ended and
-- outbox_drop_partitions keeps the only outbox row of each: it drops no day that was not looked at, and none that a
-- straggler without a newer row comes from.
--
-- Orders that were parked before this were looked at and forgotten. The reconciler looks once more, in its own small
-- steps, at all days whose rows are still there; until it is through, no partition is dropped. A database without orders
-- has nothing to look at.
UPDATE order_reconciler
   SET scanned_through = LEAST(scanned_through, (SELECT min(from_day) FROM outbox_partitions)::timestamp AT TIME ZONE 'UTC')
 WHERE EXISTS (SELECT FROM orders);
