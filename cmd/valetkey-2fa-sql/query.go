package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/pgdial"
	"github.com/valetkey/valetkey/internal/plugincmd"
	"github.com/valetkey/valetkey/plugin"
)

// The limits lie one inside the other, so that the one that leaves the connection usable strikes first: the server ends the statement,
// then the context ends the wait, and the dialer cuts a connection on which nothing comes at all. lib/pq by itself sets no deadline on a
// socket in use, whatever the context says.
const (
	statementShare = 9                      // tenths of the timeout
	exchangeGrace  = 200 * time.Millisecond // beyond the timeout
	connectTimeout = 2 * time.Second        // lib/pq's own is for ever
	longestUse     = 5 * time.Minute        // of a connection, so that a server that is no more the primary is noticed
)

// maxAnswer bounds what the database may send for one statement, in bytes: a word is wanted.
const maxAnswer = 1 << 20

// openDatabase connects to nothing yet.
func openDatabase(cfg pq.Config, timeout time.Duration, connections int, pgbouncer bool) (*sql.DB, error) {
	if cfg.ConnectTimeout <= 0 || cfg.ConnectTimeout > timeout {
		cfg.ConnectTimeout = min(connectTimeout, timeout)
	}
	cfg.ApplicationName = "valetkey-2fa-sql"
	// One round trip, and no statement with a name: PgBouncer gives the next transaction another server.
	cfg.BinaryParameters = pgbouncer
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, err
	}
	connector.Dialer(pgdial.Dialer{Exchange: timeout + exchangeGrace, Answer: maxAnswer})
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxLifetime(longestUse)
	return db, nil
}

// checker runs the query.
type checker struct {
	db      *sql.DB
	query   string
	timeout time.Duration
	noRows  plugin.Answer
}

// Check implements [plugin.Checker].
func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	// A context that ends makes the driver wait for the connection that it breaks: the answer must not.
	type result struct {
		answer plugin.Answer
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := c.ask(ctx, r.Login)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, explain(r.err)
	case <-ctx.Done():
		return plugin.Answer{}, fmt.Errorf("waiting for the database: %w", ctx.Err())
	}
}

// ask runs the query in a transaction of its own. A transaction that could write would need a reason.
func (c *checker) ask(ctx context.Context, login string) (plugin.Answer, error) {
	tx, err := c.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return plugin.Answer{}, err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	limit := c.timeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	// In the transaction rather than in the URL, where PgBouncer refuses it.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", max(limit.Milliseconds()*statementShare/10, 1))); err != nil {
		return plugin.Answer{}, err
	}
	rows, err := tx.QueryContext(ctx, c.query, login)
	if err != nil {
		return plugin.Answer{}, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return plugin.Answer{}, err
	}
	if len(columns) != 1 {
		return plugin.Answer{}, plugincmd.WithHint(fmt.Errorf("the query gives %d columns, and one is wanted", len(columns)), "select a boolean or one of the words alone")
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return plugin.Answer{}, err
		}
		return c.noRows, nil
	}
	var value any
	if err := rows.Scan(&value); err != nil {
		return plugin.Answer{}, errors.New("the value of the query cannot be read") // the error may quote it
	}
	if rows.Next() {
		return plugin.Answer{}, plugincmd.WithHint(errors.New("the query gives several rows, and it is not known which counts"),
			"make one of them: SELECT EXISTS (...), or bool_or(...)")
	}
	if err := rows.Err(); err != nil {
		return plugin.Answer{}, err
	}
	return meaning(value)
}

// meaning reads what the first column says. What it says otherwise is in no error: it may be the secret of a second factor.
func meaning(value any) (plugin.Answer, error) {
	text := ""
	switch v := value.(type) {
	case nil: // of an outer join, say
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "null"}, nil
	case bool:
		if v {
			return plugin.Answer{Status: plugin.Enrolled, ReasonCode: "true"}, nil
		}
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "false"}, nil
	case string:
		text = v
	case []byte: // citext, an enumeration and other types that the driver does not know
		text = string(v)
	default:
		return plugin.Answer{}, plugincmd.WithHint(fmt.Errorf("the query gives a %T, and a boolean or a text is wanted", value), "compare in the query: SELECT count(*) > 0 ...")
	}
	for word, status := range map[string]plugin.Status{
		"enrolled": plugin.Enrolled, "not_enrolled": plugin.NotEnrolled, "exempt": plugin.Exempt, "unknown": plugin.AccountUnknown,
	} {
		if text == word {
			return plugin.Answer{Status: status, ReasonCode: "value"}, nil
		}
	}
	return plugin.Answer{}, plugincmd.WithHint(errors.New("the query gives a text that is not enrolled, not_enrolled, exempt or unknown"),
		"compare in the query: SELECT totp_secret IS NOT NULL ...")
}

// explain adds a hint to what Postgres says most often, and takes out what a person should not see.
func explain(err error) error {
	var said *pq.Error
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgdial.ErrTooLarge):
		return plugincmd.WithHint(fmt.Errorf("the database sent more than an answer may have, %d KiB", maxAnswer>>10), "select a boolean or one of the words alone, of one row")
	case errors.As(err, &said):
		// Detail, hint and context of the server may hold values, and so may the message of what a function or a type complains of. In these classes
		// it names objects only.
		text := fmt.Errorf("the database says: %s (SQLSTATE %s)", said.Message, said.Code)
		switch said.Code.Class() {
		case "28":
			return plugincmd.WithHint(text, "check the user in url and password_file, and pg_hba.conf")
		case "42":
			return plugincmd.WithHint(text, "correct the query, or GRANT SELECT on what it reads; try it in psql with PREPARE and EXECUTE")
		case "25":
			return plugincmd.WithHint(text, "the query tries to write, in a read-only transaction")
		case "22":
			return fmt.Errorf("the database does not accept a value (SQLSTATE %s)", said.Code)
		case "08", "3D", "53", "57", "58": // connection, no such database, resources, intervention, system
		default:
			return plugincmd.WithHint(fmt.Errorf("the database refuses the query (SQLSTATE %s)", said.Code), "try it in psql with PREPARE and EXECUTE")
		}
		return text
	case errors.As(err, &network):
		return plugincmd.WithHint(fmt.Errorf("the database cannot be reached: %w", err), "check host and port in url, and that Postgres runs")
	}
	return err
}
