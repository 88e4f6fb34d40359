// Package notice tells of what happened to app passwords: it takes the outbox's rows and runs a program or mails the user for each.
//
// It refuses to know SQL (it declares the outbox's interface), front ends and secrets: no event holds one. The one rule a newcomer
// would break: nothing here may delay or fail a login. Events are written without us; whatever hangs, floods or is down costs a
// notice a later try, bounded in number and age, and no more.
package notice
