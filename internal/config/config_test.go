package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "valetkey.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadWithoutAFile(t *testing.T) {
	got, err := Load(Flags{StateDir: "/s", LDAP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir: "/s",
		Pepper:   Pepper{File: "/s/pepper"},
		Admin:    Admin{Socket: "/s/run/admin.sock", Mode: 0o600},
		Self:     SelfService{MinUID: 1000},
		Password: Password{Length: 16, Limit: 25},
		Throttle: Throttle{Enabled: true},
		Log:      Log{Level: slog.LevelInfo},
		Notices:  Notices{ExpiresSoon: 14 * 24 * time.Hour, MaxAge: 2 * 24 * time.Hour, PerAccount: 10, PerHour: 1000},
		Enrolment: Enrolment{Require: "off", OnError: "last_known", LastKnown: 24 * time.Hour, Help: "enrol one", Timeout: time.Second, StartTimeout: 10 * time.Second,
			HealthEvery: 500 * time.Millisecond, HealthWithin: 400 * time.Millisecond, StopTimeout: 500 * time.Millisecond, MaxParallel: 64, MaxWaiting: 1024, Remembered: 100_000},
		Implied: true,
		Metrics: Metrics{Mode: 0o660},
		LDAP: []LDAP{{Socket: Socket{Listen: Address{"tcp", "127.0.0.1:0"}, Mode: 0o660, FailureDelay: NeverDelay}, BaseDN: "dc=example,dc=org", Service: "ldap",
			Conns: Conns{Connections: 1024, PerSource: 256, Handshakes: 128},
			Tree:  Tree{People: "ou=people", RDNAttribute: "uid", Groups: "ou=groups", Readers: "ou=readers", SearchEntries: 5000, SearchMiB: 8, SearchTime: time.Minute}}},
		Dovecot: []Dovecot{{Socket: Socket{Listen: Address{"unix", "/s/run/dovecot-auth"}, Mode: 0o660, FailureDelay: FailureDelay(2 * time.Second)}, Conns: Conns{Connections: 4096}, Tempfail: "auto"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

// The example, as it is and with every key uncommented, means the defaults.
func TestExampleIsTheDefaults(t *testing.T) {
	want, err := Load(Flags{})
	if err != nil {
		t.Fatal(err)
	}
	want.Implied = false // the example names them
	var all []string
	for _, line := range strings.Split(Example, "\n") {
		if key, _, isKey := strings.Cut(strings.TrimPrefix(line, "# "), " = "); isKey && !strings.Contains(key, " ") && key != "url" {
			line = strings.TrimPrefix(line, "# ")
		}
		all = append(all, line)
	}
	for name, text := range map[string]string{"as it is": Example, "uncommented": strings.Join(all, "\n")} {
		got, err := Load(Flags{File: write(t, text)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-defaults +example):\n%s", name, diff)
		}
	}
}

// The optional sections of the example are right as they stand, but for the files that they name.
func TestExampleOptions(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"dovecot-secret", "nginx-secret", "upstream-password"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(name[:1], 16)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	for line := range strings.Lines(Example) {
		if len(line) > 1 && line[0] == '#' && line[1] != ' ' {
			line = line[1:]
		}
		text.WriteString(strings.ReplaceAll(line, "/etc/valetkey", dir))
	}
	got, err := Load(Flags{File: write(t, text.String())})
	if err != nil {
		t.Fatal(err)
	}
	unix := func(name string) Socket {
		return Socket{Listen: Address{"unix", "/var/lib/valetkey/run/" + name}, Mode: 0o660}
	}
	want, err := Load(Flags{})
	if err != nil {
		t.Fatal(err)
	}
	want.Implied = false
	want.LDAP[0].Applications = []Application{{Name: "wiki", Group: "wiki-users", Service: "wiki"}}
	want.LDAP[0].Upstream = &Upstream{
		Kind: "openldap", URLs: []string{"ldaps://ldap1.example.org", "ldaps://ldap2.example.org"},
		BindDN: "cn=valetkey,ou=services,dc=example,dc=org", Password: strings.Repeat("u", 16),
	}
	want.Mail.IMAP = &MailServer{"imap.example.org", 993, "ssl"}
	want.Mail.POP3 = &MailServer{"pop.example.org", 995, "ssl"}
	want.Mail.SMTP = &MailServer{"smtp.example.org", 465, "ssl"}
	want.Hooks = []Hook{{Name: "kick", Command: []string{"/usr/local/lib/valetkey/kick-dovecot"}, Time: 10 * time.Second,
		Events: []auth.NoticeKind{auth.NoticeRevoked, auth.NoticeAccountDisabled, auth.NoticeAccountDeleted}}}
	want.Notices.SMTP = &NoticeSMTP{Host: "smtp.example.org", Port: 587, TLS: "starttls"}
	want.Saslauthd = []Saslauthd{{Socket: unix("mux"), Conns: Conns{Connections: 1024}}}
	want.Checkpassword = []Checkpassword{{Socket: unix("checkpassword"), Conns: Conns{Connections: 1024}}}
	want.HTTP = []HTTP{{
		Socket: Socket{Listen: Address{"tcp", "127.0.0.1:8389"}, Mode: 0o660},
		Conns:  Conns{Connections: 1024},
		Grant:  &Grant{ClientID: "dovecot", SecretFile: filepath.Join(dir, "dovecot-secret"), ClientSecret: strings.Repeat("d", 16)},
		Mail: &Mail{SecretHeader: "X-Auth-Key", SecretFile: filepath.Join(dir, "nginx-secret"), Secret: strings.Repeat("n", 16),
			Backends: map[string]netip.AddrPort{"imap": netip.MustParseAddrPort("127.0.0.1:143")}},
		Basic: &Basic{Service: "http", Realm: "app password", UserHeader: "Remote-User", SecretHeader: "X-Auth-Key"},
	}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	_, err := Load(Flags{File: write(t, `
state_dir = "relative"
colour = "blue"
[database]
url = "postgres://u:hunter2@db/x"
[admin]
mode = "0666"
[password]
length = 17
limit = "many"
[log]
level = "loud"
[[ldap]]
listen = "0.0.0.0:389"
[[ldap]]
listen = "unix:relative"
service = "two words"
[[dovecot]]
listen = "127.0.0.1:99"
tempfail = "maybe"
socket = "x"
[[dovecot]]
listen = "tcp:127.0.0.1:99"
mode = "rw"
`)})
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load = %v, want Faults", err)
	}
	want := []string{
		"state_dir", "database.url", "admin.mode", "password.length", "password.limit", "log.level",
		"ldap[1].listen", "ldap[2].listen", "ldap[2].service", "dovecot[1].tempfail", "dovecot[2].mode", "dovecot[2].listen",
		"colour", "dovecot[1].socket",
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the faults (-want +got):\n%s\n%v", diff, err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the faults hold the database's password: %v", err)
	}
}

func TestFaults(t *testing.T) {
	long := "unix:/" + strings.Repeat("x", 107)
	for name, tc := range map[string]struct{ text, want string }{
		"throttle, no section":       {"throttle = true", "throttle: it must be a section"},
		"throttle, not a yes":        {"[throttle]\nenabled = \"no\"", "throttle.enabled: it must be true or false"},
		"throttle, not a network":    {"[throttle]\ntrusted = [\"home\"]", "throttle.trusted: home is not a network"},
		"throttle, an unknown key":   {"[throttle]\nlockout = 5", "throttle.lockout: unknown key; known here: enabled, trusted"},
		"failure_delay, no time":     {"[[ldap]]\nfailure_delay = \"soon\"", `ldap[1].failure_delay: "soon" is not a time from 0s to 5s, such as "2s", nor "off"`},
		"failure_delay, too long":    {"[[dovecot]]\nfailure_delay = \"1m\"", "dovecot[1].failure_delay: \"1m\" is not a time"},
		"failure_delay, a negative":  {"[[saslauthd]]\nfailure_delay = \"-1s\"", "saslauthd[1].failure_delay: \"-1s\" is not a time"},
		"section as value":           {`database = "x"`, "database: it must be a section: write [database]"},
		"no entries":                 {"[[ldap]]\nsearch_entries = 0", "ldap[1].search_entries: 0 is not a number of entries"},
		"no bytes":                   {"[[ldap]]\nsearch_mib = -1", "ldap[1].search_mib: -1 is not a size"},
		"search time":                {"[[ldap]]\nsearch_time = \"60\"", "ldap[1].search_time: \"60\" is not a time"},
		"application, no name":       {"[[ldap]]\n[[ldap.application]]\ngroup = \"g\"", "ldap[1].application[1].name: it is missing"},
		"application, bad name":      {"[[ldap]]\n[[ldap.application]]\nname = \"Wiki\"", "ldap[1].application[1].name: \"Wiki\" is not a name"},
		"application twice":          {"[[ldap]]\n[[ldap.application]]\nname = \"w\"\n[[ldap.application]]\nname = \"w\"", "ldap[1].application[2].name: \"w\" is the name of another"},
		"application's group":        {"[[ldap]]\n[[ldap.application]]\nname = \"w\"\ngroup = \"a b\"", "ldap[1].application[1].group: \"a b\""},
		"application's service":      {"[[ldap]]\n[[ldap.application]]\nname = \"w\"\nservice = \"a b\"", "ldap[1].application[1].service: \"a b\""},
		"application's key":          {"[[ldap]]\n[[ldap.application]]\nname = \"w\"\ncolour = \"a b\"", "ldap[1].application[1].colour: unknown key"},
		"list as section":            {"[ldap]\nlisten = \"127.0.0.1:1\"", "ldap: it must be a list of sections: write [[ldap]]"},
		"not postgres":               {"[database]\nurl = \"mysql://x\"", "database.url: it must begin with postgres://"},
		"bad URL":                    {"[database]\nurl = \"postgres://u:p%zz@h/d?sslmode=disable\"", "database.url: it is not a URL"},
		"path too long":              {"[[dovecot]]\nlisten = \"" + long + "\"", "dovecot[1].listen: the path has 108 bytes"},
		"no host":                    {"[[ldap]]\nlisten = \":389\"", "ldap[1].listen: \":389\" names no host"},
		"metrics for everybody":      {"[metrics]\nlisten = \"0.0.0.0:9389\"\n", "whoever reaches it reads the metrics"},
		"metrics at another's place": {"[metrics]\nlisten = \"127.0.0.1:9389\"\n[[http]]\nlisten = \"127.0.0.1:9389\"\n[http.basic]\n", "already the address of http[1].listen"},
		"metrics, odd address":       {"[metrics]\nlisten = \"9389\"\n", "is not an address"},
		"metrics, unknown key":       {"[metrics]\nport = 9389\n", "unknown key"},
		"host name":                  {"[[ldap]]\nlisten = \"db.example.org:389\"", "names are not looked up here"},
		"number for text":            {"state_dir = 1", "state_dir: it must be text in quotes"},
		"admin socket taken":         {"[admin]\nsocket = \"/x\"\n[[dovecot]]\nlisten = \"unix:/x\"", "dovecot[1].listen: unix:/x is already the address of admin.socket"},
		"relative pepper":            {"[pepper]\nfile = \"p\"", "pepper.file: \"p\" is not an absolute path"},
		"plaintext to others":        {"[[ldap]]\nlisten = \"0.0.0.0:389\"", "passwords would travel in clear; give it a certificate with tls_cert and tls_key, listen on 127.0.0.1"},
		"no TLS there":               {"[[dovecot]]\nlisten = \"0.0.0.0:99\"", "in clear; listen on 127.0.0.1"},
		"TLS off, to others":         {"[[ldap]]\nlisten = \"0.0.0.0:389\"\ntls = \"off\"\ntls_cert = \"/c\"\ntls_key = \"/k\"", "ldap[1].listen: tcp:0.0.0.0:389 can be reached"},
		"bad TLS mode":               {"[[ldap]]\ntls = \"ssl\"\ntls_cert = \"/c\"\ntls_key = \"/k\"", "ldap[1].tls: \"ssl\" is not ldaps, starttls or off"},
		"LDAPS, no certificate":      {"[[ldap]]\ntls = \"ldaps\"", "ldap[1].tls_cert: it is missing"},
		"certificate, no key":        {"[[ldap]]\ntls_cert = \"/c\"", "ldap[1].tls_key: it is missing"},
		"key, no certificate":        {"[[ldap]]\ntls_key = \"/c\"", "ldap[1].tls_cert: it is missing"},
		"relative certificate":       {"[[ldap]]\ntls_cert = \"c\"\ntls_key = \"/k\"", "ldap[1].tls_cert: \"c\" is not an absolute path"},
		"TLS on a Unix socket":       {"[[ldap]]\nlisten = \"unix:/l\"\ntls_cert = \"/c\"\ntls_key = \"/k\"", "ldap[1].tls: a Unix socket never leaves this machine"},
		"saslauthd over TCP":         {"[[saslauthd]]\nlisten = \"127.0.0.1:1\"", "saslauthd[1].listen: tcp:127.0.0.1:1 is not a Unix socket"},
		"http without endpoint":      {"[[http]]", "http[1].basic: no endpoint is given"},
		"grant without secret":       {"[[http]]\n[http.dovecot_grant]", "http[1].dovecot_grant.client_secret_file: it is missing"},
		"secret file is missing":     {"[[http]]\n[http.dovecot_grant]\nclient_secret_file = \"/nonexistent\"", "no such file"},
		"nginx without backend":      {"[[http]]\n[http.nginx_mail]", "neither imap, pop3 nor smtp"},
		"bad backend":                {"[[http]]\n[http.nginx_mail]\nimap = \"localhost\"", "nginx_mail.imap: \"localhost\" is not ADDRESS:PORT"},
		"bad proxy":                  {"[[http]]\n[http.basic]\ntrusted_proxies = [\"x\"]", "http[1].basic.trusted_proxies: x is not a network"},
		"unknown nested key":         {"[[http]]\n[http.basic]\nrelm = \"x\"", "http[1].basic.relm: unknown key"},
		"known keys are offered":     {"[log]\nlvl = 1", "log.lvl: unknown key; known here: level"},
		"no connections":             {"[[ldap]]\nconnections = 0", "ldap[1].connections: 0 is not a number of connections from 1 to 65536"},
		"many connections":           {"[[dovecot]]\nconnections = 100000", "dovecot[1].connections: 100000 is not a number of connections"},
		"none from a source":         {"[[ldap]]\nconnections_per_source = 0", "ldap[1].connections_per_source: 0 is not a number of connections from 1"},
		"more than all":              {"[[dovecot]]\nconnections = 10\nconnections_per_source = 11", "dovecot[1].connections_per_source: 11 is more than connections, 10"},
		"sources of a socket":        {"[[saslauthd]]\nconnections_per_source = 5", "saslauthd[1].connections_per_source: unknown key"},
		"no handshakes":              {"[[ldap]]\nhandshakes = -1", "ldap[1].handshakes: -1 is not a number of connections"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Flags{File: write(t, tc.text)})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want %q in it", err, tc.want)
			}
		})
	}
}

