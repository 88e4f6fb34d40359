package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/secret"
)

// MaxImportBody is how many bytes the body of one import may have: a bounded part of a file, which becomes one transaction.
const MaxImportBody = maxBody

// MaxImportClear is how many rows of one import may have a password in clear: each costs a slow hash.
const MaxImportClear = 100

// Bounds of one import beyond that of its body.
const (
	maxImportRows   = 1000
	maxImportKey    = 900   // bytes
	maxImportRecord = 60000 // bytes of all attributes, and of all userdb fields, of an account
)

// Import is a part of what is taken over from another system. It can be sent again: what is there stays and is reported so.
type Import struct {
	Source string        `json:"source"` // "mailcow"; with a row's key it says what has been taken over before
	DryRun bool          `json:"dry_run,omitempty"`
	Groups []ImportGroup `json:"groups,omitempty"`
	Rows   []ImportRow   `json:"rows"`
}

// ImportGroup is a group that shall be there, without members: rows name the groups that they are in.
type ImportGroup struct {
	Name        string              `json:"name"`
	DisplayName string              `json:"display_name,omitempty"`
	Attributes  map[string][]string `json:"attributes,omitempty"`
	UUID        string              `json:"uuid,omitempty"`
	CreatedAt   *time.Time          `json:"created_at,omitempty"`
}

// ImportRow is an account that shall be there, with at most one app password.
type ImportRow struct {
	Kind        string              `json:"kind,omitempty"` // empty: person
	Login       string              `json:"login"`
	Aliases     []string            `json:"aliases,omitempty"`
	DisplayName string              `json:"display_name,omitempty"`
	Attributes  map[string][]string `json:"attributes,omitempty"`
	Userdb      map[string]string   `json:"userdb,omitempty"`
	Groups      []string            `json:"groups,omitempty"`

	MustExist bool       `json:"must_exist,omitempty"` // leave the row out rather than add the account
	Disabled  bool       `json:"disabled,omitempty"`   // of a new account
	UUID      string     `json:"uuid,omitempty"`       // of a new account
	CreatedAt *time.Time `json:"created_at,omitempty"` // of a new account

	AppPassword *ImportPassword `json:"app_password,omitempty"`
}

