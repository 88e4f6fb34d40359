package auth_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// fakeMeter keeps what it is told.
type fakeMeter struct{ told []string }

func (f *fakeMeter) Outcome(frontEnd, result, reason string, took time.Duration) {
	f.told = append(f.told, fmt.Sprint(frontEnd, " ", result, " ", reason, " ", took >= 0))
}

// A meter is told of each login what its log line says, once.
func TestMeter(t *testing.T) {
	meter := &fakeMeter{}
	f := newFixture(t, nil, generated(1, good))
	a := auth.New(auth.Config{Rows: f.rows, Secrets: f.secrets, Meter: meter, Log: f.logger()})
	for _, tt := range []struct {
		req  auth.Request
		err  error // of the lookup
		want string
	}{
		{request("alice", good), nil, "dovecot ok accepted true"},
		{request("alice", other), nil, "dovecot fail no_match true"},
		{request("alice", ""), nil, "dovecot fail empty_password true"},
		{request("alice", good), errors.New("no route to host"), "dovecot undecided unavailable true"},
		{request("alice", good), context.DeadlineExceeded, "dovecot undecided timeout true"},
	} {
		f.rows.err, meter.told = tt.err, nil
		a.Authenticate(t.Context(), tt.req)
		if !slices.Equal(meter.told, []string{tt.want}) {
			t.Errorf("the meter was told %q, want %q", meter.told, tt.want)
		}
	}
}

// A reason that is missing in the lists would be counted as one that nobody has heard of.
func TestReasonsAreListed(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "decision.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range file.Decls {
		for _, s := range constants(d) {
			if id, ok := s.Type.(*ast.Ident); !ok || id.Name != "Reason" {
				continue
			}
			found++
			text, _ := strconv.Unquote(s.Values[0].(*ast.BasicLit).Value)
			if !slices.Contains(auth.Reasons, auth.Reason(text)) {
				t.Errorf("auth.Reasons lacks %q", text)
			}
		}
	}
	if found != len(auth.Reasons) {
		t.Errorf("auth.Reasons has %d, and decision.go %d", len(auth.Reasons), found)
	}
	file, err = parser.ParseFile(token.NewFileSet(), "authenticator.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found = 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "undecidedReason" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				found++
				if text, _ := strconv.Unquote(lit.Value); !slices.Contains(auth.UndecidedReasons, text) {
					t.Errorf("auth.UndecidedReasons lacks %q", text)
				}
			}
			return true
		})
	}
	if found != len(auth.UndecidedReasons) {
		t.Errorf("auth.UndecidedReasons has %d, and undecidedReason %d", len(auth.UndecidedReasons), found)
	}
}

func constants(d ast.Decl) (specs []*ast.ValueSpec) {
	g, ok := d.(*ast.GenDecl)
	if !ok || g.Tok != token.CONST {
		return nil
	}
	for _, s := range g.Specs {
		specs = append(specs, s.(*ast.ValueSpec))
	}
	return specs
}
