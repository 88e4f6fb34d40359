package notice

import (
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/valetkey/valetkey/internal/auth"
)

// Event is what a hook reads as JSON on its standard input and what a template may print. Texts hold no control characters.
type Event struct {
	ID    int64     `json:"id"` // of the audit log
	Event string    `json:"event"`
	Test  bool      `json:"test,omitempty"` // nothing has happened: an admin tries whether notices arrive
	At    time.Time `json:"at"`
	By    string    `json:"by,omitempty"` // who did it: a user of the machine; empty: a login did

	Login       string `json:"login"`
	AccountUUID string `json:"account_uuid,omitempty"` // empty: the account is gone
	DisplayName string `json:"display_name,omitempty"`
	Mail        string `json:"mail,omitempty"` // the user's address; empty: none is known

	Label     string     `json:"label,omitempty"` // of the app password; empty: it is about the account
	Services  []string   `json:"services,omitempty"`
	Networks  []string   `json:"networks,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Why       string     `json:"why,omitempty"` // of a revocation

	// Of a use.
	Service  string `json:"service,omitempty"`
	FrontEnd string `json:"front_end,omitempty"`
	Address  string `json:"address,omitempty"`
	Network  string `json:"network,omitempty"`
}

// Name is what to call the user.
func (e Event) Name() string {
	if e.DisplayName != "" {
		return e.DisplayName
	}
	return e.Login
}

// event makes one of a notice.
func event(n auth.Notice) Event {
	e := Event{
		ID: n.EventID, Event: string(n.Kind), Test: n.Test(), At: n.At.UTC(), By: clean(n.Actor), Login: clean(n.Login), Label: clean(n.Label),
		Why: text(n.Detail, "why"), Service: text(n.Detail, "service"), FrontEnd: text(n.Detail, "front_end"),
		Address: text(n.Detail, "address"), Network: text(n.Detail, "network"), Services: texts(n.Detail, "services"), Networks: texts(n.Detail, "networks"),
	}
	if end, err := time.Parse(time.RFC3339Nano, text(n.Detail, "expires_at")); err == nil && end.Year() > 1 {
		end = end.UTC()
		e.ExpiresAt = &end
	}
	if n.Account != nil {
		e.AccountUUID, e.DisplayName, e.Mail = n.Account.UUID, clean(n.Account.DisplayName), recipient(n.Account)
	} else {
		e.Mail = address(n.Login)
	}
	return e
}

func text(detail map[string]any, key string) string {
	s, _ := detail[key].(string)
	return clean(s)
}

func texts(detail map[string]any, key string) (list []string) {
	values, _ := detail[key].([]any)
	for _, v := range values {
		if s, ok := v.(string); ok {
			list = append(list, clean(s))
		}
	}
	return list
}

// maxText bounds each text of an event, in bytes.
const maxText = 1024

// clean takes out what could steer a terminal, a header or the eye: control characters, and those that turn the direction of
// writing (Unicode TR 36 section 3.2). Line ends become spaces.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.IsControl(r), '\u202a' <= r && r <= '\u202e', '\u2066' <= r && r <= '\u2069', r == '\u200e', r == '\u200f', r == '\ufeff':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	return auth.Clip(s, maxText)
}

// recipient is the user's mail address: the attribute mail, the userdb field mail if it is an address, or a login that is one.
func recipient(a *auth.Account) string {
	var candidates []string
	for name, values := range a.Attributes {
		if strings.EqualFold(name, "mail") {
			candidates = append(candidates, values...)
		}
	}
	candidates = append(candidates, a.Userdb["mail"], a.Login)
	if i := slices.IndexFunc(candidates, func(c string) bool { return address(c) != "" }); i >= 0 {
		return address(candidates[i])
	}
	return ""
}

// plainAddress is an addr-spec of RFC 5322 without quoting, comments and address literals, with a domain: what can stand in a header and
// behind a command's -- as it is.
var plainAddress = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_` + "`" + `{|}~][A-Za-z0-9.!#$%&'*+/=?^_` + "`" + `{|}~-]*@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// address returns s if it is a mail address that every server takes, in ASCII, else "".
func address(s string) string {
	if len(s) > 254 || !plainAddress.MatchString(s) || strings.Contains(s, "..") {
		return ""
	}
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
		return ""
	}
	return s
}
