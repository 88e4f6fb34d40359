package config

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Who shall come in decides the mode of the admin socket, unless it is written out.
func TestAdminMode(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want fs.FileMode
	}{
		"nobody else":       {"", 0o600},
		"admins":            {"[admin]\ngroup = \"adm\"", 0o660},
		"help desk":         {"[admin]\nhelp_desk_group = \"adm\"", 0o666},
		"read only":         {"[admin]\ngroup = \"adm\"\nread_only_group = \"mail\"", 0o666},
		"self-service":      {"[self_service]\nenabled = true", 0o666},
		"self-service, off": {"[self_service]\nenabled = false\ndomain = \"example.org\"", 0o600},
		"written out":       {"[admin]\nmode = \"0606\"\n[self_service]\nenabled = true", 0o606},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Load(Flags{File: write(t, tc.text)})
			if err != nil {
				t.Fatal(err)
			}
			if c.Admin.Mode != tc.want {
				t.Errorf("mode = %04o, want %04o", c.Admin.Mode, tc.want)
			}
		})
	}
}

func TestSelfService(t *testing.T) {
	c, err := Load(Flags{File: write(t, `[self_service]
enabled = true
domain = "Example.org"
min_uid = 500
services = ["IMAP", "smtp", "imap"]
networks = ["192.0.2.7", "2001:db8::/32"]`)})
	if err != nil {
		t.Fatal(err)
	}
	want := SelfService{Enabled: true, Domain: "example.org", MinUID: 500, Services: []string{"imap", "smtp"},
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32")}}
	if diff := cmp.Diff(want, c.Self, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("self_service (-want +got):\n%s", diff)
	}
}

func TestSelfServiceFaults(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"root":            {"[self_service]\nmin_uid = 0", "self_service.min_uid: 0 is not the first user id of people"},
		"an address":      {"[self_service]\ndomain = \"@example.org\"", "self_service.domain: "},
		"a space":         {"[self_service]\ndomain = \"example org\"", "self_service.domain: "},
		"service":         {"[self_service]\nservices = [\"i map\"]", "self_service.services: "},
		"network":         {"[self_service]\nnetworks = [\"home\"]", "self_service.networks: "},
		"unknown key":     {"[self_service]\nmap = \"name\"", "self_service.map: unknown key"},
		"mode too narrow": {"[admin]\nhelp_desk_group = \"adm\"\nmode = \"0660\"", "admin.mode: 0660 keeps those out"},
		"mode too wide":   {"[admin]\ngroup = \"adm\"\nmode = \"0666\"", "admin.mode: 0666 lets everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Flags{File: write(t, tc.text)})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want %q", err, tc.want)
			}
		})
	}
}
