-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
-- An app password of a device without a person, such as a printer, which no second factor can stand behind. All three are there or
-- none. Columns without a default, rules that are not checked on the rows that are there: no row is read or rewritten.
ALTER TABLE app_passwords
    ADD COLUMN exempt_at  timestamptz,
    ADD COLUMN exempt_by  text,
    ADD COLUMN exempt_why text,
    ADD CONSTRAINT app_passwords_exempt_by_length CHECK (octet_length(exempt_by) <= 512) NOT VALID,
    ADD CONSTRAINT app_passwords_exempt_why_length CHECK (octet_length(exempt_why) BETWEEN 1 AND 1024) NOT VALID,
    ADD CONSTRAINT app_passwords_exempt_whole CHECK (num_nulls(exempt_at, exempt_by, exempt_why) IN (0, 3)) NOT VALID;