// A syntax error must not quote the line that it is on.
func TestSyntaxErrorHoldsNoPassword(t *testing.T) {
	_, err := Load(Flags{File: write(t, "[database]\nurl = \"postgres://u:hunter2@db/x\n")})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Load = %v, want an error without the password", err)
	}
	if !strings.Contains(err.Error(), ":2:") {
		t.Errorf("Load = %v, want the line's number", err)
	}
}

func TestReadableFileWithPassword(t *testing.T) {
	path := write(t, "[database]\nurl = \"postgres://u:p@db/x?sslmode=verify-full\"\n")
	if _, err := Load(Flags{File: path}); err != nil {
		t.Errorf("mode 0600: Load = %v, want nil", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Flags{File: path}); err == nil || !strings.Contains(err.Error(), "chmod o=") {
		t.Errorf("mode 0644: Load = %v, want a fault with the cure", err)
	}
}

func TestFlagsOverTheFile(t *testing.T) {
	got, err := Load(Flags{File: write(t, "state_dir = \"/a\"\n[[ldap]]\nbase_dn = \"dc=x\""), StateDir: "/b", LDAP: "unix:/l"})
	if err != nil {
		t.Fatal(err)
	}
	if got.StateDir != "/b" || got.LDAP[0].Listen != (Address{"unix", "/l"}) || got.LDAP[0].BaseDN != "dc=x" || len(got.Dovecot) != 0 {
		t.Errorf("Load = %+v, want the flags' state directory and LDAP address, the file's base and no Dovecot listener", got)
	}
	two := write(t, "[[ldap]]\nlisten=\"127.0.0.1:1\"\n[[ldap]]\nlisten=\"127.0.0.1:2\"")
	if _, err := Load(Flags{File: two, LDAP: "127.0.0.1:3"}); err == nil || !strings.Contains(err.Error(), "--ldap") {
		t.Errorf("--ldap with two listeners: Load = %v, want a fault", err)
	}
}

func TestTLS(t *testing.T) {
	const pair = "tls_cert = \"/c\"\ntls_key = \"/k\"\n"
	for name, tc := range map[string]struct {
		text string
		want TLS
	}{
		"none":                   {"", TLS{}},
		"off":                    {"tls = \"off\"\n" + pair, TLS{}},
		"default":                {pair, TLS{"starttls", "/c", "/k", false}},
		"StartTLS to others":     {"listen = \"0.0.0.0:389\"\n" + pair, TLS{"starttls", "/c", "/k", false}},
		"required on loopback":   {"allow_plaintext = false\n" + pair, TLS{"starttls", "/c", "/k", true}},
		"plaintext allowed":      {"allow_plaintext = true\n" + pair, TLS{"starttls", "/c", "/k", false}},
		"LDAPS":                  {"tls = \"ldaps\"\n" + pair, TLS{"ldaps", "/c", "/k", false}},
		"no TLS, required":       {"allow_plaintext = false\n", TLS{}},
		"socket of systemd's":    {"listen = \"systemd:x\"\n" + pair, TLS{"starttls", "/c", "/k", false}},
		"LDAPS in another place": {"listen = \"192.0.2.1:636\"\ntls = \"ldaps\"\n" + pair, TLS{"ldaps", "/c", "/k", false}},
	} {
		got, err := Load(Flags{File: write(t, "[[ldap]]\n"+tc.text)})
		if err != nil || got.LDAP[0].TLS != tc.want {
			t.Errorf("%s: Load = %+v, %v, want %+v", name, got, err, tc.want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Load(Flags{File: "/nonexistent/x.toml"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load = %v, want fs.ErrNotExist", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(Example)
	f.Add("[[ldap]]\nlisten = \"[::1]:389\"\n[database]\nurl=\"postgres://u:p@h/d\"")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Load(Flags{File: write(t, text)})
		if (c == nil) == (err == nil) {
			t.Errorf("Load = %v, %v, want one of them", c, err)
		}
	})
}

func TestFailureDelay(t *testing.T) {
	c, err := Load(Flags{File: write(t, `
[throttle]
enabled = false
trusted = ["192.0.2.7", "198.51.100.9/28"]
[[ldap]]
failure_delay = "1500ms"
[[dovecot]]
failure_delay = "off"
[[saslauthd]]
[[checkpassword]]
failure_delay = "5s"
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := Throttle{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("198.51.100.0/28")}}
	if diff := cmp.Diff(want, c.Throttle, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("Throttle (-want +got):\n%s", diff)
	}
	got := []FailureDelay{c.LDAP[0].FailureDelay, c.Dovecot[0].FailureDelay, c.Saslauthd[0].FailureDelay, c.Checkpassword[0].FailureDelay}
	if diff := cmp.Diff([]FailureDelay{FailureDelay(1500 * time.Millisecond), NeverDelay, 0, FailureDelay(5 * time.Second)}, got); diff != "" {
		t.Errorf("FailureDelay (-want +got):\n%s", diff)
	}
}
