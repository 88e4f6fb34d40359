package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/store"
	"github.com/valetkey/valetkey/store/storetest"
)

// benchPeople is how many people the benchmarks have: VALETKEY_BENCH_PEOPLE, or 20,000.
func benchPeople(b *testing.B) int {
	text := os.Getenv("VALETKEY_BENCH_PEOPLE")
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkFindAccounts measures the search of search-then-bind: 64 callers, each with one key.
func BenchmarkFindAccounts(b *testing.B) {
	s, url := storetest.New(b)
	db := storetest.DB(b, url)
	n := benchPeople(b)
	begin := time.Now()
	fillPeople(b, db, n)
	if _, err := db.Exec("VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
	b.Logf("filled %d people in %v", n, time.Since(begin).Round(time.Millisecond))
	d := s.Directory()
	for _, key := range []struct {
		name string
		make func(i int) auth.AccountKey
	}{
		{"login", func(i int) auth.AccountKey { return auth.AccountKey{Login: fmt.Sprintf("user%07d", i)} }},
		{"mail", func(i int) auth.AccountKey {
			return auth.AccountKey{Search: auth.SearchKey("mail", fmt.Sprintf("user%d@example.org", i))}
		}},
	} {
		one := func(find func(context.Context, []auth.AccountKey, int, auth.Parts) ([]auth.Account, error), parts auth.Parts) func(b *testing.B) {
			return func(b *testing.B) {
				b.SetParallelism(32) // times 2 cores: 64 callers
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						found, err := find(b.Context(), []auth.AccountKey{key.make(1 + rand.IntN(n))}, 32, parts)
						if err != nil || len(found) != 1 {
							b.Errorf("FindAccounts = %d, %v", len(found), err)
							return
						}
					}
				})
			}
		}
		b.Run(key.name+"/shared", one(d.FindAccounts, 0))
		b.Run(key.name+"/shared, all parts", one(d.FindAccounts, auth.AllParts))
		b.Run(key.name+"/alone", one(store.FindAlone(d), 0))
	}
	b.Run("common value", func(b *testing.B) {
		for b.Loop() {
			if found, err := d.FindAccounts(b.Context(), []auth.AccountKey{{Search: "l=bern"}}, 32, auth.AllParts); err != nil || len(found) != 32 {
				b.Fatalf("FindAccounts = %d, %v", len(found), err)
			}
		}
	})
	for _, part := range []int{0, n / 2, n - 501} {
		for name, parts := range map[string]auth.Parts{"": 0, ", all parts": auth.AllParts} {
			b.Run(fmt.Sprintf("page of 500 after %d%s", part, name), func(b *testing.B) {
				for b.Loop() {
					if page, err := d.Accounts(b.Context(), fmt.Sprintf("user%07d", part), 500, parts); err != nil || len(page) != 500 {
						b.Fatalf("Accounts = %d, %v", len(page), err)
					}
				}
			})
		}
	}
}
