package secret

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

var _ auth.Secrets = (*Ring)(nil)

// pepperKey returns a key that a test can recognise.
func pepperKey(seed byte) [pepperSize]byte {
	var key [pepperSize]byte
	for i := range key {
		key[i] = seed + byte(7*i)
	}
	return key
}

// idOf recomputes a pepper's id: 31 bits of HMAC-SHA-256(key, 0x02).
func idOf(key [pepperSize]byte) int32 {
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte{2})
	return int32(binary.BigEndian.Uint32(mac.Sum(nil)[:4]) >> 1)
}

// pepperLine is what a pepper file holds of the key.
func pepperLine(key [pepperSize]byte) string {
	return fmt.Sprintf("%08x:%s", idOf(key), base64.StdEncoding.EncodeToString(key[:]))
}

func pepperFile(seeds ...byte) string {
	var b strings.Builder
	for _, seed := range seeds {
		b.WriteString(pepperLine(pepperKey(seed)) + "\n")
	}
	return b.String()
}

func mustRing(t *testing.T, file string) *Ring {
	t.Helper()
	r, err := ParseRing(strings.NewReader(file))
	if err != nil {
		t.Fatalf("ParseRing = %v, want a ring", err)
	}
	return r
}

func TestTagIsTheDocumentedHMAC(t *testing.T) {
	r := mustRing(t, pepperFile(1, 100))
	for _, text := range []string{"abcdefghijklmnop", "zzzzzzzzzzzzzzzzzzzzzzzz", ""} {
		var want []auth.Tag
		for _, seed := range []byte{1, 100} {
			key := pepperKey(seed)
			mac := hmac.New(sha256.New, key[:])
			mac.Write([]byte("\x01" + text))
			want = append(want, auth.Tag{PepperID: idOf(key), Value: binary.BigEndian.Uint16(mac.Sum(nil)[:2])})
		}
		if got := r.Tags(nil, text); !slices.Equal(got, want) {
			t.Errorf("Tags(nil, %q) = %v, want %v", text, got, want)
		}
		if got := r.Tag(text); got != want[0] {
			t.Errorf("Tag(%q) = %v, want %v", text, got, want[0])
		}
		before := auth.Tag{PepperID: 9, Value: 9}
		if got := r.Tags([]auth.Tag{before}, text); !slices.Equal(got, append([]auth.Tag{before}, want...)) {
			t.Errorf("Tags([%v], %q) = %v, want the tags appended", before, text, got)
		}
	}
	want := []int32{idOf(pepperKey(1)), idOf(pepperKey(100))}
	if got := r.IDs(); !slices.Equal(got, want) {
		t.Errorf("IDs() = %v, want %v", got, want)
	}
	if got := r.Active(); got != want[0] {
		t.Errorf("Active() = %d, want %d, the first of the file", got, want[0])
	}
}

func TestTagsSpread(t *testing.T) {
	r, other := mustRing(t, pepperFile(1)), mustRing(t, pepperFile(2))
	values := make(map[uint16]bool)
	equal := 0
	const draws = 4096
	for range draws {
		s := Generate(DefaultLength)
		values[r.Tag(s).Value] = true
		if r.Tag(s).Value == other.Tag(s).Value {
			equal++
		}
	}
	// 4096 draws of 65,536 values hit 3,969 different ones on average, standard deviation about 11.
	if len(values) < 3800 {
		t.Errorf("%d passwords have %d different tags, want about 3,970", draws, len(values))
	}
	if equal > 10 { // 1/16 on average
		t.Errorf("%d of %d tags are equal under two peppers, want next to none", equal, draws)
	}
}

