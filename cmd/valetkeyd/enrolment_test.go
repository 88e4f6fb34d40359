package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/config"
)

// What only the file system tells of a plugin is a fault of the configuration, with the key and the cure; a wrong checksum only where
// somebody looks on.
func TestLoadChecksThePlugin(t *testing.T) {
	dir := t.TempDir()
	program := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/true\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := program("good", 0o755)
	for _, c := range []struct {
		name, plugin, more, stateDir string
		key, want                    string // of the fault
		looked                       string // the key of the one that --check-config finds in addition
	}{
		{"good", good, "", "/s", "", "", ""},
		{"missing", filepath.Join(dir, "none"), "", "/s", "enrolment.plugin", "no such file", ""},
		{"written by everybody", program("open", 0o777), "", "/s", "enrolment.plugin", "run: chmod go-w", ""},
		{"not executable", program("text", 0o644), "", "/s", "enrolment.plugin", "run: chmod a+x", ""},
		{"wrong checksum", good, `checksum = "` + strings.Repeat("0", 64) + `"`, "/s", "", "", "enrolment.checksum"},
		{"no room for the socket", good, "", "/" + strings.Repeat("s", 40), "enrolment.plugin", "state_dir of at most 36 bytes", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "valetkeyd.toml")
			if err := os.WriteFile(file, fmt.Appendf(nil, "[enrolment]\nplugin = %q\n%s\n", c.plugin, c.more), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := load(config.Flags{File: file, StateDir: c.stateDir}, nil)
			var faults config.Faults
			switch {
			case c.want == "" && err != nil:
				t.Fatalf("load = %v, want no fault", err)
			case c.want != "":
				if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Key != c.key || !strings.Contains(faults[0].Text, c.want) {
					t.Errorf("load = %v, want one fault of %s with %q", err, c.key, c.want)
				}
				return
			}
			if faults = checkEnrolment(cfg, true); c.looked == "" && len(faults) > 0 || c.looked != "" && (len(faults) != 1 || faults[0].Key != c.looked) {
				t.Errorf("checkEnrolment with the checksum = %v, want the key %q", faults, c.looked)
			}
		})
	}
}

// Every key but those of the policy needs another process. A key that is added later must be one or the other.
func TestSameProgram(t *testing.T) {
	policy := map[string]bool{"Require": true, "OnError": true, "LastKnown": true, "Help": true}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Enrolment]()) {
		var changed config.Enrolment
		switch v := reflect.ValueOf(&changed).Elem().FieldByIndex(f.Index); v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Slice:
			v.Set(reflect.ValueOf([]string{"x"}))
		default:
			v.SetInt(1)
		}
		if got := sameProgram(config.Enrolment{}, changed); got != policy[f.Name] {
			t.Errorf("sameProgram with another %s = %v, want %v", f.Name, got, policy[f.Name])
		}
	}
}
