package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// ErrBadLogin is wrapped by every error of [NormaliseLogin].
var ErrBadLogin = errors.New("not a login name")

// NormaliseLogin maps a name to the one form that lookup, throttle, cache and log use, by the UsernameCaseMapped
// profile of PRECIS (RFC 8265 section 3.3). It is idempotent. The error wraps [ErrBadLogin]; no account can have
// such a name.
func NormaliseLogin(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%w: empty", ErrBadLogin)
	}
	if len(name) > MaxLogin {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrBadLogin, MaxLogin)
	}
	// Nearly every login is printable ASCII, for which the profile is plain lower-casing: all of U+0021..U+007E is
	// allowed (RFC 8264 section 9.11). TestNormaliseLoginASCII holds this path to the library's answers.
	upper := false
	ascii := true
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c <= ' ' || c >= 0x7f {
			ascii = false
			break
		}
		upper = upper || 'A' <= c && c <= 'Z'
	}
	if ascii {
		if upper {
			return strings.ToLower(name), nil
		}
		return name, nil
	}
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("%w: invalid UTF-8", ErrBadLogin)
	}
	out, err := precis.UsernameCaseMapped.String(name)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrBadLogin, err)
	}
	if len(out) > MaxLogin {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrBadLogin, MaxLogin)
	}
	return out, nil
}

// MaxLabel is the longest label, in characters.
const MaxLabel = 64

// ErrBadLabel is wrapped by every error of [CheckLabel].
var ErrBadLabel = errors.New("not a label")

// CheckLabel trims a label and returns it with the key by which labels are compared: the Nickname profile of PRECIS
// (RFC 8266), which folds case and inner space. A label is what a person types, any script, no control characters and none that change
// the direction of what follows. Emoji may be made of several characters; what only joins them or chooses their look is not in the key.
func CheckLabel(label string) (shown, key string, err error) {
	if len(label) > 16*MaxLabel {
		return "", "", fmt.Errorf("%w: longer than %d characters", ErrBadLabel, MaxLabel)
	}
	shown = norm.NFC.String(strings.TrimSpace(label))
	switch {
	case !utf8.ValidString(label):
		return "", "", fmt.Errorf("%w: invalid UTF-8", ErrBadLabel)
	case shown == "":
		return "", "", fmt.Errorf("%w: empty", ErrBadLabel)
	case utf8.RuneCountInString(shown) > MaxLabel:
		return "", "", fmt.Errorf("%w: longer than %d characters", ErrBadLabel, MaxLabel)
	}
	key, err = precis.Nickname.CompareKey(bareEmoji(shown))
	if err != nil {
		return "", "", fmt.Errorf("%w: it holds a character that is not allowed in a label, such as a control character", ErrBadLabel)
	}
	return shown, key, nil
}

// bareEmoji drops the variation selectors 15 and 16, which keyboards put behind many symbols, and joiners between symbols (UTS 51). PRECIS
// knows neither. Joiners of scripts stay, which it knows (RFC 5892 appendix A).
func bareEmoji(s string) string {
	if !strings.ContainsAny(s, "\ufe0e\ufe0f\u200d") {
		return s
	}
	symbol := func(r rune) bool { return unicode.In(r, unicode.So, unicode.Sk) }
	text := []rune(strings.NewReplacer("\ufe0e", "", "\ufe0f", "").Replace(s))
	var b strings.Builder
	for i, r := range text {
		if r == '\u200d' && i > 0 && i+1 < len(text) && symbol(text[i-1]) && symbol(text[i+1]) {
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ErrBadService is wrapped by every error of [NormaliseService].
var ErrBadService = errors.New("not a service name")

// NormaliseService lower-cases a service name and checks it: 1 to [MaxService] of a-z 0-9 . _ -.
func NormaliseService(name string) (string, error) {
	if name == "" || len(name) > MaxService {
		return "", fmt.Errorf("%w: it must have 1 to %d characters", ErrBadService, MaxService)
	}
	upper := false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		case 'A' <= c && c <= 'Z':
			upper = true
		default:
			return "", fmt.Errorf("%w: only letters, digits and . _ - are allowed", ErrBadService)
		}
	}
	if upper {
		name = strings.ToLower(name)
	}
	return name, nil
}