func TestTagConcurrently(t *testing.T) {
	r := mustRing(t, pepperFile(1, 2, 3))
	var texts [64]string
	var want [64][]auth.Tag
	for i := range texts {
		texts[i] = Generate([]int{16, 20, 24}[i%3])
		want[i] = r.Tags(nil, texts[i])
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				for i, text := range texts {
					if got := r.Tags(nil, text); !slices.Equal(got, want[i]) {
						t.Errorf("Tags = %v while others compute theirs, want %v", got, want[i])
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestPepperIDs(t *testing.T) {
	seen := make(map[int32]bool)
	for range 1000 {
		id := NewRing().Active()
		if id < 0 {
			t.Errorf("NewRing().Active() = %d, want it never negative", id)
		}
		if seen[id] {
			t.Errorf("two of 1,000 fresh rings have the id %d", id)
		}
		seen[id] = true
	}
}

func TestParseRing(t *testing.T) {
	one, two := pepperKey(1), pepperKey(2)
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	id := fmt.Sprintf("%08x", idOf(one))
	key := base64.StdEncoding.EncodeToString(one[:])
	var nine []byte
	for i := range maxPeppers + 1 {
		nine = append(nine, byte(10+i))
	}
	flipped := []byte(key)
	flipped[3] ^= 1
	for _, tt := range []struct {
		name string
		file string
		want []int32
		err  string // part of the error
	}{
		{"one", pepperFile(1), []int32{idOf(one)}, ""},
		{"two, the first is active", pepperFile(2, 1), []int32{idOf(two), idOf(one)}, ""},
		{"as many as may be", pepperFile(nine[:maxPeppers]...), nil, ""},
		{"comments and empty lines", "# a\n\n  # b\n" + pepperFile(1) + "\n#" + pepperFile(2), []int32{idOf(one)}, ""},
		{"no newline at the end", strings.TrimSpace(pepperFile(1)), []int32{idOf(one)}, ""},
		{"carriage returns", strings.ReplaceAll(pepperFile(1, 2), "\n", "\r\n"), []int32{idOf(one), idOf(two)}, ""},
		{"space around", "  " + strings.TrimSpace(pepperFile(1)) + " \n", []int32{idOf(one)}, ""},

		{"empty", "", nil, "no pepper"},
		{"only comments", "# nothing\n", nil, "no pepper"},
		{"no colon", key + "\n", nil, "line 1: want ID:KEY"},
		{"error in line 3", pepperFile(1) + "\n" + "x\n", nil, "line 3: want ID:KEY"},
		{"wrong id", "00000001:" + key, nil, "line 1: the id does not belong to the key"},
		{"other key's id", fmt.Sprintf("%08x:%s", idOf(two), key), nil, "the id does not belong"},
		{"damaged key", id + ":" + string(flipped), nil, "the id does not belong"},
		{"no id", ":" + key, nil, "the id does not belong"},
		{"negative id", "-" + id + ":" + key, nil, "the id does not belong"},
		{"id of 64 bits", "100000000" + id + ":" + key, nil, "the id does not belong"},
		{"id not hex", "zzzzzzzz:" + key, nil, "the id does not belong"},
		{"id of nine digits", "0" + id + ":" + key, nil, "line 1"},
		{"no key", id + ":", nil, "32 bytes in base64"},
		{"key of 31 bytes", id + ":" + b64(31), nil, "32 bytes in base64"},
		{"key of 33 bytes", id + ":" + b64(33), nil, "32 bytes in base64"},
		{"key cut", id + ":" + key[:40], nil, "32 bytes in base64"},
		{"key unpadded", id + ":" + strings.TrimRight(key, "="), nil, "32 bytes in base64"},
		{"key with other trailing bits", id + ":" + key[:42] + string(key[42]+1) + "=", nil, "32 bytes in base64"},
		{"key with a carriage return inside", id + ":" + key[:20] + "\r" + key[20:], nil, "32 bytes in base64"},
		{"text after the key", id + ":" + key + " # active", nil, "32 bytes in base64"},
		{"a key twice", pepperFile(1, 2, 1), nil, "line 3: the same pepper again"},
		{"too many", pepperFile(nine...), nil, "more than 8 peppers"},
		{"a line of 64 KiB", "#" + strings.Repeat("x", 64<<10) + "\n" + pepperFile(1), nil, "too long"},
		{"a file above the limit, cut within its comments", pepperFile(1) + strings.Repeat("# comment\n", 7000) + pepperFile(2), nil, "pepper file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseRing(strings.NewReader(tt.file))
			if tt.err != "" {
				if err == nil {
					t.Fatalf("ParseRing = a ring of %x, want an error with %q", r.IDs(), tt.err)
				}
				if !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ParseRing = %q, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("ParseRing = %v, want a ring", err)
			}
			if got := r.IDs(); tt.want != nil && !slices.Equal(got, tt.want) {
				t.Errorf("ParseRing(...).IDs() = %x, want %x", got, tt.want)
			}
			var b bytes.Buffer
			if err := r.encode(&b); err != nil {
				t.Fatalf("encode = %v", err)
			}
			if got := mustRing(t, b.String()).IDs(); !slices.Equal(got, r.IDs()) {
				t.Errorf("ParseRing(encode(r)).IDs() = %x, want %x", got, r.IDs())
			}
		})
	}
}

// A disk that fails must not be reported as a fault of the file's content.
func TestParseRingReadError(t *testing.T) {
	broken := errors.New("input/output error")
	_, err := ParseRing(io.MultiReader(strings.NewReader(pepperFile(1)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("ParseRing of a reader that fails = %v, want an error that wraps %q", err, broken)
	}
}

// No error may hold any part of a key, whatever is wrong with the file.
func TestRingErrorsHoldNoKey(t *testing.T) {
	key := pepperKey(1)
	text := base64.StdEncoding.EncodeToString(key[:])
	line := pepperLine(key)
	files := []string{
		text, "x" + line, "0" + line, line[:30], line + "=", line + "\n" + line, strings.ToUpper(line), ":" + text,
		strings.Replace(line, ":", " ", 1), line + "\x00", "\ufeff" + line, line + " " + line, strings.Replace(line, ":", "::", 1),
		strings.Repeat(line, 3000),
	}
	for i := range text {
		files = append(files, line[:9]+text[:i]+text[i+1:])
	}
	for i, file := range files {
		path := filepath.Join(t.TempDir(), "pepper")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, parseErr := ParseRing(strings.NewReader(file))
		_, _, loadErr := LoadRing(path)
		for _, err := range []error{parseErr, loadErr} {
			if err == nil {
				t.Errorf("file %d: no error, want one", i)
				continue
			}
			for at := 0; at+6 <= len(text); at++ {
				if strings.Contains(err.Error(), text[at:at+6]) {
					t.Errorf("file %d: the error %q holds a part of the key", i, err)
					break
				}
			}
		}
	}
}

func TestOpenRingMakesNone(t *testing.T) {
	dir := t.TempDir()
	if r, err := OpenRing(filepath.Join(dir, "pepper")); r != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenRing of no file = %v, %v, want an error that says so", r, err)
	}
	wantOnly(t, dir)
}

func TestLoadRingMakesOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pepper")
	r, created, err := LoadRing(path)
	if err != nil || !created {
		t.Fatalf("LoadRing of no file = created %v, %v, want true, nil", created, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("the pepper file's mode = %v, want -rw-------", got)
	}
	again, created, err := LoadRing(path)
	if err != nil || created {
		t.Fatalf("LoadRing again = created %v, %v, want false, nil", created, err)
	}
	if !slices.Equal(again.IDs(), r.IDs()) || again.Tag("abcdefghijklmnop") != r.Tag("abcdefghijklmnop") {
		t.Errorf("LoadRing again has the ids %x, want %x", again.IDs(), r.IDs())
	}
	wantOnly(t, dir, "pepper")
}

// wantOnly checks that nothing else was left in the directory, such as a key that nobody will ever read.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("the directory holds %q, want %q", got, names)
	}
}

func TestLoadRingRefuses(t *testing.T) {
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o620, 0o601, 0o777} {
		path := filepath.Join(t.TempDir(), "pepper")
		if err := os.WriteFile(path, []byte(pepperFile(1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, created, err := LoadRing(path); err == nil || created || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("LoadRing of a file of mode %v = created %v, %v, want an error with the cure", mode, created, err)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		path := filepath.Join(t.TempDir(), "pepper")
		if err := os.WriteFile(path, []byte(pepperFile(1)), mode); err != nil {
			t.Fatal(err)
		}
		if _, created, err := LoadRing(path); err != nil || created {
			t.Errorf("LoadRing of a file of mode %v = created %v, %v, want false, nil", mode, created, err)
		}
	}

	t.Run("directory missing", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "missing", "pepper")
		if r, created, err := LoadRing(path); r != nil || created || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("LoadRing = %v, created %v, %v, want nil, false, ErrNotExist", r, created, err)
		}
	})
	t.Run("directory in its place", func(t *testing.T) {
		if r, created, err := LoadRing(t.TempDir()); r != nil || created || err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("LoadRing = %v, created %v, %v, want nil, false, not a regular file", r, created, err)
		}
	})
	t.Run("dangling link", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink("nowhere", filepath.Join(dir, "pepper")); err != nil {
			t.Fatal(err)
		}
		if r, created, err := LoadRing(filepath.Join(dir, "pepper")); r != nil || created || err == nil {
			t.Errorf("LoadRing = %v, created %v, %v, want nil, false and an error", r, created, err)
		}
		wantOnly(t, dir, "pepper")
	})
	t.Run("malformed file is left alone", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "pepper")
		for _, content := range []string{"", "rubbish\n", pepperFile(1)[:40]} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if r, created, err := LoadRing(path); r != nil || created || err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("LoadRing of %q = %v, created %v, %v, want nil, false and an error that names the file", content, r, created, err)
			}
			if got, err := os.ReadFile(path); string(got) != content || err != nil {
				t.Errorf("LoadRing changed a malformed file from %q to %q, %v", content, got, err)
			}
		}
		wantOnly(t, dir, "pepper")
	})
}

