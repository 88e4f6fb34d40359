package config

import (
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// reader takes typed values out of a decoded table and collects the faults. Decoding straight into a struct would stop at the
// first value of a wrong type.
type reader struct {
	name   string // "ldap[1]", or "" at the top
	table  map[string]any
	known  []string
	subsOf []*reader
	parent *reader
	faults Faults // at the top only
}

func (r *reader) fault(key, format string, args ...any) {
	top := r
	for top.parent != nil {
		top = top.parent
	}
	if r.name != "" {
		key = r.name + "." + key
	}
	top.faults = append(top.faults, Fault{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) value(key string) (any, bool) {
	r.known = append(r.known, key)
	v, found := r.table[key]
	return v, found
}

func typed[T any](r *reader, key, kind string, fallback T) T {
	v, found := r.value(key)
	if !found {
		return fallback
	}
	t, ok := v.(T)
	if !ok {
		r.fault(key, "it must be %s", kind)
		return fallback
	}
	return t
}

func (r *reader) text(key, fallback string) string { return typed(r, key, "text in quotes", fallback) }

func (r *reader) yes(key string) bool { return typed(r, key, "true or false", false) }

func (r *reader) number(key string, fallback int) int {
	return int(typed(r, key, "a whole number", int64(fallback)))
}

func (r *reader) path(key, fallback string) string {
	p := r.text(key, fallback)
	if !filepath.IsAbs(p) {
		r.fault(key, "%q is not an absolute path", p)
	}
	return filepath.Clean(p)
}

// mode reads an octal file mode, written as text since TOML's 0660 is no number.
func (r *reader) mode(key, fallback string) fs.FileMode {
	s := r.text(key, fallback)
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		r.fault(key, "%q is not an octal mode such as \"0660\"", s)
	}
	return fs.FileMode(n)
}

func (r *reader) address(key, fallback string) Address {
	a, err := ParseAddress(r.text(key, fallback))
	if err != nil {
		r.fault(key, "%v", err)
	}
	return a
}

// sub returns the reader of [key].
func (r *reader) sub(key string) *reader {
	s := &reader{name: key, parent: r, table: map[string]any{}}
	if r.name != "" {
		s.name = r.name + "." + key
	}
	if v, found := r.value(key); found {
		if t, ok := v.(map[string]any); ok {
			s.table = t
		} else {
			r.fault(key, "it must be a section: write [%s] on a line of its own", key)
		}
	}
	r.subsOf = append(r.subsOf, s)
	return s
}

// optional returns the reader of [key], or nil if there is no such section.
func (r *reader) optional(key string) *reader {
	if _, found := r.value(key); !found {
		return nil
	}
	return r.sub(key)
}

// minSecret is the shortest secret that two servers share, in bytes.
const minSecret = 16

// secretFile reads the path of a file and returns the first line of the file.
func (r *reader) secretFile(key string, required bool) string {
	path := r.text(key, "")
	if path == "" {
		if required {
			r.fault(key, "it is missing; make one: (umask 077; head -c 18 /dev/urandom | base64 > FILE)")
		}
		return ""
	}
	if !filepath.IsAbs(path) {
		r.fault(key, "%q is not an absolute path", path)
		return ""
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		r.fault(key, "%s is not a file", path)
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.fault(key, "%v", err)
		return ""
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		r.fault(key, "everybody may read %s; run: chmod o= %s", path, path)
	}
	secret, _, _ := strings.Cut(string(text), "\n")
	if secret = strings.TrimSpace(secret); len(secret) < minSecret {
		r.fault(key, "the first line of %s has fewer than %d characters", path, minSecret)
	}
	return secret
}

// texts reads a list of texts.
func (r *reader) texts(key string) []string {
	var out []string
	for _, v := range typed(r, key, "a list of texts in quotes", []any(nil)) {
		text, ok := v.(string)
		if !ok {
			r.fault(key, "%v is not text in quotes", v)
		}
		out = append(out, text)
	}
	return out
}

// networks reads a list of addresses and networks.
func (r *reader) networks(key string) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range typed(r, key, "a list of networks in quotes", []any(nil)) {
		text, _ := v.(string)
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			r.fault(key, "%v is not a network; write \"192.0.2.0/24\" or an address", v)
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}

// subs returns the readers of every [[key]].
func (r *reader) subs(key string) []*reader {
	v, found := r.value(key)
	if !found {
		return nil
	}
	tables, ok := v.([]map[string]any)
	if !ok {
		r.fault(key, "it must be a list of sections: write [[%s]] on a line of its own", key)
		return nil
	}
	var out []*reader
	for i, t := range tables {
		name := fmt.Sprintf("%s[%d]", key, i+1)
		if r.name != "" {
			name = r.name + "." + name
		}
		out = append(out, &reader{name: name, parent: r, table: t})
	}
	r.subsOf = append(r.subsOf, out...)
	return out
}

// absent stands for a [[key]] that the file does not have.
func (r *reader) absent(key string) *reader {
	return &reader{name: key, parent: r, table: map[string]any{}}
}

// unknown adds a fault for each key that nothing asked for.
func (r *reader) unknown() {
	for _, key := range slices.Sorted(maps.Keys(r.table)) {
		if !slices.Contains(r.known, key) {
			slices.Sort(r.known)
			r.fault(key, "unknown key; known here: %s", join(r.known))
		}
	}
	for _, s := range r.subsOf {
		s.unknown()
	}
}

func join(keys []string) string {
	out := ""
	for i, k := range slices.Compact(keys) {
		if i > 0 {
			out += ", "
		}
		out += k
	}
	return out
}
