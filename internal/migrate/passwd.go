package migrate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// readPasswdFile reads "user:password:uid:gid:(gecos):home:(shell):extra_fields" (Dovecot, "Passwd-file"; src/auth/db-passwd-file.c:
// everything behind the seventh colon is the extra fields, separated by spaces). A hash without a scheme is of crypt(3), unless
// the passdb says otherwise (scheme=).
func readPasswdFile(r *bufio.Reader, o Options) (*Result, error) {
	var out Result
	colons := 0
	for n := 1; ; n++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.SplitN(line, ":", 8)
		ref := fmt.Sprintf("line %d", n)
		if len(f) < 2 {
			out.skip(ref, "", "", "it has no colon: it is no line of a passwd-file")
			continue
		}
		colons++
		f = append(f, make([]string, 8-len(f))...)
		if err := passwdRow(&out, ref, f, o); err != nil {
			return nil, err
		}
	}
	if colons == 0 && len(out.Skipped) > 0 {
		return nil, &Fault{"no line of it has a colon: it is no passwd-file", "a passwd-file has lines of user:{SCHEME}hash:uid:gid::home::extra fields"}
	}
	return &out, nil
}

func passwdRow(out *Result, ref string, f []string, o Options) error {
	login := f[0]
	row := Row{Ref: ref, Login: login, Key: login, Label: mainLabel, Hash: f[1], Scheme: cmpString(o.DefaultScheme, "CRYPT"),
		Attributes: mailOf(login), Userdb: map[string]string{}}
	for i, name := range map[int]string{2: "uid", 3: "gid", 5: "home"} {
		if f[i] != "" {
			row.Userdb[name] = f[i]
		}
	}
	if gecos, _, _ := strings.Cut(f[4], ","); gecos != "" {
		row.DisplayName = gecos
	}
	var keepOut string // why the password is not taken over
	for _, field := range strings.Fields(f[7]) {
		name, val, _ := strings.Cut(field, "=")
		switch name {
		case "allow_nets":
			for _, n := range strings.Split(val, ",") {
				if _, err := netip.ParsePrefix(n); err == nil || parses(n) {
					row.Networks = append(row.Networks, n)
				} else {
					keepOut = "its allow_nets has something else than networks" // leaving it out would open or close something
				}
			}
		case "nologin", "nopassword", "deny", "proxy", "proxy_maybe", "nodelay":
			if name != "nodelay" {
				keepOut = "it has " + name
			}
		case "userdb_quota_rule", "userdb_quota_storage_size":
			size := val
			if rule, storage, found := strings.Cut(val, ":storage="); found && rule == "*" {
				size = storage
			}
			row.Userdb["quota"] = strings.ToUpper(size)
			if quotaSize(row.Userdb["quota"]) {
				continue
			}
			delete(row.Userdb, "quota")
			out.skip(ref, login, "", "its quota rule is none that can be kept; the rest is taken over")
		default:
			if field, found := strings.CutPrefix(name, "userdb_"); found && val != "" {
				row.Userdb[field] = val
			}
		}
	}
	switch {
	case keepOut != "":
	case row.Hash == "":
		keepOut = "there is no password"
	case row.Hash == "*" || strings.HasPrefix(row.Hash, "!"):
		keepOut = "the password is locked"
	case slices.Contains([]string{"x"}, row.Hash):
		keepOut = "the password is in another file, such as /etc/shadow"
	}
	if keepOut != "" {
		out.skip(ref, login, mainLabel, "%s", keepOut)
		row.Hash = ""
	}
	return out.add(row)
}

func parses(addr string) bool { _, err := netip.ParseAddr(addr); return err == nil }

// quotaSize reports whether it is what the userdb field quota takes.
func quotaSize(s string) bool {
	digits := strings.TrimRight(s, "BKMGT")
	return digits != "" && len(s)-len(digits) <= 1 && strings.Trim(digits, "0123456789") == "" && len(digits) <= 18
}

func cmpString(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
