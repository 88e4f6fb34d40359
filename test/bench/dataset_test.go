package main

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
	"github.com/valetkey/valetkey/store/storetest"
)

func TestDatasetPasswords(t *testing.T) {
	ring := secret.NewRing()
	creds := newCredentials(4)
	const logins = 2
	set, err := newDataset(t.Context(), creds, passwordsPerAccount, logins, newReader(), ring)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	tags := map[int]map[uint16]bool{}
	real := map[int]int{}
	for p := range set.passwords() {
		if want := rows / passwordsPerAccount; p.account != want || p.number != rows%passwordsPerAccount {
			t.Fatalf("row %d is number %d of account %d, want number %d of account %d", rows, p.number, p.account, rows%passwordsPerAccount, want)
		}
		rows++
		if tags[p.account] == nil {
			tags[p.account] = map[uint16]bool{}
		}
		if tags[p.account][p.tag] {
			t.Errorf("account %d has tag %d twice", p.account, p.tag)
		}
		tags[p.account][p.tag] = true
		if p.tag != ring.Tag(normalised(creds[p.account])).Value {
			continue
		}
		ok, err := secret.Verify(p.phc, normalised(creds[p.account]))
		if err != nil {
			t.Errorf("hash of number %d of account %d: %v", p.number, p.account, err)
		}
		if ok {
			real[p.account] = p.number
		}
	}
	if rows != len(creds)*passwordsPerAccount {
		t.Errorf("%d rows, want %d", rows, len(creds)*passwordsPerAccount)
	}
	if len(real) != logins || real[0] != 0 || real[1] != 1 {
		t.Errorf("real passwords by account: %v, want numbers 0 and 1 of accounts 0 and 1", real)
	}
}

func TestRandomPHCIsReadAndMatchesNothing(t *testing.T) {
	if ok, err := secret.Verify(randomPHC(), secret.Generate(secret.DefaultLength)); ok || err != nil {
		t.Errorf("Verify(randomPHC) = %v, %v, want false, nil", ok, err)
	}
}

// TestDatasetIsAsTheDaemonWritesIt compares the search keys with those that the store itself makes, and reads the rows through it.
func TestDatasetIsAsTheDaemonWritesIt(t *testing.T) {
	s, url := storetest.New(t)
	db := storetest.DB(t, url)
	creds, reader := newCredentials(groupSize+1), newReader()
	set, err := newDataset(t.Context(), creds, 2, 1, reader, secret.NewRing())
	if err != nil {
		t.Fatal(err)
	}
	if err := set.write(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	last := creds[groupSize]
	for _, key := range []auth.AccountKey{{Login: last.login}, {Search: auth.SearchKey("mail", last.login)}, {Group: groupName(1)}} {
		found, err := s.Directory().FindAccounts(t.Context(), []auth.AccountKey{key}, 2, auth.AllParts)
		if err != nil || len(found) != 1 {
			t.Fatalf("FindAccounts(%+v) = %d accounts, %v, want 1", key, len(found), err)
		}
		a := found[0]
		if a.Login != last.login || a.DisplayName != last.displayName() || !cmp.Equal(a.Attributes, last.attributes()) || !slices.Equal(a.Groups, []string{groupName(1)}) {
			t.Errorf("FindAccounts(%+v) = %+v", key, a)
		}
	}
	if _, err := s.Directory().Entry(t.Context(), reader.login); err != auth.ErrNoAccount {
		t.Errorf("Entry of the reader = %v, want %v", err, auth.ErrNoAccount)
	}

	written := searchKeys(t, db)
	if _, err := db.ExecContext(t.Context(), "UPDATE accounts SET keyed = 0"); err != nil {
		t.Fatal(err)
	}
	for unkeyed := 1; unkeyed > 0; { // a search by key makes the store make them
		if _, err := s.Directory().FindAccounts(t.Context(), []auth.AccountKey{{Search: "x=y"}}, 1, auth.AllParts); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM accounts WHERE keyed <> $1", keyVersion).Scan(&unkeyed); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // between questions
	}
	if diff := cmp.Diff(searchKeys(t, db), written); diff != "" {
		t.Errorf("search keys: -the store's +ours\n%s", diff)
	}
}

func searchKeys(t *testing.T, db *sql.DB) (keys []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT key || ' of ' || login FROM search_keys ORDER BY login, key")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}
