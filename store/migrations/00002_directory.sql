-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
-- Every column is added with a constant default, which rewrites nothing: the lock on accounts is held for milliseconds, whatever
-- their number. The index on accounts is in a migration of its own for the same reason.
ALTER TABLE accounts
    -- 'person' or 'reader'. The rule is not checked on the rows that are there, since all of them have the default.
    ADD COLUMN kind text NOT NULL DEFAULT 'person',
    ADD CONSTRAINT accounts_kind_known CHECK (kind IN ('person', 'reader')) NOT VALID,
    -- Which folding search_keys has of this account. 0: none yet, as in every row that an older program adds.
    ADD COLUMN keyed smallint NOT NULL DEFAULT 0;

ALTER TABLE groups
    ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}' CONSTRAINT groups_attributes_form
        CHECK (jsonb_typeof(attributes) = 'object' AND octet_length(attributes::text) <= 65536),
    ADD COLUMN modified_at timestamptz NOT NULL DEFAULT now();

-- The attributes of people, folded as a directory client compares them. The folding is Unicode's, of the one version that the
-- program has, so Go makes the keys: what Postgres folds depends on its version and on the database's locale.
--
-- The login stands here, not the id, because searches want the first accounts by login: the primary key hands them out in order,
-- also for a value that a million accounts share, where ids would have to be looked up and sorted first. The other index is for
-- changing and deleting an account. No index on accounts.attributes (GIN) could do either, nor fold.
CREATE TABLE search_keys (
    key   text COLLATE "C" NOT NULL CONSTRAINT search_keys_key_length CHECK (octet_length(key) BETWEEN 1 AND 512),
    login text COLLATE "C" NOT NULL CONSTRAINT search_keys_login_fkey REFERENCES accounts (login) ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (key, login)
);
CREATE INDEX search_keys_login_idx ON search_keys (login);
