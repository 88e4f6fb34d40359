package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// Store keeps accounts and app passwords. Logins and label keys that it is given are normalised; "by" is who does it, for the
// audit log. Its errors wrap the sentinels of package auth where a caller can act on them; any other means that it is not
// known whether the change was made.
type Store interface {
	AddAccount(ctx context.Context, n auth.NewAccount, by string) (auth.Account, error)
	Account(ctx context.Context, login string) (auth.Account, error)
	Accounts(ctx context.Context, kind auth.Kind, after string, limit int) ([]auth.Account, error)
	ChangeAccount(ctx context.Context, login string, c auth.AccountChange, by string) (auth.Account, error)
	DeleteAccount(ctx context.Context, login, by string) error

	AddGroup(ctx context.Context, n auth.NewGroup, by string) (auth.Group, error)
	Group(ctx context.Context, name string) (auth.Group, error)
	Groups(ctx context.Context, after string, limit int) ([]auth.Group, error)
	ChangeGroup(ctx context.Context, name string, c auth.GroupChange, by string) (auth.Group, error)
	DeleteGroup(ctx context.Context, name, by string) error

	Tags(ctx context.Context, login string) ([]auth.Tag, error)
	AddAppPassword(ctx context.Context, n auth.NewAppPassword) (auth.AppPassword, error)
	AppPasswords(ctx context.Context, login string, all bool) ([]auth.AppPassword, error)
	AppPassword(ctx context.Context, login, key string) (p auth.AppPassword, old *auth.AppPassword, err error)
	ChangeAppPassword(ctx context.Context, login, key string, c auth.AppPasswordChange, by string) (auth.AppPassword, error)
	RotateAppPassword(ctx context.Context, login, key string, r auth.Rotation) (now auth.AppPassword, old *auth.AppPassword, err error)
	RevokeAppPassword(ctx context.Context, login, key, why, by string) (auth.AppPassword, error)
	ExemptAppPassword(ctx context.Context, login, key, why, by string) (auth.AppPassword, error)

	Attempts(ctx context.Context, login string) ([]auth.PastAttempt, error)
	Events(ctx context.Context, f auth.EventFilter, before int64) ([]auth.Event, error)
	EventsAfter(ctx context.Context, f auth.EventFilter, after int64) (all []auth.Event, next int64, err error)
	LastEvent(ctx context.Context) (int64, error)
	FindAppPasswords(ctx context.Context, f auth.AppPasswordFilter, order auth.Order, after string, limit int) (auth.AppPasswordPage, error)
	RevokeAppPasswords(ctx context.Context, f auth.AppPasswordFilter, after string, limit int, why, by string) (auth.AppPasswordPage, error)

	Import(ctx context.Context, n auth.Import) ([]auth.ImportOutcome, error)

	NoticeTargets(ctx context.Context) ([]auth.NoticeTarget, error)
	TestNotice(ctx context.Context, login, target string, kind auth.NoticeKind, by string) (auth.NoticeTest, error)
	NoticeTest(ctx context.Context, id int64) (auth.NoticeTest, error)
}

// Upstream is a directory whose users may have app passwords although they have no account yet.
type Upstream interface {
	// Canonical returns the login under which the account is to be kept, normalised. [auth.ErrNoAccount] and
	// [auth.ErrAmbiguous] are clear answers; any other error means that it is not known.
	Canonical(ctx context.Context, login string) (string, error)
}

// Service does what an admin asks for.
type Service struct {
	Store  Store
	Ring   *secret.Ring
	Hashes *auth.Admission // shared with the logins, so that issuing cannot starve them
	Length int             // letters of a new secret
	Limit  int             // live app passwords per account
	Now    func() time.Time

	Upstream Upstream // nil: none

	Enrolments    Enrolments // nil: nobody knows who has a second factor, and nobody is asked
	EnrolmentHelp string     // what a user without one has to do, in a sentence after a colon; empty: "enrol one"

	Throttle ThrottleTeller // nil: nothing is slowed down

	Mail MailSettings // of the configuration: without a user
}

