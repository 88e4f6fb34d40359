package admin

import "github.com/valetkey/valetkey/internal/auth"

// Explanation is what a word of the log means, for people.
type Explanation struct {
	Meaning string // a clause: "the account is known, but..."
	Remedy  string // what an admin does; empty: nothing is to be done
}

// Reasons explains every word that stands behind reason= in the log. docs/troubleshooting.md has a section for each; a test holds both to
// what the program can say.
var Reasons = map[string]Explanation{
	string(auth.Accepted): {"the login was accepted", ""},
	string(auth.NoMatch): {"the password looks like an app password, but is none of this account's",
		"the device has a mistyped or deleted app password: create a new one and type it in there"},
	string(auth.UnknownLogin): {"no account goes by this login",
		"compare the spelling with valetkey account list; an alias lets a second spelling in: valetkey account set LOGIN --add-alias NAME"},
	string(auth.BadFormat): {"the password cannot be an app password; it is often the user's main password",
		"tell the user to put an app password into the device, not the main password"},
	string(auth.EmptyPassword): {"no password was sent; some servers do so when their client hangs up", ""},
	string(auth.Revoked): {"the password is that of a revoked app password: an old device still sends it",
		"find the device by its label and address, and give it a new app password or remove the account from it"},
	string(auth.Expired): {"the password is that of an app password that has expired, by its date or because it was not used",
		"create a new app password for the device"},
	string(auth.ServiceNotAllowed): {"the app password is right, but is not for this service",
		"create an app password with --service for it, or use another one in this program"},
	string(auth.NetworkNotAllowed): {"the app password is right, but may not be used from this address, or the server did not tell the address",
		"create an app password with --from for that network, or without; a server that does not tell the address needs one without"},
	string(auth.AccountDisabled): {"the app password is right, but the account is disabled", "valetkey account enable LOGIN, if that is over"},
	string(auth.NotEnrolled): {"the app password is right, but the user has no second factor",
		"the user enrols again; the app passwords work from then on"},
	string(auth.ReaderOnly): {"the secret is right, but it is a reader's, who may only search the LDAP directory",
		"use a person's account here, or bind below ou=readers"},
	string(auth.GroupNotAllowed): {"the app password is right, but the user is not in the group that this application is for",
		"valetkey group add-member GROUP LOGIN, if the user is to be let in"},

	"bad_dn":     {"LDAP: the bind name is not a name that an account can have", "look at the bind DN in the application's settings"},
	"foreign_dn": {"LDAP: the bind name is not below the part of the tree where the accounts are", "compare the base DN in the application's settings with base_dn"},

	"unavailable":   {"undecided: something was broken, usually the database; the user was told of a temporary failure", "valetkey status; err= in the log line has the cause"},
	"timeout":       {"undecided: the decision took longer than the server waits", "valetkey status; look whether the database or the machine is slow"},
	"overloaded":    {"undecided: more logins came than the machine can verify in time", "it passes; look at what floods the server if it does not"},
	"throttled":     {"undecided: too many guesses from this address are waiting for their answers", "it passes when the guessing ends; [throttle] trusted exempts a network of yours"},
	"client_gone":   {"undecided: the client hung up before the answer", ""},
	"shutting_down": {"undecided: the daemon was being stopped", ""},
}

// explain returns the explanation of a reason; one of a newer daemon is its own.
func explain(r auth.Reason) Explanation {
	if e, ok := Reasons[string(r)]; ok {
		return e
	}
	return Explanation{Meaning: string(r)}
}
