-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose NO TRANSACTION
-- +goose Up
-- Building waits for every transaction that is older, such as a backup's, and keeps nobody out meanwhile: unlike with other migrations
-- there is no reason to give up soon, and each try would begin anew.
SET lock_timeout = 0;
-- An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index behind.
DROP INDEX CONCURRENTLY IF EXISTS accounts_unkeyed_idx;
-- Accounts whose search keys are still to be made: every search by key adds them to what it finds, so that none is missed. Full
-- only after an upgrade; then empty, and looking into it costs next to nothing.
CREATE INDEX CONCURRENTLY accounts_unkeyed_idx ON accounts (login) WHERE keyed < 1;
DROP INDEX CONCURRENTLY IF EXISTS accounts_reader_idx;
-- Readers are few among many people, who are listed by accounts_login_key.
CREATE INDEX CONCURRENTLY accounts_reader_idx ON accounts (login) WHERE kind = 'reader';
RESET lock_timeout;
