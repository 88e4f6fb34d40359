-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose NO TRANSACTION
-- +goose Up
-- Building waits for every transaction that is older, such as a backup's, and keeps nobody out meanwhile: unlike with other migrations
-- there is no reason to give up soon, and each try would begin anew.
SET lock_timeout = 0;
-- An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index behind.
DROP INDEX CONCURRENTLY IF EXISTS events_login_idx;
-- For the log of an account that is gone, of which only the login is known.
CREATE INDEX CONCURRENTLY events_login_idx ON events (login, id);
DROP INDEX CONCURRENTLY IF EXISTS events_kind_idx;
-- For rare kinds among many rejections.
CREATE INDEX CONCURRENTLY events_kind_idx ON events (kind, id);
RESET lock_timeout;
