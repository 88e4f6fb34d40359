package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"
)

// How long the memo keeps a verification. Imported rows may hold a password that a person chose, which a memory dump
// would expose to guessing at the speed of HMAC: they are kept shorter.
const (
	memoTTLGenerated = 24 * time.Hour
	memoTTLImported  = time.Hour
)

// defaultMemoSize bounds the memo, in verifications; about 100 bytes each.
const defaultMemoSize = 100_000

// memo remembers the outcome of slow verifications: whether a password matches a stored hash. That is a pure function of
// the key, so an entry cannot be stale: a row that was changed or replaced has another key. What a row allows is never
// kept here.
type memo struct {
	macs   sync.Pool // of *memoMAC, keyed with a random key of this process
	shards [16]memoShard
}

// memoShard holds two generations. Entries are added to the young one; when it is full it becomes the old one and what was
// old is forgotten, unless it was used since. So the shard is bounded, and eviction costs nothing.
type memoShard struct {
	mu         sync.Mutex
	young, old map[memoKey]memoEntry
	capacity   int // of one generation
}

type memoKey [16]byte

type memoEntry struct {
	match   bool
	expires int64 // Unix seconds
}

type memoMAC struct {
	mac hash.Hash
	in  []byte
	sum [sha256.Size]byte
}

func newMemo(size int) *memo {
	if size <= 0 {
		size = defaultMemoSize
	}
	key := make([]byte, 32)
	rand.Read(key)
	m := &memo{macs: sync.Pool{New: func() any { return &memoMAC{mac: hmac.New(sha256.New, key)} }}}
	for i := range m.shards {
		m.shards[i].capacity = max(1, size/len(m.shards)/2)
		m.shards[i].young = make(map[memoKey]memoEntry)
	}
	return m
}

// key is HMAC(process key, row id || PHC || 0 || password): the row id fixes the length of the first field and a PHC string
// holds no NUL, so no two triples share an input.
func (m *memo) key(rowID int64, phc, password string) memoKey {
	s := m.macs.Get().(*memoMAC)
	s.mac.Reset()
	s.in = binary.BigEndian.AppendUint64(s.in[:0], uint64(rowID))
	s.in = append(s.in, phc...)
	s.in = append(s.in, 0)
	s.in = append(s.in, password...)
	s.mac.Write(s.in)
	s.mac.Sum(s.sum[:0])
	k := memoKey(s.sum[:16])
	clear(s.in)
	m.macs.Put(s)
	return k
}

func (m *memo) get(k memoKey, now time.Time) (match, known bool) {
	s := &m.shards[k[0]%byte(len(m.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.young[k]
	if !ok {
		if e, ok = s.old[k]; ok {
			s.add(k, e)
		}
	}
	if !ok || now.Unix() >= e.expires {
		return false, false
	}
	return e.match, true
}

func (m *memo) put(k memoKey, match bool, origin Origin, now time.Time) {
	ttl := memoTTLGenerated
	if origin != Generated {
		ttl = memoTTLImported
	}
	s := &m.shards[k[0]%byte(len(m.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(k, memoEntry{match: match, expires: now.Add(ttl).Unix()})
}

func (s *memoShard) add(k memoKey, e memoEntry) {
	if len(s.young) >= s.capacity {
		s.old = s.young
		s.young = make(map[memoKey]memoEntry, s.capacity)
	}
	s.young[k] = e
}

// forget empties the memo.
func (m *memo) forget() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.young, s.old = make(map[memoKey]memoEntry), nil
		s.mu.Unlock()
	}
}
