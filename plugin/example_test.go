package plugin_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/valetkey/valetkey/plugin"
)

// tokens asks a folder in which each user with a second factor has a file.
type tokens struct{ folder *os.Root }

func (t tokens) Describe() plugin.Description {
	return plugin.Description{Name: "example-2fa-tokens", Version: "1.0", MaxParallel: 8}
}

func (t tokens) Check(_ context.Context, r plugin.Request) (plugin.Answer, error) {
	if strings.Contains(r.Login, "/") {
		return plugin.Answer{Status: plugin.AccountUnknown, ReasonCode: "odd_login"}, nil
	}
	_, err := t.folder.Stat(r.Login)
	switch {
	case os.IsNotExist(err):
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_token"}, nil
	case err != nil:
		return plugin.Answer{}, err // the disk is away, say: not known
	}
	return plugin.Answer{Status: plugin.Enrolled, ValidFor: 5 * time.Minute}, nil
}

// A whole plugin is a type with a Check, and a main function that opens what it needs and ends with
//
//	plugin.Serve(tokens{folder})
func Example() {
	dir, err := os.MkdirTemp("", "tokens")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(dir+"/alice", nil, 0o600); err != nil {
		panic(err)
	}
	folder, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	defer folder.Close()
	var checker plugin.Checker = tokens{folder}
	for _, login := range []string{"alice", "bob", "../alice"} {
		answer, err := checker.Check(context.Background(), plugin.Request{Login: login})
		fmt.Println(login, answer.Status, answer.ReasonCode, err)
	}
	// Output:
	// alice enrolled  <nil>
	// bob not_enrolled no_token <nil>
	// ../alice account_unknown odd_login <nil>
}
