package throttle

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
)

// key names a source, or a login from a source. It holds no text, so that looking one up allocates nothing.
type key struct {
	hi, lo uint64 // the prefix's address
	user   uint64 // hash of the login, keyed by the process; 0: the source itself
	bits   uint8  // of the prefix
}

// keys are those that one login has to do with.
type keys struct {
	source key // IPv4 /32, IPv6 /64
	wide   key // IPv6 /48; bits is 0 for IPv4
	pair   key // source and login
}

func (t *Throttle) user(login string) uint64 { return max(1, maphash.String(t.seed, login)) }

func (t *Throttle) keys(a netip.Addr, login string) keys {
	b := a.As16()
	k := keys{source: key{hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]), bits: 32}}
	if !a.Is4() {
		k.source.lo, k.source.bits = 0, 64
		k.wide = key{hi: k.source.hi &^ 0xffff, bits: 48}
	}
	k.pair = k.source
	k.pair.user = t.user(login)
	return k
}

// prefix is the source in the form that people write.
func (k key) prefix() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	a := netip.AddrFrom16(b)
	if k.bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, int(k.bits))
}

const shards = 16

// table remembers a V for each key, and at most so many. Each shard has two generations: entries are added to the young one;
// when it is full it becomes the old one and what was old is forgotten, unless it was changed since. So it is bounded, and
// forgetting costs nothing.
type table[V any] struct {
	shards [shards]shard[V]
}

type shard[V any] struct {
	mu         sync.Mutex
	young, old map[key]*V
	capacity   int // of one generation
}

func (t *table[V]) init(entries int) {
	for i := range t.shards {
		t.shards[i].young = make(map[key]*V)
		t.shards[i].capacity = max(1, entries/shards/2)
	}
}

func (t *table[V]) shard(k key) *shard[V] {
	// An attacker may have a whole network: its low bits must not choose the shard alone.
	h := (k.hi ^ k.lo ^ k.user) * 0x9e3779b97f4a7c15
	return &t.shards[h>>60]
}

// get returns a copy of what is there, or the zero value.
func (t *table[V]) get(k key) (v V) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.young[k]; p != nil {
		return *p
	}
	if p := s.old[k]; p != nil {
		return *p
	}
	return v
}

// view calls f with what is there, if something is. f must not keep it.
func (t *table[V]) view(k key, f func(*V)) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.young[k]
	if v == nil {
		v = s.old[k]
	}
	if v != nil {
		f(v)
	}
}

// change calls f with what is there, or with a new zero value. f must not keep it.
func (t *table[V]) change(k key, f func(*V)) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.young[k]
	if v == nil {
		if v = s.old[k]; v == nil {
			v = new(V)
		}
		delete(s.old, k)
		if len(s.young) >= s.capacity {
			s.old, s.young = s.young, make(map[key]*V)
		}
		s.young[k] = v
	}
	f(v)
}

// each calls f with everything, a shard at a time.
func (t *table[V]) each(f func(key, *V)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for k, v := range s.old {
			f(k, v)
		}
		for k, v := range s.young {
			f(k, v)
		}
		s.mu.Unlock()
	}
}

func (t *table[V]) len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}