// ImportPassword is an app password as another program keeps it: the hash as it is, or the password in clear.
type ImportPassword struct {
	Key       string     `json:"key"` // what it is there, for ever: the id of its row
	Label     string     `json:"label"`
	Hash      string     `json:"hash"`                     // "{SCHEME}...", or of crypt(3)
	Scheme    string     `json:"default_scheme,omitempty"` // of a hash that names none
	Services  []string   `json:"services,omitempty"`
	Networks  []string   `json:"networks,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// ImportOutcomes are what became of the rows, in their order.
type ImportOutcomes struct {
	Outcomes []ImportOutcome `json:"outcomes"`
}

// ImportOutcome is what became of a row. Account and AppPassword are "added", "changed", "there", "skipped" or empty: there was
// none. In a dry run it is what would become of it.
type ImportOutcome struct {
	Login       string   `json:"login"`
	Account     string   `json:"account,omitempty"`
	AppPassword string   `json:"app_password,omitempty"`
	Label       string   `json:"label,omitempty"`
	Why         string   `json:"why,omitempty"`
	Notes       []string `json:"notes,omitempty"`
	Unsalted    bool     `json:"unsalted,omitempty"` // its hash has no salt, until the first login
}

var (
	sourceForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	uuidForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// Import takes over a part of another system, in one transaction. What cannot be taken over is skipped, with the reason, and keeps
// nothing else out; a fault of the request as a whole refuses all of it. The hashes of passwords that are given in clear are made
// here.
func (s *Service) Import(ctx context.Context, n Import, by string) (ImportOutcomes, error) {
	if !sourceForm.MatchString(n.Source) {
		return ImportOutcomes{}, fault("bad_source", "small letters, digits and hyphens, at most 32", "%q is not the name of a source", clip(n.Source))
	}
	if len(n.Rows) > maxImportRows || len(n.Groups) > maxImportRows {
		return ImportOutcomes{}, fault("too_many", "make several calls", "at most %d rows and groups can be imported at a time", maxImportRows)
	}
	in := auth.Import{Source: n.Source, By: by, DryRun: n.DryRun, LimitPerAccount: s.Limit}
	for _, g := range n.Groups {
		group, err := importGroup(g)
		if err != nil {
			return ImportOutcomes{}, err
		}
		in.Groups = append(in.Groups, group)
	}
	out := ImportOutcomes{Outcomes: make([]ImportOutcome, len(n.Rows))}
	clear := map[*auth.ImportedPassword]string{} // passwords to be hashed
	uuids := map[string]bool{}
	var place []int // of in.Rows in n.Rows
	for i, r := range n.Rows {
		row, adopted, skipped, err := importRow(r, s.Now())
		o := &out.Outcomes[i]
		if err == nil && row.UUID != "" && uuids[row.UUID] {
			err = errors.New("its uuid is there twice")
		}
		if err != nil {
			*o = ImportOutcome{Login: auth.Clip(r.Login, 255), Account: auth.ImportSkipped, Why: err.Error()}
			if r.AppPassword != nil {
				o.AppPassword = auth.ImportSkipped
			}
			continue
		}
		uuids[row.UUID] = true
		if skipped != nil {
			o.AppPassword, o.Why = auth.ImportSkipped, skipped.Error()
		}
		o.Unsalted = adopted.Unsalted
		if adopted.Password != "" {
			clear[row.AppPassword] = adopted.Password
		}
		in.Rows, place = append(in.Rows, row), append(place, i)
	}
	if len(clear) > MaxImportClear {
		return ImportOutcomes{}, fault("too_many", "make several calls", "at most %d passwords in clear can be imported at a time", MaxImportClear)
	}
	if len(clear) > 0 && !n.DryRun {
		if err := s.hashNew(ctx, in, clear); err != nil {
			return ImportOutcomes{}, err
		}
	}
	found, err := s.Store.Import(ctx, in)
	if err != nil {
		return ImportOutcomes{}, err
	}
	for j, f := range found {
		o := &out.Outcomes[place[j]]
		o.Login, o.Account, o.Label, o.Notes = f.Login, f.Account, f.Label, f.Notes
		if f.AppPassword != auth.ImportNothing {
			o.AppPassword = f.AppPassword
		}
		if f.Why != "" {
			o.Why = f.Why
		}
		if f.AppPassword != auth.ImportAdded {
			o.Unsalted = false
		}
		if f.Account == auth.ImportSkipped && n.Rows[place[j]].AppPassword != nil {
			o.AppPassword = auth.ImportSkipped
		}
	}
	return out, nil
}

// hashNew hashes the passwords in clear of those rows that would be added, so that an import that runs again costs no slow hashes.
func (s *Service) hashNew(ctx context.Context, in auth.Import, clear map[*auth.ImportedPassword]string) error {
	dry := in
	dry.DryRun = true
	found, err := s.Store.Import(ctx, dry)
	if err != nil {
		return err
	}
	for i, r := range in.Rows {
		password, isClear := clear[r.AppPassword]
		if !isClear {
			continue
		}
		r.AppPassword.Strong = true
		if found[i].AppPassword != auth.ImportAdded {
			continue
		}
		// Compared byte for byte, as every imported one is.
		if err := s.Hashes.Do(ctx, func() { r.AppPassword.PHC = secret.Hash(password) }); err != nil {
			return err
		}
	}
	return nil
}

func importGroup(g ImportGroup) (auth.ImportGroup, error) {
	out := auth.ImportGroup{NewGroup: auth.NewGroup{Attributes: map[string][]string{}}}
	var err error
	if out.Name, err = groupName(g.Name); err != nil {
		return out, err
	}
	if out.DisplayName, err = displayName(g.DisplayName); err != nil {
		return out, err
	}
	for name, values := range g.Attributes {
		if len(values) > 0 {
			out.Attributes[name] = values
		}
	}
	if err := checkAttributes(out.Attributes); err != nil {
		return out, err
	}
	if err := recordSize(out.Attributes, nil); err != nil {
		return out, err
	}
	if g.UUID != "" && !uuidForm.MatchString(g.UUID) {
		return out, fault("bad_uuid", "", "%q is not a UUID", clip(g.UUID))
	}
	out.UUID = g.UUID
	out.CreatedAt, err = past(g.CreatedAt)
	return out, err
}

// importRow checks a row. skipped is why its app password is left out while the account is taken over; err is why nothing of it is.
func importRow(r ImportRow, now time.Time) (row auth.ImportRow, adopted secret.Adopted, skipped, err error) {
	row = auth.ImportRow{MustExist: r.MustExist, Enabled: !r.Disabled, UUID: r.UUID}
	add := auth.NewAccount{Attributes: map[string][]string{}, Userdb: map[string]string{}}
	fail := func(err error) (auth.ImportRow, secret.Adopted, error, error) { return row, secret.Adopted{}, nil, err }
	if add.Kind, err = kind(r.Kind); err != nil {
		return fail(err)
	}
	if add.Login, err = login(r.Login); err != nil {
		return fail(err)
	}
	aliases, err := logins(r.Aliases)
	if err != nil {
		return fail(err)
	}
	add.Aliases = slices.DeleteFunc(aliases, func(a string) bool { return a == add.Login })
	if add.DisplayName, err = displayName(r.DisplayName); err != nil {
		return fail(err)
	}
	for name, values := range r.Attributes {
		if len(values) > 0 {
			add.Attributes[name] = values
		}
	}
	if err := checkAttributes(add.Attributes); err != nil {
		return fail(err)
	}
	if err := checkUserdb(r.Userdb, false); err != nil {
		return fail(err)
	}
	for name, value := range r.Userdb {
		add.Userdb[name] = value
	}
	if err := recordSize(add.Attributes, add.Userdb); err != nil {
		return fail(err)
	}
	if r.UUID != "" && !uuidForm.MatchString(r.UUID) {
		return fail(fault("bad_uuid", "", "%q is not a UUID", clip(r.UUID)))
	}
	if row.CreatedAt, err = past(r.CreatedAt); err != nil {
		return fail(err)
	}
	if len(r.Groups) > auth.MaxGroups {
		return fail(fault("too_many", "", "a person is in at most %d groups", auth.MaxGroups))
	}
	for _, name := range r.Groups {
		g, err := groupName(name)
		if err != nil {
			return fail(err)
		}
		if !slices.Contains(row.Groups, g) {
			row.Groups = append(row.Groups, g)
		}
	}
	slices.Sort(row.Groups)
	row.Account = add
	if r.AppPassword != nil {
		row.AppPassword, adopted, skipped = importPassword(*r.AppPassword, now)
	}
	return row, adopted, skipped, nil
}

// importPassword checks an app password. Its errors quote nothing of the hash.
func importPassword(p ImportPassword, now time.Time) (*auth.ImportedPassword, secret.Adopted, error) {
	out := &auth.ImportedPassword{Key: p.Key}
	var err error
	fail := func(err error) (*auth.ImportedPassword, secret.Adopted, error) { return nil, secret.Adopted{}, err }
	if p.Key == "" || len(p.Key) > maxImportKey || !utf8.ValidString(p.Key) || strings.ContainsFunc(p.Key, unicode.IsControl) {
		return fail(errors.New("it has no key by which it would be known again, or one that is too long"))
	}
	if out.Label, out.LabelKey, err = label(p.Label); err != nil {
		return fail(err)
	}
	if len(p.Services) > auth.MaxServices || len(p.Networks) > maxEntries {
		return fail(fmt.Errorf("an app password has at most %d services and %d networks", auth.MaxServices, maxEntries))
	}
	for _, service := range p.Services {
		v, err := auth.NormaliseService(service)
		if err != nil {
			return fail(fmt.Errorf("service %q: %w", clip(service), err))
		}
		if !slices.Contains(out.Services, v) {
			out.Services = append(out.Services, v)
		}
	}
	for _, network := range p.Networks {
		n, err := parseNetwork(network)
		if err != nil {
			return fail(err)
		}
		if !slices.ContainsFunc(out.Networks, func(o netip.Prefix) bool { return o == n }) {
			out.Networks = append(out.Networks, n)
		}
	}
	if out.CreatedAt, err = past(p.CreatedAt); err != nil {
		return fail(err)
	}
	if p.ExpiresAt != nil {
		if !p.ExpiresAt.After(now) {
			return fail(fmt.Errorf("it expired at %s", p.ExpiresAt.Format(time.RFC3339)))
		}
		if p.ExpiresAt.Year() > 9999 {
			return fail(errors.New("it would expire beyond the year 9999"))
		}
		out.ExpiresAt = *p.ExpiresAt
	}
	adopted, err := secret.Adopt(p.Hash, p.Scheme)
	if err != nil {
		return fail(fmt.Errorf("its hash cannot be taken over: %w", err))
	}
	if adopted.Password != "" && (len(adopted.Password) > auth.MaxPassword || strings.ContainsRune(adopted.Password, 0)) {
		return fail(fmt.Errorf("its password is longer than %d bytes, or has a NUL", auth.MaxPassword))
	}
	out.PHC, out.Strong = adopted.Stored, secret.Strong(adopted.Stored)
	return out, adopted, nil
}

// past reads the time that something was made. Nil is the zero time. Postgres has no year 0, and nothing was made then.
func past(t *time.Time) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, fault("bad_time", "", "it cannot have been made in the year %d", t.Year())
	}
	return *t, nil
}

func recordSize(records ...any) error {
	for _, r := range records {
		if text, err := json.Marshal(r); err != nil || len(text) > maxImportRecord {
			return fault("too_many", "", "its attributes or userdb fields are longer than %d bytes together", maxImportRecord)
		}
	}
	return nil
}

func (s *Server) importRoutes() []route {
	return []route{{method: "POST", path: "/v1/import", handle: s.postImport, needs: mayManage}}
}

func (s *Server) postImport(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) {
		n, err := read[Import](r)
		if err != nil {
			return nil, err
		}
		return v.Import(r.Context(), n, actor(r))
	})
}

// Import sends a part of an import.
func (c *Client) Import(ctx context.Context, n Import) (ImportOutcomes, error) {
	return ask[ImportOutcomes](ctx, c, "POST", "/v1/import", nil, n)
}