// A named pipe nobody writes to must be refused, not waited for.
func TestLoadRingOfPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pepper")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := LoadRing(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Errorf("LoadRing of a named pipe = nil, want an error")
		}
	case <-time.After(5 * time.Second): // far above what it takes; reached only when it hangs
		t.Errorf("LoadRing of a named pipe waits for a writer, want an error at once")
		w, err := os.OpenFile(path, os.O_WRONLY, 0) // lets it go
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		<-done
	}
}

// loadRingEnv makes the test binary a program that loads the ring at this path and prints its id.
const loadRingEnv = "VALETKEY_TEST_LOAD_RING"

func TestMain(m *testing.M) {
	if path := os.Getenv(loadRingEnv); path != "" {
		io.Copy(io.Discard, os.Stdin) // all start when the test closes their input
		r, created, err := LoadRing(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Printf("%08x %v\n", r.Active(), created)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestLoadRingRaceOfProcesses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pepper")
	start, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	const processes = 6
	var cmds [processes]*exec.Cmd
	var outs [processes]bytes.Buffer
	for i := range cmds {
		cmds[i] = exec.CommandContext(t.Context(), os.Args[0])
		cmds[i].Env = append(os.Environ(), loadRingEnv+"="+path)
		cmds[i].Stdin, cmds[i].Stdout, cmds[i].Stderr = start, &outs[i], &outs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	start.Close()
	release.Close()
	ids := make(map[string]int)
	created := 0
	for i := range cmds {
		if err := cmds[i].Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, outs[i].String())
			continue
		}
		id, made, _ := strings.Cut(strings.TrimSpace(outs[i].String()), " ")
		ids[id]++
		if made == "true" {
			created++
		}
	}
	if len(ids) != 1 || created != 1 {
		t.Errorf("%d processes got the rings %v, %d made one, want one ring made once", processes, ids, created)
	}
	wantOnly(t, dir, "pepper")
}

func TestLoadRingRace(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		path := filepath.Join(dir, "pepper")
		stop := make(chan struct{})
		var reader, loaders sync.WaitGroup
		reader.Go(func() { // whatever is seen under the name is whole
			for {
				if content, err := os.ReadFile(path); err == nil {
					if _, err := ParseRing(bytes.NewReader(content)); err != nil {
						t.Errorf("a half-written pepper file was seen: %v", err)
						return
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		const n = 8
		var ids [n]int32
		var made [n]bool
		for i := range n {
			loaders.Go(func() {
				r, created, err := LoadRing(path)
				if err != nil {
					t.Errorf("LoadRing = %v while others make the file", err)
					return
				}
				ids[i], made[i] = r.Active(), created
			})
		}
		loaders.Wait()
		close(stop)
		reader.Wait()
		created := 0
		for i := range n {
			if ids[i] != ids[0] {
				t.Errorf("LoadRing in %d goroutines gave the ids %x, want the same", n, ids)
				break
			}
			if made[i] {
				created++
			}
		}
		if created != 1 {
			t.Errorf("LoadRing in %d goroutines: %d say that they made the file, want 1", n, created)
		}
		wantOnly(t, dir, "pepper")
	}
}

func FuzzPepperFile(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := ParseRing(bytes.NewReader(file))
		if err != nil {
			if r != nil {
				t.Errorf("ParseRing = a ring and %v, want one of them", err)
			}
			if strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 200 {
				t.Errorf("ParseRing = %q, want one short line", err)
			}
			return
		}
		if n := len(r.IDs()); n < 1 || n > maxPeppers {
			t.Errorf("ParseRing = %d peppers, want 1 to %d", n, maxPeppers)
		}
		for _, p := range r.peppers {
			if p.id != idOf(p.key) {
				t.Errorf("ParseRing accepts the id %08x for a key that has %08x", p.id, idOf(p.key))
			}
			if line := pepperLine(p.key); !bytes.Contains(bytes.ToLower(file), bytes.ToLower([]byte(line[9:]))) {
				t.Errorf("ParseRing read a key that does not stand in the file")
			}
		}
		var b bytes.Buffer
		if err := r.encode(&b); err != nil {
			t.Fatalf("encode = %v", err)
		}
		again, err := ParseRing(&b)
		if err != nil || !slices.Equal(again.IDs(), r.IDs()) {
			t.Errorf("ParseRing(encode(r)) = %v, want the same ring", err)
		}
	})
}
