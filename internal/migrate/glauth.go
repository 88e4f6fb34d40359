package migrate

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// glauth's configuration is described by v2/pkg/config/config.go and v2/sample-simple.cfg of glauth/glauth. passSHA256 and passAppSHA256
// are SHA-256 without a salt in hexadecimal digits; passBcrypt and passAppBcrypt are the hexadecimal digits of a bcrypt hash
// (v2/pkg/handler/ldapopshelper.go). Its keys are not case-sensitive.
func readGlauth(r *bufio.Reader, o Options) (*Result, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfig {
		return nil, &Fault{fmt.Sprintf("it has more than %d bytes", maxConfig), "is it a configuration file of glauth?"}
	}
	var raw map[string]any
	if err := toml.Unmarshal(text, &raw); err != nil {
		var p toml.ParseError
		if errors.As(err, &p) { // its message may quote the line
			return nil, &Fault{fmt.Sprintf("line %d cannot be read: it is no TOML, or not complete", p.Position.Line), "is it a configuration file of glauth?"}
		}
		return nil, &Fault{"it is no TOML, or not complete", "is it a configuration file of glauth?"}
	}
	g := &glauth{o: o, groups: map[int64]string{}}
	config := folded(raw)
	users := tables(config["users"])
	if len(users) == 0 {
		return nil, &Fault{"it has no [[users]]", "users in a database of glauth's, or in another directory, are not in its configuration file"}
	}
	include := map[int64][]int64{}
	for _, t := range tables(config["groups"]) {
		name, number := str(t["name"]), first(num(t["gidnumber"]), num(t["unixid"]))
		if name != "" && number != 0 {
			g.groups[number] = name
		}
		for _, other := range numbers(t["includegroups"]) { // who is in the other is in this one
			include[other] = append(include[other], number)
		}
	}
	g.include = include
	for i, u := range users {
		if err := g.user(i, u); err != nil {
			return nil, err
		}
	}
	if g.searchers > 0 {
		g.out.Notes = append(g.out.Notes, fmt.Sprintf("%d of the users may search the directory there; what is a program and no person should be a reader here: valetkey reader add", g.searchers))
	}
	if g.mains > 0 && !o.MainPasswords {
		g.out.Notes = append(g.out.Notes, "the main passwords of the users are left out: --main-passwords takes them over as app passwords")
	}
	return &g.out, nil
}

type glauth struct {
	o       Options
	out     Result
	groups  map[int64]string
	include map[int64][]int64

	searchers, mains int
}

func (g *glauth) user(i int, u map[string]any) error {
	login := str(u["name"])
	ref := fmt.Sprintf("users[%d]", i+1)
	if disabled, _ := u["disabled"].(bool); disabled {
		g.out.skip(ref, login, "", "the user is disabled there")
		return nil
	}
	row := Row{Ref: ref, Login: login, Attributes: map[string][]string{}, Userdb: map[string]string{}}
	row.DisplayName = strings.TrimSpace(str(u["givenname"]) + " " + str(u["sn"]))
	for key, name := range map[string]string{"mail": "mail", "givenname": "givenName", "sn": "sn", "loginshell": "loginShell", "homedir": "homeDirectory"} {
		if v := str(u[key]); v != "" {
			row.Attributes[name] = []string{v}
		}
	}
	if n := first(num(u["uidnumber"]), num(u["unixid"])); n != 0 {
		row.Attributes["uidNumber"] = []string{strconv.FormatInt(n, 10)}
	}
	if n := num(u["primarygroup"]); n != 0 {
		row.Attributes["gidNumber"] = []string{strconv.FormatInt(n, 10)}
	}
	for _, custom := range tables(u["customattributes"]) {
		for name, v := range custom {
			if values := texts(v); len(values) > 0 && row.Attributes[name] == nil {
				row.Attributes[name] = values
			}
		}
	}
	g.join(&row, u)
	if len(texts(u["sshkeys"])) > 0 {
		g.out.skip(ref, login, "", "the SSH keys are left out; the rest is taken over")
	}
	for _, c := range tables(u["capabilities"]) {
		if strings.EqualFold(str(c["action"]), "search") {
			g.searchers++
			break
		}
	}

	password := func(key, label, hash string) error {
		row.Key, row.Label, row.Hash = key, label, hash
		return g.out.add(row)
	}
	none := true
	for n, h := range texts(u["passappsha256"]) {
		none = false
		if err := password(fmt.Sprintf("%s/passappsha256/%d", login, n+1), fmt.Sprintf("app password %d", n+1), "{SHA256.HEX}"+h); err != nil {
			return err
		}
	}
	for n, h := range texts(u["passappbcrypt"]) {
		none = false
		if err := password(fmt.Sprintf("%s/passappbcrypt/%d", login, n+1), fmt.Sprintf("app password b%d", n+1), unhex(h)); err != nil {
			return err
		}
	}
	main := ""
	if h := str(u["passbcrypt"]); h != "" {
		main = unhex(h)
	} else if h := str(u["passsha256"]); h != "" {
		main = "{SHA256.HEX}" + h
	}
	switch {
	case main == "":
	case !g.o.MainPasswords:
		g.mains++
	case str(u["otpsecret"]) != "" || str(u["yubikey"]) != "":
		g.out.skip(ref, login, mainLabel, "the main password opens nothing there without a one-time password, and would here")
	default:
		none = false
		if err := password(login+"/main", mainLabel, main); err != nil {
			return err
		}
	}
	if none { // the account all the same
		return g.out.add(row)
	}
	return nil
}

