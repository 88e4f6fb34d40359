-- Expand-only: a later migration adds, and removes one release after nothing uses a thing any more (U1 of the test plan).

-- +goose Up
-- The end that its owner was told of. A column without a default: no row is rewritten. Its index is in a migration of its own.
--
-- First, since it takes the strongest lock: the foreign key below takes a weaker one on the same table, and who waits to strengthen a lock
-- dead-locks with whoever has read and is about to write.
ALTER TABLE app_passwords ADD COLUMN expiry_told_for timestamptz;

-- Who wants to be told of what: a row for each daemon and each thing that it tells ('mail', 'hook:NAME'). The daemon renews it, so
-- that what a daemon wanted that is gone for good is forgotten after a day.
CREATE TABLE notice_targets (
    daemon  text COLLATE "C" NOT NULL CONSTRAINT notice_targets_daemon_length CHECK (octet_length(daemon) BETWEEN 1 AND 512),
    target  text COLLATE "C" NOT NULL CONSTRAINT notice_targets_target_length CHECK (octet_length(target) BETWEEN 1 AND 128),
    kinds   text[] NOT NULL CONSTRAINT notice_targets_kinds_bound CHECK (cardinality(kinds) <= 32),
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (daemon, target)
);

-- The outbox. A row is one event to be told to one target; what it is about stands in the event. While a daemon works on it, and
-- until the next try, due_at lies in the future: a daemon that dies leaves nothing behind that must be cleaned up. Done rows stay for
-- a day: the limits count them.
CREATE TABLE notices (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        bigint NOT NULL,
    kind            text NOT NULL,
    target          text COLLATE "C" NOT NULL,
    account_id      bigint,
    app_password_id bigint,
    created_at      timestamptz NOT NULL DEFAULT now(),
    due_at          timestamptz NOT NULL DEFAULT now(),
    tries           integer NOT NULL DEFAULT 0,
    done_at         timestamptz,
    outcome         text CONSTRAINT notices_outcome_length CHECK (octet_length(outcome) BETWEEN 1 AND 32),
    CONSTRAINT notices_done_whole CHECK ((done_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX notices_due_idx ON notices (target, due_at) WHERE done_at IS NULL;
CREATE INDEX notices_done_idx ON notices (done_at) WHERE done_at IS NOT NULL;
-- For the limits: how many in the last hour.
CREATE INDEX notices_sent_idx ON notices (target, done_at) WHERE outcome = 'sent';
CREATE INDEX notices_account_idx ON notices (account_id, done_at) WHERE done_at IS NOT NULL;

-- Networks from which an app password was used, as far as somebody wants to be told of new ones.
CREATE TABLE app_password_networks (
    app_password_id bigint NOT NULL REFERENCES app_passwords ON DELETE CASCADE,
    network         cidr NOT NULL,
    used_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app_password_id, network)
);

-- A trigger rather than a statement beside each that adds an event: so no event is forgotten, nor one of an older program that
-- serves beside this one, and the notice is there if and only if the event is.
--
-- Imported app passwords are many at once, and nobody has to be told that he may go on as before. The span of ids bounds the
-- table, roughly and without counting, when nobody takes anything out of it.
-- +goose StatementBegin
CREATE FUNCTION events_give_notice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    what text := CASE NEW.kind
        WHEN 'app_password.created' THEN CASE WHEN NEW.detail ->> 'origin' = 'imported' THEN NULL ELSE 'created' END
        WHEN 'app_password.first_used' THEN 'first_use'
        WHEN 'app_password.new_network' THEN 'new_network'
        WHEN 'app_password.revoked' THEN 'revoked'
        WHEN 'app_password.expires_soon' THEN 'expires_soon'
        WHEN 'login.rejected' THEN CASE WHEN NEW.detail ->> 'reason' = 'revoked' THEN 'revoked_use' END
        WHEN 'account.disabled' THEN 'account_disabled'
        WHEN 'account.deleted' THEN 'account_deleted'
    END;
BEGIN
    IF what IS NOT NULL THEN
        INSERT INTO notices (event_id, kind, target, account_id, app_password_id)
        SELECT DISTINCT NEW.id, what, t.target, NEW.account_id, NEW.app_password_id FROM notice_targets t
        WHERE what = ANY (t.kinds) AND t.seen_at > now() - interval '1 day'
            AND COALESCE((SELECT max(id) - min(id) FROM notices), 0) < 1000000;
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER events_give_notice AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION events_give_notice();
