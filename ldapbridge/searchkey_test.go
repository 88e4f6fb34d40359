package ldapbridge

import (
	"testing"
	"unicode/utf8"

	"github.com/valetkey/valetkey/internal/auth"
)

// FuzzSearchKey holds the keys of the store's index to what a filter takes for equal: values that match have the same key.
func FuzzSearchKey(f *testing.F) {
	for _, v := range []string{"alice@example.org", "  Alice   ADAMS ", "ＡＬＩＣＥ", "Zoe\u0308", "00012", "-0", "ΑΣ", "\u0130stanbul", "a\u00a0 b", "\u1e9e", "\u03aa\u0301"} {
		f.Add(v, v)
	}
	f.Add("ΑΣ", "ας")
	f.Add("İ", "i\u0307")
	f.Fuzz(func(t *testing.T, a, b string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			return
		}
		if folded := string(appendFold(nil, []byte(a))); auth.SearchKey("x", a) != auth.SearchKey("x", folded) {
			t.Errorf("SearchKey(%q) = %q, of its folded form %q", a, auth.SearchKey("x", a), auth.SearchKey("x", folded))
		}
		if exact := string(appendSpaceFolded(nil, []byte(a), false)); auth.SearchKey("x", a) != auth.SearchKey("x", exact) {
			t.Errorf("SearchKey(%q) = %q, of its form for exact comparison %q", a, auth.SearchKey("x", a), auth.SearchKey("x", exact))
		}
		if equalFold([]byte(a), []byte(b)) && auth.SearchKey("x", a) != auth.SearchKey("x", b) {
			t.Errorf("%q and %q match, and have the keys %q and %q", a, b, auth.SearchKey("x", a), auth.SearchKey("x", b))
		}
	})
}