// join finds the groups of a user, those that include its own ones included.
func (g *glauth) join(row *Row, u map[string]any) {
	todo := append([]int64{num(u["primarygroup"])}, numbers(u["othergroups"])...)
	seen := map[int64]bool{}
	for len(todo) > 0 && len(seen) < 1000 {
		n := todo[0]
		todo = todo[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		todo = append(todo, g.include[n]...)
		name := g.groups[n]
		switch {
		case name == "":
		case strings.ContainsAny(name, " \t"):
			g.out.skip(row.Ref, row.Login, "", "the group %q has a space in its name; the rest is taken over", name)
		default:
			row.Groups = append(row.Groups, name)
		}
	}
	slices.Sort(row.Groups)
}

// unhex returns the text that the digits stand for, or the digits, which are then no hash.
func unhex(digits string) string {
	if b, err := hex.DecodeString(digits); err == nil {
		return string(b)
	}
	return digits
}

// folded lower-cases the keys of a table, at every depth. Lists of tables that differ in case only become one.
func folded(t map[string]any) map[string]any {
	out := make(map[string]any, len(t))
	for _, k := range slices.Sorted(maps.Keys(t)) {
		v := t[k]
		switch x := v.(type) {
		case map[string]any:
			v = folded(x)
		case []map[string]any:
			list := make([]map[string]any, len(x))
			for i := range x {
				list[i] = folded(x[i])
			}
			before, _ := out[strings.ToLower(k)].([]map[string]any)
			v = append(before, list...)
		}
		out[strings.ToLower(k)] = v
	}
	return out
}

func tables(v any) []map[string]any {
	switch x := v.(type) {
	case []map[string]any:
		return x
	case map[string]any:
		return []map[string]any{x}
	case []any: // inline tables
		var out []map[string]any
		for _, e := range x {
			if t, ok := e.(map[string]any); ok {
				out = append(out, folded(t))
			}
		}
		return out
	}
	return nil
}

func str(v any) string { s, _ := v.(string); return s }

func num(v any) int64 { n, _ := v.(int64); return n }

func first(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

func numbers(v any) (out []int64) {
	list, _ := v.([]any)
	for _, e := range list {
		if n, ok := e.(int64); ok {
			out = append(out, n)
		}
	}
	return out
}

// texts are strings and numbers, one or a list.
func texts(v any) (out []string) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, e := range list {
		switch x := e.(type) {
		case string:
			if x != "" {
				out = append(out, x)
			}
		case int64:
			out = append(out, strconv.FormatInt(x, 10))
		}
	}
	return out
}
