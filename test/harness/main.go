package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Peer is a program of somebody else that the tests run.
type Peer struct {
	program string
	pkg     string // Debian's
}

// The peers.
var (
	PostgresServer = Peer{"initdb", "postgresql"}
	Postfix        = Peer{"postfix", "postfix"}
	Swaks          = Peer{"swaks", "swaks"}
	LDAPUtils      = Peer{"ldapwhoami", "ldap-utils"}
	EximHeavy      = Peer{"exim4", "exim4-daemon-heavy"} // the light one lacks the dovecot authenticator
	Slapd          = Peer{"slapd", "slapd"}
	SASLBin        = Peer{"testsaslauthd", "sasl2-bin"}
	OpenSSL        = Peer{"openssl", "openssl"}
	Mandoc         = Peer{"mandoc", "mandoc"}
	PythonGRPC     = Peer{"/usr/bin/python3", "python3-grpcio"} // Debian's, which sees Debian's modules
	Doveadm        = Peer{"doveadm", "dovecot-core"}
	Htpasswd       = Peer{"htpasswd", "apache2-utils"}
	SQLite         = Peer{"sqlite3", "sqlite3"}
)

var binDir string

// Main builds valetkeyd and valetkey, unless VALETKEY_BIN_DIR names a directory that has them, checks that the peers are
// installed, and runs the tests. It returns the exit code. A missing peer is a failure, never a reason to skip.
func Main(m *testing.M, peers ...Peer) int {
	missing := map[string]bool{}
	for _, p := range peers {
		if _, err := lookProgram(p.program); err != nil {
			missing[p.pkg] = true
		}
	}
	if len(missing) > 0 {
		var names []string
		for n := range missing {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "harness: missing peers, install the Debian packages: %s\nhint: run test/install-peers\n", strings.Join(names, " "))
		return 1
	}
	if dir := os.Getenv("VALETKEY_BIN_DIR"); dir != "" {
		binDir = dir
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "vkbin-")
	if err != nil {
		fmt.Fprintf(os.Stderr, "harness: %v\n", err)
		return 1
	}
	defer os.RemoveAll(dir)
	args := []string{"build", "-o", dir + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/valetkey/valetkey/cmd/...")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "harness: build the programs: %v\n", err)
		return 1
	}
	binDir = dir
	return m.Run()
}

// Program returns the path of one of our built programs.
func Program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(binDir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("built program is missing: %v", err)
	}
	return path
}

// lookProgram finds a program on the path, in the system directories, or among the Postgres server programs, which Debian
// keeps apart; of several versions the newest.
func lookProgram(name string) (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	version := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	sort.Slice(dirs, func(i, j int) bool { return version(dirs[i]) > version(dirs[j]) })
	dirs = append(dirs, "/usr/sbin", "/sbin", "/usr/lib/postfix/sbin", eximDir+"/usr/sbin")
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

func program(t testing.TB, p Peer, name string) string {
	t.Helper()
	path, err := lookProgram(name)
	if err != nil {
		t.Fatalf("%v: install the Debian package %s", err, p.pkg)
	}
	return path
}

// Dir makes a directory with a short path, for Unix sockets, that other users may search: Postgres and Postfix run as
// users of their own. It is removed at the end of the test; a process that still works in it then is a fault of the test
// or of what it tested, and is killed.
func Dir(t testing.TB) string {
	t.Helper()
	base := os.TempDir()
	if len(base) > 40 || !searchable(base) {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "vk-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Poll(2*time.Second, func() bool { return len(ProcessesIn(dir)) == 0 })
		for _, pid := range ProcessesIn(dir) {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			t.Errorf("process %d still runs in %s: %q", pid, dir, strings.ReplaceAll(string(cmdline), "\x00", " "))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	return dir
}

func searchable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == "/" || dir == "." {
			return true
		}
	}
}

// FreePort returns a TCP port on which nothing listens at 127.0.0.1, and gives it to nobody else as long as the test program runs,
// be it another one. It lies below the range from which the kernel takes ports for outgoing connections, so that none of those can
// take it meanwhile.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		if !reserve(t, port) {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// reserve marks a port as taken. An abstract Unix socket is gone with its process, however that ends (unix(7)).
func reserve(t testing.TB, port int) bool {
	t.Helper()
	mark, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fmt.Sprintf("@valetkey-test-port-%d", port), Net: "unixgram"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	if err != nil {
		t.Fatalf("reserve port %d: %v", port, err)
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.marks = append(reserved.marks, mark) // kept open
	return true
}

var reserved struct {
	sync.Mutex
	marks []net.Conn
}

// account is a system user under which a peer runs.
func account(t testing.TB, name string, p Peer) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("%v: install the Debian package %s", err, p.pkg)
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}
