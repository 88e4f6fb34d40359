package harness

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// HandOver returns cmd as systemd would run it with these sockets open, by FileDescriptorName= (sd_listen_fds(3)). The files stay the
// caller's: whoever connects between two starts waits in their backlog.
func HandOver(cmd *exec.Cmd, sockets map[string]*os.File) *exec.Cmd {
	names := slices.Sorted(maps.Keys(sockets))
	// LISTEN_PID is the id of the program itself, which the shell has before it becomes that.
	shell := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
	shell.Env = append(cmd.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	shell.Dir = cmd.Dir
	for _, name := range names {
		shell.ExtraFiles = append(shell.ExtraFiles, sockets[name])
	}
	return shell
}

// Unit is what a unit file says (systemd.syntax(7)): section, key, values in the order of the file.
type Unit map[string]map[string][]string

// ParseUnits reads unit files that stand one after the other, each after a line with "# " and its path. It returns them by the last
// part of that.
func ParseUnits(text string) (map[string]Unit, error) {
	units := map[string]Unit{}
	var unit Unit
	var section string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if path, ok := strings.CutPrefix(line, "# /"); ok {
			unit, section = Unit{}, ""
			units[path[strings.LastIndexByte(path, '/')+1:]] = unit
			continue
		}
		key, value, isSetting := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case unit == nil:
			return nil, fmt.Errorf("%q belongs to no unit: each begins with its path in a comment", line)
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			unit[section] = map[string][]string{}
		case !isSetting || section == "":
			return nil, fmt.Errorf("%q is no setting of a section", line)
		default:
			unit[section][key] = append(unit[section][key], value)
		}
	}
	return units, nil
}

// Get is the only value of a key; empty if there is none or more than one.
func (u Unit) Get(section, key string) string {
	if values := u[section][key]; len(values) == 1 {
		return values[0]
	}
	return ""
}
