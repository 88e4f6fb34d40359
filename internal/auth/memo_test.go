package auth

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

var memoStart = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestMemoKeySeparatesItsFields(t *testing.T) {
	m := newMemo(0)
	keys := make(map[memoKey]string)
	for _, id := range []int64{0, 1, 256, 1 << 56, -1} {
		for _, phc := range []string{"", "a", "ab", "$argon2id$x"} {
			for _, password := range []string{"", "a", "b", "ab", "abcdefghijklmnop"} {
				triple := fmt.Sprintf("%d, %q, %q", id, phc, password)
				k := m.key(id, phc, password)
				if other, ok := keys[k]; ok {
					t.Errorf("key(%s) = key(%s), want them different", triple, other)
				}
				keys[k] = triple
				if again := m.key(id, phc, password); again != k {
					t.Errorf("key(%s) twice = %x, %x, want the same", triple, k, again)
				}
			}
		}
	}
	if other := newMemo(0); other.key(1, "phc", "password") == m.key(1, "phc", "password") {
		t.Errorf("two memos have one key, want a random one each")
	}
}

func TestMemoKeyBufferIsCleared(t *testing.T) {
	m := newMemo(0)
	s := &memoMAC{mac: m.macs.Get().(*memoMAC).mac}
	m.macs.New = func() any { return s }
	m.key(1, "$phc$", "abcdefghijklmnop")
	in := s.in[:cap(s.in)]
	if i := slices.IndexFunc(in, func(b byte) bool { return b != 0 }); i >= 0 {
		t.Errorf("key leaves %q in its buffer, want it cleared", in)
	}
}

func TestMemoTTL(t *testing.T) {
	for _, tt := range []struct {
		origin Origin
		ttl    time.Duration
	}{
		{Generated, 24 * time.Hour},
		{Imported, time.Hour},
		{"", time.Hour}, // an origin from a later version is not trusted more than an imported one
	} {
		for _, match := range []bool{true, false} {
			m := newMemo(0)
			k := m.key(1, "phc", "password")
			if got, known := m.get(k, memoStart); got || known {
				t.Errorf("get of an empty memo = %v, %v, want false, false", got, known)
			}
			m.put(k, match, tt.origin, memoStart)
			for _, at := range []time.Duration{0, tt.ttl - time.Second} {
				if got, known := m.get(k, memoStart.Add(at)); got != match || !known {
					t.Errorf("%q: get after %v = %v, %v, want %v, true", tt.origin, at, got, known, match)
				}
			}
			for _, at := range []time.Duration{tt.ttl, 10 * tt.ttl} {
				if got, known := m.get(k, memoStart.Add(at)); got || known {
					t.Errorf("%q: get after %v = %v, %v, want false, false", tt.origin, at, got, known)
				}
			}
		}
	}
}

func (m *memo) entries() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

func TestMemoIsBounded(t *testing.T) {
	for _, size := range []int{1, 32, 1600, 10_000} {
		m := newMemo(size)
		for i := range 5 * size {
			k := m.key(int64(i), "phc", "password")
			m.put(k, true, Generated, memoStart)
			if got, known := m.get(k, memoStart); !got || !known {
				t.Fatalf("size %d: entry %d is forgotten at once", size, i)
			}
			m.get(m.key(int64(i/2), "phc", "password"), memoStart) // moving entries up must not break the bound
		}
		if got, limit := m.entries(), max(size, 2*len(m.shards)); got > limit {
			t.Errorf("a memo for %d holds %d entries, want at most %d", size, got, limit)
		}
		if got := m.entries(); got < size/3 {
			t.Errorf("a memo for %d holds %d entries after %d, want at least a third", size, got, 5*size)
		}
	}
}

func TestMemoKeepsWhatIsUsed(t *testing.T) {
	const size = 1600
	m := newMemo(size)
	used, unused := m.key(-1, "phc", "password"), m.key(-2, "phc", "password")
	m.put(used, true, Generated, memoStart)
	m.put(unused, true, Generated, memoStart)
	for i := range 20 * size {
		m.put(m.key(int64(i), "phc", "password"), false, Generated, memoStart)
		if i%50 == 0 {
			if got, known := m.get(used, memoStart); !got || !known {
				t.Fatalf("an entry in use was forgotten after %d others", i)
			}
		}
	}
	if _, known := m.get(unused, memoStart); known {
		t.Errorf("an entry not in use outlived %d others in a memo for %d", 20*size, size)
	}
	// Being used does not make it live longer.
	if _, known := m.get(used, memoStart.Add(memoTTLGenerated)); known {
		t.Errorf("an entry in use outlived its time, want it forgotten")
	}
}

func TestMemoForget(t *testing.T) {
	m := newMemo(64)
	var keys []memoKey
	for i := range 200 {
		k := m.key(int64(i), "phc", "password")
		m.put(k, true, Generated, memoStart)
		keys = append(keys, k)
	}
	m.forget()
	for i, k := range keys {
		if _, known := m.get(k, memoStart); known {
			t.Errorf("entry %d is known after forget", i)
		}
	}
	m.put(keys[0], true, Generated, memoStart)
	if got, known := m.get(keys[0], memoStart); !got || !known {
		t.Errorf("get after forget and put = %v, %v, want true, true", got, known)
	}
}

func TestMemoConcurrently(t *testing.T) {
	m := newMemo(100)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				id := int64(i % 300)
				k := m.key(id, "phc", "password")
				if match, known := m.get(k, memoStart); known && match != (id%2 == 0) {
					t.Errorf("get(%d) = %v, want %v", id, match, id%2 == 0)
				}
				m.put(k, id%2 == 0, Generated, memoStart)
				if g == 0 && i%500 == 0 {
					m.forget()
				}
			}
		})
	}
	wg.Wait()
}
