-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).
--
-- Everything here can be run again, because without a transaction a part of it may have been done.

-- +goose NO TRANSACTION
-- +goose Up
-- Why the last try failed. A column without a default, a rule that is not checked on the rows that are there: no row is read or rewritten.
ALTER TABLE notices
    ADD COLUMN IF NOT EXISTS problem text,
    DROP CONSTRAINT IF EXISTS notices_problem_length,
    ADD CONSTRAINT notices_problem_length CHECK (octet_length(problem) BETWEEN 1 AND 512) NOT VALID;

-- See 00003 for the lock and for the index that an interrupted try leaves behind.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS notices_waiting_idx;
-- What waits, the oldest first: which is given up, and what the status tells. Without it both read all that is done or waits, half a
-- second with a million.
CREATE INDEX CONCURRENTLY notices_waiting_idx ON notices (created_at) WHERE done_at IS NULL;
RESET lock_timeout;
