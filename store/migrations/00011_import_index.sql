-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose NO TRANSACTION
-- +goose Up
-- See 00003 for the lock and for the index that an interrupted try leaves behind.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_import_key;
-- Two imports of the same file at once take each app password once.
CREATE UNIQUE INDEX CONCURRENTLY app_passwords_import_key ON app_passwords (account_id, import_key) WHERE import_key IS NOT NULL;
RESET lock_timeout;
