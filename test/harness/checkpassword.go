package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// The programs by which a server is run that starts a checkpassword program itself, as qmail's POP3 server does.
var (
	TCPServer = Peer{"tcpserver", "ucspi-tcp"}
	SoftLimit = Peer{"softlimit", "daemontools"}
)

// Helper returns a path at which every user may run valetkey-checkpassword, built as it is shipped (see HELPER_ARCH in the
// Makefile): its peers limit its address space.
func Helper(t testing.TB) (path string) {
	t.Helper()
	build, err := shippedHelper()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(build)
	if err != nil {
		t.Fatalf("built program is missing: %v", err)
	}
	path = filepath.Join(Dir(t), helperName)
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const helperName = "valetkey-checkpassword"

// shippedHelper builds it once. What VALETKEY_BIN_DIR has is taken for built already.
var shippedHelper = sync.OnceValues(func() (path string, err error) {
	if dir := os.Getenv("VALETKEY_BIN_DIR"); dir != "" {
		return filepath.Join(dir, helperName), nil
	}
	path = filepath.Join(binDir, "shipped-"+helperName)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/valetkey/valetkey/cmd/"+helperName)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if runtime.GOARCH == "amd64" {
		build.Env = append(build.Env, "GOARCH=386")
	}
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	return path, build.Run()
})
