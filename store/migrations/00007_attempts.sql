-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
-- Rejected logins of known accounts, those that were alike in one row with a counter: what "valetkey why" tells. Accepted ones are in
-- app_passwords.last_used_*. Whoever guesses decides how many attempts there are, so this is no log: the rows of an account and of the
-- table are bounded, and old ones go. Nothing in here is made of a password.
--
-- No foreign keys: the rows of an account that is gone are swept with the old ones, and writing must not lock accounts.
CREATE TABLE attempts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id      bigint NOT NULL,
    reason          text COLLATE "C" NOT NULL CONSTRAINT attempts_reason_length CHECK (octet_length(reason) BETWEEN 1 AND 64),
    app_password_id bigint, -- that matched
    service         text COLLATE "C" NOT NULL CONSTRAINT attempts_service_length CHECK (octet_length(service) <= 64),
    front_end       text COLLATE "C" NOT NULL CONSTRAINT attempts_front_end_length CHECK (octet_length(front_end) <= 64),
    addr            inet, -- not known, or several
    first_at        timestamptz NOT NULL,
    last_at         timestamptz NOT NULL,
    count           bigint NOT NULL CONSTRAINT attempts_count_positive CHECK (count > 0),
    CONSTRAINT attempts_alike_key UNIQUE NULLS NOT DISTINCT (account_id, reason, app_password_id, service, front_end, addr)
) WITH (fillfactor = 80); -- an update changes no indexed column
