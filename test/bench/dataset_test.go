package main

import (
	"testing"

	"github.com/valetkey/valetkey/internal/secret"
)

func TestDatasetPasswords(t *testing.T) {
	ring := secret.NewRing()
	creds := newCredentials(4)
	const logins = 2
	set, err := newDataset(t.Context(), creds, logins, ring)
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
