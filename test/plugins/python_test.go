package plugins_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin/host"
	"github.com/valetkey/valetkey/plugin/plugintest"
	"github.com/valetkey/valetkey/test/harness"
)

// TestPython holds the example in another language to all that is asked of a plugin, and lets the daemon's side run it.
func TestPython(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "alice"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs("../../docs/examples/valetkey-2fa-example.py")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("suite", func(t *testing.T) {
		plugintest.Run(t, plugintest.Config{Path: path, Args: []string{folder}, Within: 10 * time.Second,
			Accounts: []plugintest.Account{enrolled("alice"), notEnrolled("bob"), unknown("../alice")}})
	})
	t.Run("host", func(t *testing.T) {
		ask := askHost(t, host.Config{Path: path, Args: []string{folder}})
		var got string
		if !harness.Poll(harness.Patience, func() bool {
			got, err = ask("alice")
			return err == nil
		}) {
			t.Fatal(err)
		}
		if got != "enrolled" {
			t.Errorf("alice is %s", got)
		}
		// A file that cannot be looked at says nothing about its owner.
		if err := os.Symlink("loop", filepath.Join(folder, "loop")); err != nil {
			t.Fatal(err)
		}
		if got, err := ask("loop"); err == nil {
			t.Errorf("whose file cannot be looked at is %s, want an error", got)
		}
		if err := os.Rename(folder, folder+".away"); err != nil {
			t.Fatal(err)
		}
		defer os.Rename(folder+".away", folder)
		if got, err := ask("alice"); err == nil {
			t.Errorf("without the folder alice is %s, want an error", got)
		}
	})
}
