package store_test

import (
	"fmt"
	"testing"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store/storetest"
)

// BenchmarkImport takes over new accounts with two app passwords each, in parts as the companion command sends them.
func BenchmarkImport(b *testing.B) {
	const part = 220
	s, _ := storetest.New(b)
	n := 0
	b.ResetTimer()
	for range b.N {
		in := auth.Import{Source: "bench", By: "bench"}
		for range part {
			login := fmt.Sprintf("user%07d@example.org", n/2)
			in.Rows = append(in.Rows, auth.ImportRow{Enabled: true, Account: auth.NewAccount{Login: login, DisplayName: fmt.Sprintf("User %d", n/2), Attributes: map[string][]string{"mail": {login}}},
				AppPassword: &auth.ImportedPassword{Key: fmt.Sprint(n), Label: fmt.Sprintf("device %d", n%2), LabelKey: fmt.Sprintf("device %d", n%2), Services: []string{"imap", "smtp"},
					PHC: "{SSHA256}oXn5nT7iG6AmcAdGk2T6AuxoqAPJd0wB1OZtwvrtAAQ+k7oJ7PBHmQ=="}})
			n++
		}
		if _, err := s.Import(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