// Fault is a request that cannot be carried out as it is: the caller's doing, with a cure.
type Fault struct {
	Code    string // for programs: "bad_label"
	Message string
	Hint    string
}

// Error is the message.
func (f *Fault) Error() string { return f.Message }

// Unavailable is a request that cannot be carried out now. The cause is for the log.
type Unavailable struct {
	Message string
	Cause   error
	Hint    string // empty: to try again
}

// Error has the cause.
func (u *Unavailable) Error() string { return u.Message + ": " + u.Cause.Error() }

func fault(code, hint, format string, args ...any) error {
	return &Fault{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Bounds of what an admin can store.
const (
	maxText     = 256 // characters of a display name, an attribute's value, a reason
	maxEntries  = 64  // aliases, networks, attributes, values
	maxMembers  = 500 // who come or go in one call
	maxPage     = 1000
	maxLimit    = 1000 // live app passwords of an account
	drawAttempt = 1000 // secrets drawn before giving up: 65,536 tags, at most 1,000 live rows
)

func login(name string) (string, error) {
	n, err := auth.NormaliseLogin(name)
	if err != nil {
		return "", fault("bad_login", "a login has no spaces and no control characters", "%q: %v", clip(name), err)
	}
	return n, nil
}

func label(text string) (shown, key string, err error) {
	shown, key, err = auth.CheckLabel(text)
	if err != nil {
		return "", "", fault("bad_label", fmt.Sprintf("a label has 1 to %d characters, any script, on one line", auth.MaxLabel), "%q: %v", clip(text), err)
	}
	return shown, key, nil
}

func clip(s string) string { return auth.Clip(s, 80) }

// size is what Dovecot 2.3 and 2.4 both take for one; without a letter it is bytes.
var size = regexp.MustCompile(`^[0-9]{1,18}[BKMGT]?$`)

func printable(what, s string) error {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) {
		return fault("bad_text", "", "%s must be at most %d characters on one line", what, maxText)
	}
	return nil
}

// AddAccount adds an account. A login or alias that is taken is [auth.ErrLoginTaken].
func (s *Service) AddAccount(ctx context.Context, n NewAccount, by string) (Account, error) {
	add := auth.NewAccount{Attributes: map[string][]string{}, Userdb: map[string]string{}}
	var err error
	if add.Kind, err = kind(n.Kind); err != nil {
		return Account{}, err
	}
	if add.Login, err = login(n.Login); err != nil {
		return Account{}, err
	}
	aliases, err := logins(n.Aliases)
	if err != nil {
		return Account{}, err
	}
	add.Aliases = slices.DeleteFunc(aliases, func(a string) bool { return a == add.Login })
	if add.DisplayName, err = displayName(n.DisplayName); err != nil {
		return Account{}, err
	}
	for name, values := range n.Attributes {
		if len(values) > 0 {
			add.Attributes[name] = values
		}
	}
	if err := checkAttributes(add.Attributes); err != nil {
		return Account{}, err
	}
	if err := checkUserdb(n.Userdb, false); err != nil {
		return Account{}, err
	}
	maps.Copy(add.Userdb, n.Userdb)
	a, err := s.Store.AddAccount(ctx, add, by)
	if err != nil {
		return Account{}, err
	}
	return accountView(a), nil
}

// kind reads an account's kind. Empty is a person.
func kind(text string) (auth.Kind, error) {
	switch text {
	case "", KindPerson:
		return auth.Person, nil
	case KindReader:
		return auth.Reader, nil
	}
	return 0, fault("bad_kind", "", "%q is not a kind of account: write %s or %s", clip(text), KindPerson, KindReader)
}

// logins normalises some logins and returns each once.
func logins(names []string) ([]string, error) {
	if len(names) > maxEntries {
		return nil, fault("too_many", "", "at most %d logins can be given at a time", maxEntries)
	}
	var out []string
	for _, name := range names {
		l, err := login(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out, nil
}

func displayName(text string) (string, error) {
	text = strings.TrimSpace(text)
	return text, printable("the display name", text)
}

func checkAttributes(attributes map[string][]string) error {
	if len(attributes) > maxEntries {
		return fault("too_many", "", "at most %d attributes are allowed", maxEntries)
	}
	seen := map[string]string{}
	for name, values := range attributes {
		if !attributeName(name) {
			return fault("bad_attribute", "letters, digits and hyphens; nothing that holds a password", "%q is not an attribute that an entry may have", clip(name))
		}
		folded := strings.ToLower(name)
		if other, twice := seen[folded]; twice {
			return fault("bad_attribute", "case does not matter in the names of attributes", "%s and %s are the same attribute", min(name, other), max(name, other))
		}
		seen[folded] = name
		if len(values) > maxEntries {
			return fault("too_many", "", "attribute %s has more than %d values", name, maxEntries)
		}
		for _, v := range values {
			if v == "" {
				return fault("bad_attribute", "", "attribute %s has an empty value", name)
			}
			if err := printable("a value of "+name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkUserdb checks fields. Where a change takes the empty ones away, they have no value to be checked.
func checkUserdb(fields map[string]string, emptyGoes bool) error {
	if len(fields) > maxEntries {
		return fault("too_many", "", "at most %d userdb fields are allowed", maxEntries)
	}
	for name, v := range fields {
		if !attributeName(name) {
			return fault("bad_userdb", "letters, digits, hyphens and underscores", "%q is not a userdb field", clip(name))
		}
		if err := printable("userdb field "+name, v); err != nil {
			return err
		}
		// Every peer is given it, each in a form of its own, and an odd one keeps the user out of Dovecot.
		if name == "quota" && (v != "" || !emptyGoes) && !size.MatchString(v) {
			return fault("bad_userdb", "digits, and K, M, G or T behind them unless they are bytes: quota=5G", "%q is not a size", clip(v))
		}
	}
	return nil
}

// checkSize holds an account to the bounds that a change by itself cannot show.
func checkSize(aliases, attributes, fields int) error {
	if aliases > maxEntries || attributes > maxEntries || fields > maxEntries {
		return fault("too_many", "", "an account has at most %d aliases, attributes and userdb fields each", maxEntries)
	}
	return nil
}

// attributeName accepts RFC 4512 keystrings and underscores, and refuses what directories keep passwords in.
func attributeName(s string) bool {
	if s == "" || len(s) > 64 || !('a' <= s[0]|0x20 && s[0]|0x20 <= 'z') {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	switch strings.ToLower(s) {
	case "userpassword", "unicodepwd", "sambantpassword", "sambalmpassword", "krbprincipalkey", "authpassword", "password":
		return false
	}
	return true
}

// Account returns an account by its login or one of its aliases.
func (s *Service) Account(ctx context.Context, name string) (Account, error) {
	l, err := login(name)
	if err != nil {
		return Account{}, err
	}
	a, err := s.Store.Account(ctx, l)
	if err != nil {
		return Account{}, err
	}
	return accountView(a), nil
}

// Accounts returns a page of accounts of one kind whose login sorts after the given one; limit 0 means the largest page.
func (s *Service) Accounts(ctx context.Context, kindName, after string, limit int) (Accounts, error) {
	k, err := kind(kindName)
	if err != nil {
		return Accounts{}, err
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	found, err := s.Store.Accounts(ctx, k, after, limit)
	if err != nil {
		return Accounts{}, err
	}
	page := Accounts{Accounts: make([]Account, len(found))}
	for i, a := range found {
		page.Accounts[i] = accountView(a)
	}
	if len(found) == limit {
		page.Next = found[len(found)-1].Login
	}
	return page, nil
}

// PatchAccount changes an account, all or nothing, and returns what it is now.
func (s *Service) PatchAccount(ctx context.Context, name string, p AccountPatch, by string) (Account, error) {
	l, err := login(name)
	if err != nil {
		return Account{}, err
	}
	c := auth.AccountChange{Enabled: p.Enabled, Attributes: p.Attributes, Userdb: p.Userdb}
	if p.DisplayName != nil {
		text, err := displayName(*p.DisplayName)
		if err != nil {
			return Account{}, err
		}
		c.DisplayName = &text
	}
	if p.Limit != nil {
		if *p.Limit < 0 || *p.Limit > maxLimit {
			return Account{}, fault("bad_limit", "0 means as many as the configuration says", "an account can have 1 to %d app passwords, not %d", maxLimit, *p.Limit)
		}
		c.Limit = p.Limit
	}
	if err := checkAttributes(c.Attributes); err != nil {
		return Account{}, err
	}
	if err := checkUserdb(c.Userdb, true); err != nil {
		return Account{}, err
	}
	if c.AddAliases, err = logins(p.AddAliases); err != nil {
		return Account{}, err
	}
	if c.RemoveAliases, err = logins(p.RemoveAliases); err != nil {
		return Account{}, err
	}
	if len(c.AddAliases)+len(c.Attributes)+len(c.Userdb) > 0 {
		// Two admins at once may go beyond; the database has bounds of its own.
		a, err := s.Store.Account(ctx, l)
		if err != nil {
			return Account{}, err
		}
		if err := checkSize(added(a.Aliases, c.AddAliases), added(slices.Collect(maps.Keys(a.Attributes)), slices.Collect(maps.Keys(c.Attributes))),
			added(slices.Collect(maps.Keys(a.Userdb)), slices.Collect(maps.Keys(c.Userdb)))); err != nil {
			return Account{}, err
		}
	}
	a, err := s.Store.ChangeAccount(ctx, l, c, by)
	if err != nil {
		return Account{}, err
	}
	return accountView(a), nil
}

// added returns how many there would be with the new ones.
func added(old, more []string) int {
	n := len(old)
	for _, m := range more {
		if !slices.ContainsFunc(old, func(o string) bool { return strings.EqualFold(o, m) }) {
			n++
		}
	}
	return n
}

// DeleteAccount deletes an account with its app passwords. With a kind, an account of the other one is as unknown.
func (s *Service) DeleteAccount(ctx context.Context, name, kindName, by string) error {
	l, err := login(name)
	if err != nil {
		return err
	}
	if kindName != "" {
		want, err := kind(kindName)
		if err != nil {
			return err
		}
		a, err := s.Store.Account(ctx, l)
		if err != nil {
			return err
		}
		if a.Kind != want {
			return fault("not_found", "valetkey account show LOGIN says what it is", "%s is not a %s", clip(l), kindName)
		}
	}
	return s.Store.DeleteAccount(ctx, l, by)
}

// Create issues an app password. The secret is in the answer and nowhere else. For a user of the upstream who has no account
// yet, it makes the account too.
func (s *Service) Create(ctx context.Context, name string, n NewAppPassword, by string) (Created, error) {
	l, err := login(name)
	if err != nil {
		return Created{}, err
	}
	add := auth.NewAppPassword{Login: l, Origin: auth.Generated, CreatedBy: by, LimitPerAccount: s.Limit}
	if add.Label, add.LabelKey, err = label(n.Label); err != nil {
		return Created{}, err
	}
	if add.Services, err = services(n.Services); err != nil {
		return Created{}, err
	}
	if add.Networks, err = networks(n.Networks); err != nil {
		return Created{}, err
	}
	if n.ExpiresAt != nil {
		if !n.ExpiresAt.After(s.Now()) {
			return Created{}, fault("bad_expiry", "", "it would expire at %s, which has passed", n.ExpiresAt.Format(time.RFC3339))
		}
		add.ExpiresAt = *n.ExpiresAt
	}
	if n.ExpiresUnusedFor != "" {
		if add.ExpiresUnusedFor, err = unusedFor(n.ExpiresUnusedFor); err != nil {
			return Created{}, err
		}
	}

	if n.ExemptBecause != "" {
		if add.ExemptWhy, err = exemptionReason(n.ExemptBecause); err != nil {
			return Created{}, err
		}
	} else if err := s.mayIssueTo(ctx, add.Login); err != nil && !(errors.Is(err, auth.ErrNoAccount) && s.Upstream != nil) {
		return Created{}, err
	}

	// The account's tags are known before a secret is drawn, so that no two of its rows share one and a login costs at most
	// one slow hash. The store checks again, in the transaction, against one that was issued meanwhile.
	for range 5 {
		taken, err := s.Store.Tags(ctx, add.Login)
		if errors.Is(err, auth.ErrNoAccount) && s.Upstream != nil && !add.MakeAccount {
			if add.Login, err = s.known(ctx, l); err != nil {
				return Created{}, err
			}
			add.MakeAccount = true
			if add.ExemptWhy == "" {
				if err := s.mayIssueTo(ctx, add.Login); errors.Is(err, auth.ErrNoAccount) {
					err = s.mayIssue(ctx, 0, add.Login)
					if err != nil {
						return Created{}, err
					}
				} else if err != nil {
					return Created{}, err
				}
			}
			taken, err = s.Store.Tags(ctx, add.Login)
		}
		if err != nil && !(add.MakeAccount && errors.Is(err, auth.ErrNoAccount)) {
			return Created{}, err
		}
		text, tag, err := s.draw(taken)
		if err != nil {
			return Created{}, err
		}
		add.Tag = &tag
		if err := s.Hashes.Do(ctx, func() { add.PHC = secret.Hash(text) }); err != nil {
			return Created{}, err
		}
		p, err := s.Store.AddAppPassword(ctx, add)
		if errors.Is(err, auth.ErrTagTaken) || add.MakeAccount && errors.Is(err, auth.ErrLoginTaken) { // somebody was faster
			continue
		}
		if err != nil {
			return Created{}, err
		}
		return Created{AppPassword: appPasswordView(p), Secret: secret.Format(text)}, nil
	}
	return Created{}, fmt.Errorf("issuing an app password: %w again and again", auth.ErrTagTaken)
}

// known asks the upstream for the user with this login.
func (s *Service) known(ctx context.Context, login string) (string, error) {
	canonical, err := s.Upstream.Canonical(ctx, login)
	switch {
	case errors.Is(err, auth.ErrNoAccount):
		return "", fault("no_account", "the login must be the value of login_attribute in one entry that user_filter matches; valetkey account add LOGIN adds an account that the directory does not have",
			"neither an account nor a user of the upstream directory is named %q", clip(login))
	case errors.Is(err, auth.ErrAmbiguous):
		return "", fault("ambiguous", "give each of them a login of its own, or narrow user_filter or bases", "several entries of the upstream directory have the login %q", clip(login))
	case err != nil:
		return "", &Unavailable{Message: "the upstream directory could not be asked whether there is such a user", Cause: err}
	}
	return canonical, nil
}

func (s *Service) draw(taken []auth.Tag) (text string, tag auth.Tag, err error) {
	for range drawAttempt {
		text = secret.Generate(s.Length)
		if tag = s.Ring.Tag(text); !slices.Contains(taken, tag) {
			return text, tag, nil
		}
	}
	return "", auth.Tag{}, errors.New("issuing an app password: no free tag was drawn; the account has too many rows")
}

func parseNetwork(text string) (netip.Prefix, error) {
	hint := "for example 192.0.2.0/24, 2001:db8::/32 or a single address"
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fault("bad_network", hint, "%q is not a network", clip(text))
	}
	if p.Addr().Is4In6() {
		return p, fault("bad_network", hint, "%q: write an IPv4 network as such", clip(text))
	}
	if p != p.Masked() {
		return p, fault("bad_network", "did you mean "+p.Masked().String()+"?", "%q has bits set beyond its length", clip(text))
	}
	return p, nil
}

// AppPasswords returns the live app passwords of an account, or with the tombstones if all is set.
func (s *Service) AppPasswords(ctx context.Context, name string, all bool) (AppPasswords, error) {
	l, err := login(name)
	if err != nil {
		return AppPasswords{}, err
	}
	found, err := s.Store.AppPasswords(ctx, l, all)
	if err != nil {
		return AppPasswords{}, err
	}
	out := AppPasswords{AppPasswords: make([]AppPassword, len(found))}
	for i, p := range found {
		out.AppPasswords[i] = appPasswordView(p)
	}
	return out, nil
}
