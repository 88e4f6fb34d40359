-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
CREATE TABLE accounts (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid         uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT accounts_uuid_key UNIQUE,
    login        text COLLATE "C" NOT NULL CONSTRAINT accounts_login_key UNIQUE
                 CONSTRAINT accounts_login_length CHECK (octet_length(login) BETWEEN 1 AND 512),
    display_name text NOT NULL DEFAULT '' CONSTRAINT accounts_display_name_length CHECK (octet_length(display_name) <= 1024),
    enabled      boolean NOT NULL DEFAULT true,
    attributes   jsonb NOT NULL DEFAULT '{}'
                 CONSTRAINT accounts_attributes_form CHECK (jsonb_typeof(attributes) = 'object' AND octet_length(attributes::text) <= 65536),
    userdb       jsonb NOT NULL DEFAULT '{}'
                 CONSTRAINT accounts_userdb_form CHECK (jsonb_typeof(userdb) = 'object' AND octet_length(userdb::text) <= 65536),
    created_at   timestamptz NOT NULL DEFAULT now(),
    modified_at  timestamptz NOT NULL DEFAULT now()
);

-- Every name that means an account, the canonical one included, so that a login is one probe of one index.
CREATE TABLE logins (
    login      text COLLATE "C" CONSTRAINT logins_pkey PRIMARY KEY
               CONSTRAINT logins_login_length CHECK (octet_length(login) BETWEEN 1 AND 512),
    account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE
);
CREATE INDEX logins_account_id_idx ON logins (account_id);

CREATE TABLE groups (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid         uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT groups_uuid_key UNIQUE,
    name         text COLLATE "C" NOT NULL CONSTRAINT groups_name_key UNIQUE
                 CONSTRAINT groups_name_length CHECK (octet_length(name) BETWEEN 1 AND 512),
    display_name text NOT NULL DEFAULT '' CONSTRAINT groups_display_name_length CHECK (octet_length(display_name) <= 1024),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE group_members (
    group_id   bigint NOT NULL REFERENCES groups ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
    PRIMARY KEY (group_id, account_id)
);
CREATE INDEX group_members_account_id_idx ON group_members (account_id);

-- Ids only: the peppers themselves never enter the database. The foreign key of app_passwords makes sure that this small
-- table names every pepper in use, which is how the lookup knows that no row is keyed by one that the daemon lacks.
CREATE TABLE peppers (
    id         integer PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app_passwords (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id          bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
    label               text NOT NULL CONSTRAINT app_passwords_label_length CHECK (octet_length(label) BETWEEN 1 AND 512),
    label_key           text COLLATE "C" NOT NULL
                        CONSTRAINT app_passwords_label_key_length CHECK (octet_length(label_key) BETWEEN 1 AND 1024),
    -- Cleared on revocation, and when somebody wants the label of an expired one.
    holds_label         boolean NOT NULL DEFAULT true,
    services            text[] NOT NULL DEFAULT '{}' CONSTRAINT app_passwords_services_form
                        CHECK (cardinality(services) <= 32 AND array_position(services, NULL) IS NULL
                               AND octet_length(array_to_string(services, ' ')) <= 32 * 65),
    networks            cidr[] NOT NULL DEFAULT '{}' CONSTRAINT app_passwords_networks_form
                        CHECK (cardinality(networks) <= 64 AND array_position(networks, NULL) IS NULL),
    phc                 text NOT NULL CONSTRAINT app_passwords_phc_length CHECK (octet_length(phc) BETWEEN 1 AND 512),
    pepper_id           integer REFERENCES peppers,
    tag                 integer CONSTRAINT app_passwords_tag_range CHECK (tag BETWEEN 0 AND 65535),
    origin              text NOT NULL CONSTRAINT app_passwords_origin_known CHECK (origin IN ('generated', 'imported')),
    created_at          timestamptz NOT NULL DEFAULT now(),
    created_by          text NOT NULL CONSTRAINT app_passwords_created_by_length CHECK (octet_length(created_by) <= 512),
    expires_at          timestamptz CONSTRAINT app_passwords_expires_at_finite CHECK (isfinite(expires_at)),
    -- Bounded so that adding it to a time cannot overflow in the middle of a lookup.
    expires_unused_for  interval CONSTRAINT app_passwords_expires_unused_for_range
                        CHECK (expires_unused_for BETWEEN interval '1 second' AND interval '36500 days'),
    last_used_at        timestamptz,
    last_used_service   text CONSTRAINT app_passwords_last_used_service_length CHECK (octet_length(last_used_service) <= 64),
    last_used_front_end text CONSTRAINT app_passwords_last_used_front_end_length CHECK (octet_length(last_used_front_end) <= 64),
    last_used_addr      inet,
    revoked_at          timestamptz,
    revoked_by          text CONSTRAINT app_passwords_revoked_by_length CHECK (octet_length(revoked_by) <= 512),
    revoked_why         text CONSTRAINT app_passwords_revoked_why_length CHECK (octet_length(revoked_why) <= 1024),
    CONSTRAINT app_passwords_tag_has_pepper CHECK ((tag IS NULL) = (pepper_id IS NULL)),
    CONSTRAINT app_passwords_imported_has_no_tag CHECK (origin <> 'imported' OR tag IS NULL),
    CONSTRAINT app_passwords_revoked_frees_label CHECK (revoked_at IS NULL OR NOT holds_label)
) WITH (fillfactor = 85); -- room for last_used_* to change without touching an index

-- The lookup's probe: tombstones included.
CREATE INDEX app_passwords_account_tag_idx ON app_passwords (account_id, tag);
-- The lookup's other probe: imported rows, which are candidates for every password. Empty in most installations.
CREATE INDEX app_passwords_untagged_idx ON app_passwords (account_id) WHERE tag IS NULL;
CREATE UNIQUE INDEX app_passwords_label_held_key ON app_passwords (account_id, label_key) WHERE holds_label;
-- A login costs at most one slow hash because no two rows that may be accepted have the same tag.
CREATE UNIQUE INDEX app_passwords_tag_held_key ON app_passwords (account_id, pepper_id, tag)
    WHERE tag IS NOT NULL AND revoked_at IS NULL;

-- No foreign keys: what happened stays true when the account is gone.
CREATE TABLE events (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT now(),
    kind            text NOT NULL CONSTRAINT events_kind_length CHECK (octet_length(kind) BETWEEN 1 AND 64),
    actor           text NOT NULL CONSTRAINT events_actor_length CHECK (octet_length(actor) <= 512),
    account_id      bigint,
    login           text COLLATE "C" CONSTRAINT events_login_length CHECK (octet_length(login) <= 512),
    app_password_id bigint,
    label           text CONSTRAINT events_label_length CHECK (octet_length(label) <= 512),
    detail          jsonb NOT NULL DEFAULT '{}' CONSTRAINT events_detail_form CHECK (octet_length(detail::text) <= 16384)
);
CREATE INDEX events_account_id_idx ON events (account_id, id);
CREATE INDEX events_at_idx ON events USING brin (at);

-- A trigger rather than missing privileges, because the daemon's role usually owns the table and could grant itself any.
-- It guards against mistakes and injected statements, not against the owner of the database.
-- +goose StatementBegin
CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_append_only();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_append_only();
