package secret

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/valetkey/valetkey/internal/auth"
)

const pepperSize = 32 // bytes

// maxPeppers bounds a ring: a login computes one tag for each.
const maxPeppers = 8

const maxPepperFile = 64 << 10 // bytes

// Domain separation: the first byte of what a pepper keys.
const (
	domainTag = 0x01
	domainID  = 0x02
)

// Ring holds the site's peppers. The first one is active: it keys the tags of new app passwords. The others are there so
// that rows keyed by them are still found by tag. A Ring is immutable and safe for concurrent use.
type Ring struct {
	peppers []pepper
}

type pepper struct {
	id  int32
	key [pepperSize]byte
	mac *sync.Pool // of *macState, keyed
}

type macState struct {
	mac hash.Hash
	in  []byte
	sum [sha256.Size]byte
}

// newPepper derives the id from the key, so that two different peppers never share one: rows keyed by a lost or foreign
// pepper are recognised as such (they are verified without a tag, slowly) and never mistaken for a wrong password.
func newPepper(key [pepperSize]byte) pepper {
	p := pepper{key: key}
	p.mac = &sync.Pool{New: func() any { return &macState{mac: hmac.New(sha256.New, key[:])} }}
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte{domainID})
	p.id = int32(binary.BigEndian.Uint32(mac.Sum(nil)) >> 1) // 31 bits: never negative
	return p
}

// NewRing returns a ring with one fresh pepper.
func NewRing() *Ring {
	var key [pepperSize]byte
	rand.Read(key[:])
	return &Ring{peppers: []pepper{newPepper(key)}}
}

// Active is the id of the pepper that keys new tags.
func (r *Ring) Active() int32 { return r.peppers[0].id }

// IDs returns the ids of all peppers, the active one first.
func (r *Ring) IDs() []int32 {
	ids := make([]int32, len(r.peppers))
	for i, p := range r.peppers {
		ids[i] = p.id
	}
	return ids
}

// Tag returns the tag of a normalised app password under the active pepper.
func (r *Ring) Tag(normalised string) auth.Tag { return r.peppers[0].tag(normalised) }

// Tags appends the tag under each pepper to dst, the active one first.
func (r *Ring) Tags(dst []auth.Tag, normalised string) []auth.Tag {
	for i := range r.peppers {
		dst = append(dst, r.peppers[i].tag(normalised))
	}
	return dst
}

// tag is the first 16 bits of HMAC-SHA-256(pepper, 0x01 || normalised). Sixteen and not more: with the database and the
// pepper both leaked, the tag is a filter for guesses, and above 20 bits it would make the slow hash worthless
// (reference/security.md section 1.2).
func (p *pepper) tag(normalised string) auth.Tag {
	s := p.mac.Get().(*macState)
	s.mac.Reset()
	s.in = append(append(s.in[:0], domainTag), normalised...)
	s.mac.Write(s.in)
	s.mac.Sum(s.sum[:0])
	v := binary.BigEndian.Uint16(s.sum[:])
	clear(s.in)
	p.mac.Put(s)
	return auth.Tag{PepperID: p.id, Value: v}
}

// Normalise and Verify make a Ring an [auth.Secrets].
func (r *Ring) Normalise(password string) (string, bool) { return Normalise(password) }

// Verify is the package's [Verify].
func (r *Ring) Verify(stored, password string) (bool, error) { return Verify(stored, password) }

// ParseRing reads a pepper file: one "ID:KEY" a line, the active one first; ID in eight hex digits, KEY 32 bytes in base64;
// empty lines and lines that start with # are passed over. The ID must be the one that the key has, so that a key that was
// cut or mistyped is noticed. Errors name the line and never its content.
func ParseRing(in io.Reader) (*Ring, error) {
	var r Ring
	limited := &io.LimitedReader{R: in, N: maxPepperFile + 1}
	lines := bufio.NewScanner(limited)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, encoded, found := strings.Cut(line, ":")
		if !found {
			return nil, fmt.Errorf("pepper file, line %d: want ID:KEY", n)
		}
		key, err := decode(base64.StdEncoding.Strict(), encoded)
		if err != nil || len(key) != pepperSize {
			return nil, fmt.Errorf("pepper file, line %d: the key must be %d bytes in base64", n, pepperSize)
		}
		p := newPepper([pepperSize]byte(key))
		if want, err := strconv.ParseUint(id, 16, 32); err != nil || len(id) != 8 || int64(want) != int64(p.id) {
			return nil, fmt.Errorf("pepper file, line %d: the id does not belong to the key: one of them was damaged", n)
		}
		for _, other := range r.peppers {
			if other.id == p.id {
				return nil, fmt.Errorf("pepper file, line %d: the same pepper again", n)
			}
		}
		if len(r.peppers) == maxPeppers {
			return nil, fmt.Errorf("pepper file, line %d: more than %d peppers", n, maxPeppers)
		}
		r.peppers = append(r.peppers, p)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, errors.New("pepper file: a line is too long")
	} else if err != nil {
		return nil, fmt.Errorf("reading the pepper file: %w", err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("pepper file: longer than %d bytes", maxPepperFile)
	}
	if len(r.peppers) == 0 {
		return nil, errors.New("pepper file: it holds no pepper")
	}
	return &r, nil
}

// encode writes the form that ParseRing reads.
func (r *Ring) encode(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "# Valetkey peppers, ID:KEY, the active one first. Keep a copy apart from the database's.\n"); err != nil {
		return err
	}
	for _, p := range r.peppers {
		if _, err := fmt.Fprintf(out, "%08x:%s\n", p.id, base64.StdEncoding.EncodeToString(p.key[:])); err != nil {
			return err
		}
	}
	return nil
}

// LoadRing reads the pepper file at path, or makes one with a fresh pepper and mode 0600 if there is none; created says
// which. A file that others than its owner may read is refused. Two processes that start at once end with the same ring.
func LoadRing(path string) (r *Ring, created bool, err error) {
	if r, err = OpenRing(path); !errors.Is(err, fs.ErrNotExist) {
		return r, false, err
	}
	if err := createRing(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("making the pepper file: %w", err)
	} else if err == nil {
		created = true
	}
	r, err = OpenRing(path)
	return r, created, err
}

// OpenRing is [LoadRing] of a file that must be there; the error wraps [fs.ErrNotExist] if it is not.
func OpenRing(path string) (*Ring, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for the writer of a named pipe
	if err != nil {
		return nil, fmt.Errorf("opening the pepper file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the pepper file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("pepper file %s: not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("pepper file %s: mode %04o lets others read it; run: chmod 600 %s", path, mode, path)
	}
	r, err := ParseRing(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// createRing writes a new ring beside path and links it into place, so that a half-written file is never seen and an
// existing one is never overwritten.
func createRing(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pepper-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := NewRing().encode(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
