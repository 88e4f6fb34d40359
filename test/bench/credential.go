package main

import (
	"fmt"

	"github.com/valetkey/valetkey/internal/secret"
)

// passwordsPerAccount is how many app passwords each account of the data set has.
const passwordsPerAccount = 25

// credential is one account with the app password that it logs in with, if it does.
type credential struct {
	login    string
	password string // as a person types it, with hyphens
}

// What the directory holds of an account beside its login, in slapd and in valetkeyd.
func (c credential) displayName() string { return "Person " + c.login }
func (c credential) attributes() map[string][]string {
	return map[string][]string{"givenName": {"Person"}, "mail": {c.login}, "sn": {c.login}}
}

// Groups hold groupSize accounts each, one after another; the last may have fewer.
const groupSize = 500

func groupCount(accounts int) int { return (accounts + groupSize - 1) / groupSize }
func groupName(i int) string      { return fmt.Sprintf("group%05d", i) }

// newReader returns the account of the program that searches.
func newReader() credential {
	return credential{login: "bench-reader", password: secret.Format(secret.Generate(secret.DefaultLength))}
}

// newCredentials returns that many accounts.
func newCredentials(accounts int) []credential {
	creds := make([]credential, accounts)
	for i := range creds {
		creds[i] = credential{
			login:    fmt.Sprintf("user%05d@example.org", i),
			password: secret.Format(secret.Generate(secret.DefaultLength)),
		}
	}
	return creds
}

// newGuesses returns well-formed wrong passwords for the accounts in turn.
func newGuesses(creds []credential, n int) []credential {
	guesses := make([]credential, n)
	for i := range guesses {
		guesses[i] = credential{creds[i%len(creds)].login, secret.Format(secret.Generate(secret.DefaultLength))}
	}
	return guesses
}

// rightAndWrong are the credentials for prove.
func rightAndWrong(c credential) []credential { return []credential{c, {c.login, "not " + c.password}} }
