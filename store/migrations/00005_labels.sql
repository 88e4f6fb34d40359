-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).
--
-- Everything here can be run again, because without a transaction a part of it may have been done.

-- +goose NO TRANSACTION
-- +goose Up
-- Columns without a default, rules that are not checked on the rows that are there: no row is read or rewritten.
ALTER TABLE accounts
    -- How many live app passwords it may have. NULL: as many as the configuration says.
    ADD COLUMN IF NOT EXISTS app_password_limit smallint,
    DROP CONSTRAINT IF EXISTS accounts_app_password_limit_range,
    ADD CONSTRAINT accounts_app_password_limit_range CHECK (app_password_limit BETWEEN 1 AND 1000) NOT VALID;
ALTER TABLE app_passwords
    -- Of a new one after a rotation: the row with the old secret, which its first use ends. NULL: none, or ended.
    ADD COLUMN IF NOT EXISTS replaces bigint,
    -- Of the old one: since when there is a new secret. It does not hold the label, and its expires_at bounds the overlap, which
    -- programs that do not know of rotation keep to as well.
    ADD COLUMN IF NOT EXISTS replaced_at timestamptz,
    -- The last use, but changed once a week at most: used_about <= last_used_at < used_about + 7 days. last_used_at itself must
    -- not be in an index, since then no update of it would be HOT: each would write to every index of the table, every five minutes
    -- for every app password in use. NULL: not used since the column came, and created_at takes its place. That is never too late,
    -- so that who looks for unused ones by it finds them all, and some more that the exact time sorts out.
    ADD COLUMN IF NOT EXISTS used_about timestamptz,
    DROP CONSTRAINT IF EXISTS app_passwords_replaced_frees_label,
    ADD CONSTRAINT app_passwords_replaced_frees_label CHECK (replaced_at IS NULL OR NOT holds_label) NOT VALID;

-- Building waits for every transaction that is older, such as a backup's, and keeps nobody out meanwhile: unlike with other migrations
-- there is no reason to give up soon, and each try would begin anew.
SET lock_timeout = 0;
-- An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index behind.
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_idle_idx;
-- The longest unused first.
CREATE INDEX CONCURRENTLY app_passwords_idle_idx ON app_passwords (COALESCE(used_about, created_at), id) WHERE revoked_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_expiry_idx;
CREATE INDEX CONCURRENTLY app_passwords_expiry_idx ON app_passwords (expires_at, id) WHERE expires_at IS NOT NULL AND revoked_at IS NULL;
-- Both are small or empty: few app passwords are exempt, and most installations never import any.
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_exempt_idx;
CREATE INDEX CONCURRENTLY app_passwords_exempt_idx ON app_passwords (id) WHERE exempt_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS app_passwords_imported_idx;
CREATE INDEX CONCURRENTLY app_passwords_imported_idx ON app_passwords (id) WHERE origin = 'imported';
RESET lock_timeout;
