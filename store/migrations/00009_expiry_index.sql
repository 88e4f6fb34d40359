-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose NO TRANSACTION
-- +goose Up
-- Building waits for every transaction that is older, such as a backup's, and keeps nobody out meanwhile: unlike with other migrations
-- there is no reason to give up soon, and each try would begin anew.
SET lock_timeout = 0;
-- An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index behind.
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_untold_expiry_idx;
-- Those whose end nobody was told of yet, by their end: the look for ends that are near reads no more than it finds.
CREATE INDEX CONCURRENTLY app_passwords_untold_expiry_idx ON app_passwords (expires_at)
    WHERE revoked_at IS NULL AND expires_at IS NOT NULL AND expiry_told_for IS DISTINCT FROM expires_at;
RESET lock_timeout;
