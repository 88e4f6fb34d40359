-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
-- Of imported app passwords. Columns without a default, rules that are not checked on the rows that are there: no row is read or rewritten.
ALTER TABLE app_passwords
    -- Where it came from: the source and its own name of the thing, "mailcow:17". By this an import that is run again knows what it has
    -- taken over. Nothing in it derives from the hash: a digest of an unsalted hash would outlive its replacement.
    ADD COLUMN import_key text COLLATE "C",
    ADD CONSTRAINT app_passwords_import_key_length CHECK (octet_length(import_key) BETWEEN 1 AND 1024) NOT VALID,
    -- When the foreign hash was replaced by ours, or found to be as good. No time yet: the old hash still stands in phc.
    ADD COLUMN upgraded_at timestamptz,
    ADD CONSTRAINT app_passwords_upgraded_was_imported CHECK (origin = 'imported' OR num_nonnulls(import_key, upgraded_at) = 0) NOT VALID;
