-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose NO TRANSACTION
-- +goose Up
-- See 00003 for the lock and for the index that an interrupted try leaves behind.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS notices_waiting_idx;
-- What waits, the oldest first: which is given up, and what the status tells. Without it both read all that is done or waits, half a
-- second with a million.
CREATE INDEX CONCURRENTLY notices_waiting_idx ON notices (created_at) WHERE done_at IS NULL;
RESET lock_timeout;
