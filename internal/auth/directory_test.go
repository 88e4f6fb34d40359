package auth_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestSearchKey(t *testing.T) {
	for _, tt := range []struct{ name, attribute, value, want string }{
		{"plain", "mail", "alice@example.org", "mail=alice@example.org"},
		{"case", "givenName", "ALICE", "givenname=alice"},
		{"spaces", "cn", "  Alice   ADAMS ", "cn=alice adams"},
		{"only spaces", "cn", "   ", "cn="},
		{"full width", "cn", "ＡＬＩＣＥ", "cn=alice"},
		{"ligature", "cn", "ﬁn", "cn=fin"},
		{"decomposed", "cn", "Zoe\u0308", "cn=zo\u00eb"},
		{"no-break space", "cn", "a\u00a0 b", "cn=a b"},
		{"capital sharp s", "sn", "STRAẞE", "sn=straße"},
		{"greek", "sn", "ΑΣ", "sn=ασ"},
		{"kelvin", "cn", "\u212a", "cn=k"},
		{"number", "uidNumber", "01001", "uidnumber=1001"},
		{"zero", "uidNumber", "000", "uidnumber=0"},
		{"negative", "x", "-007", "x=-7"},
		{"negative zero", "x", "-0", "x=0"},
		{"no number", "x", "-", "x=-"},
		{"number with a letter", "x", "007a", "x=007a"},
		{"equals sign", "x", "a=b", "x=a=b"},
		{"invalid UTF-8", "x", "a\xffb", "x=a\ufffdb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := auth.SearchKey(tt.attribute, tt.value); got != tt.want {
				t.Errorf("SearchKey(%q, %q) = %q, want %q", tt.attribute, tt.value, got, tt.want)
			}
		})
	}
	long := auth.SearchKey("cn", strings.Repeat("ë", 400))
	if len(long) > auth.MaxSearchKey || !utf8.ValidString(long) || !strings.HasPrefix(long, "cn=ëë") {
		t.Errorf("SearchKey of a long value = %q, want the beginning", long)
	}
}

func FuzzSearchKey(f *testing.F) {
	for _, v := range []string{"alice@example.org", "  Alice   ADAMS ", "ＡＬＩＣＥ", "Zoe\u0308", "00012", "-0", "-", "a\xff", "ΑΣ", "\u0130stanbul", "\u00a0", "\u1e9e", "-\u00a01"} {
		f.Add("cn", v)
	}
	f.Fuzz(func(t *testing.T, attribute, value string) {
		if len(attribute) > 64 || !utf8.ValidString(attribute) || strings.Contains(attribute, "=") || strings.ToLower(strings.ToLower(attribute)) != strings.ToLower(attribute) {
			return
		}
		key := auth.SearchKey(attribute, value)
		if len(key) > auth.MaxSearchKey || !utf8.ValidString(key) {
			t.Fatalf("SearchKey(%q, %q) = %q, want at most %d bytes of UTF-8", attribute, value, key, auth.MaxSearchKey)
		}
		name, folded, ok := strings.Cut(key, "=")
		if !ok || name != strings.ToLower(attribute) {
			t.Fatalf("SearchKey(%q, %q) = %q, want the attribute before it", attribute, value, key)
		}
		if again := auth.SearchKey(name, folded); len(key) < auth.MaxSearchKey-utf8.UTFMax && again != key {
			t.Errorf("SearchKey(%q, %q) = %q; again = %q, want it unchanged", attribute, value, key, again)
		}
	})
}

func TestNormaliseGroup(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"wiki-users", "wiki-users"}, {"Wiki.Users", "wiki.users"}, {"Käse", "käse"},
		{"", ""}, {"two words", ""}, {"a\x00", ""}, {"\xff", ""}, {strings.Repeat("g", auth.MaxLogin+1), ""},
	} {
		got, err := auth.NormaliseGroup(tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && (!errors.Is(err, auth.ErrBadGroup) || strings.Contains(err.Error(), "login")) {
			t.Errorf("NormaliseGroup(%q) = %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}
