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
