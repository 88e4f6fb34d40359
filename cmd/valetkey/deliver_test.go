package main

import (
	"bytes"
	"encoding/xml"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/admin"
)

// screen draws what a terminal would show of the half blocks, with its own colours where the text does not set any.
func screen(t *testing.T, text string, background color.Gray) image.Image {
	t.Helper()
	const scale, around = 6, 3 // pixels to a module; cells around the code
	const begin = "\x1b[38;5;16;48;5;231m"
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	var rows [][]rune
	for _, line := range lines {
		inner, ok := strings.CutPrefix(line, begin)
		inner, ended := strings.CutSuffix(inner, "\x1b[0m")
		if !ok || !ended || strings.Contains(inner, "\x1b") {
			t.Fatalf("a line does not set and reset its colours: %q", line)
		}
		rows = append(rows, []rune(inner))
	}
	img := image.NewGray(image.Rect(0, 0, (len(rows[0])+2*around)*scale, (2*len(rows)+2*around)*scale))
	for i := range img.Pix {
		img.Pix[i] = background.Y
	}
	for y, row := range rows {
		if len(row) != len(rows[0]) {
			t.Fatalf("line %d has %d characters, the first has %d", y, len(row), len(rows[0]))
		}
		for x, c := range row {
			for half := range 2 {
				black := c == '█' || c == '▀' && half == 0 || c == '▄' && half == 1
				if !strings.ContainsRune("█▀▄ ", c) {
					t.Fatalf("the code has a %q", c)
				}
				for i := range scale * scale {
					v := color.Gray{0xff}
					if black {
						v.Y = 0
					}
					img.SetGray((x+around)*scale+i%scale, (2*y+half+around)*scale+i/scale, v)
				}
			}
		}
	}
	return img
}

// Debian's zbarimg reads the code, on a dark terminal and on a light one.
func TestQRCodeIsRead(t *testing.T) {
	for _, secret := range []string{"abcd-efgh-ijkl-mnop", "abcd-efgh-ijkl-mnop-qrst-uvwx"} {
		var out bytes.Buffer
		if err := printQR(&out, secret); err != nil {
			t.Fatal(err)
		}
		for _, background := range []color.Gray{{0}, {0xff}, {0x60}} {
			file := filepath.Join(t.TempDir(), "code.png")
			var b bytes.Buffer
			if err := png.Encode(&b, screen(t, out.String(), background)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := exec.Command("zbarimg", "--quiet", "--raw", "--oneshot", file).Output()
			if err != nil || strings.TrimSpace(string(got)) != secret {
				t.Errorf("zbarimg on background %#x = %q, %v, want %q (package zbar-tools; test/install-peers)", background.Y, got, err, secret)
			}
		}
		for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			if n := len([]rune(regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(line, ""))); n > 60 {
				t.Fatalf("the code is %d columns wide, a terminal may have 60", n)
			}
		}
	}
}

var hostile = admin.MailSettings{
	Login: "alice", Address: "alice@example.org", DisplayName: `A <b> & "c" ]]> 'd'`, Domain: "example.org", Organisation: "Müller & Söhne </string><key>x</key>",
	IMAP: &admin.MailServer{Host: "imap.example.org", Port: 993, Socket: "ssl"},
	SMTP: &admin.MailServer{Host: "smtp.example.org", Port: 587, Socket: "starttls"},
}

// plistValue reads a property list: libplist's plistutil checks it on the way.
func plistValue(t *testing.T, text []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	in, binary, back := filepath.Join(dir, "in"), filepath.Join(dir, "bin"), filepath.Join(dir, "back")
	if err := os.WriteFile(in, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// To binary and back: what is lost on the way was no property list.
	for _, step := range [][]string{{"-i", in, "-o", binary, "-f", "bin"}, {"-i", binary, "-o", back, "-f", "xml"}} {
		if out, err := exec.Command("plistutil", step...).CombinedOutput(); err != nil {
			t.Fatalf("plistutil %v: %v %s (package libplist-utils; test/install-peers)", step, err, out)
		}
	}
	text, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	d, values, path := xml.NewDecoder(bytes.NewReader(text)), map[string]string{}, []string{}
	key := ""
	for {
		token, err := d.Token()
		if err != nil {
			break
		}
		switch e := token.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "dict", "array":
				path = append(path, key)
			case "true", "false":
				values[strings.Join(path[1:], "/")+"/"+key] = e.Name.Local
			case "key":
				if err := d.DecodeElement(&key, &e); err != nil {
					t.Fatal(err)
				}
			case "string", "integer":
				var v string
				if err := d.DecodeElement(&v, &e); err != nil {
					t.Fatal(err)
				}
				values[strings.Join(path[1:], "/")+"/"+key] = v
			}
		case xml.EndElement:
			if e.Name.Local == "dict" || e.Name.Local == "array" {
				path = path[:len(path)-1]
			}
		}
	}
	return values
}

// The keys and values are those of Apple's documentation of the Configuration and com.apple.mail.managed payloads.
func TestMobileconfig(t *testing.T) {
	text := mobileconfig(hostile, `phone & "tablet" <1>`, "abcd-efgh-ijkl-mnop")
	got := plistValue(t, text)
	uuid := regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)
	const mail = "PayloadContent/PayloadContent" // the dict in the array
	account, profile := got[mail+"/PayloadUUID"], got["/PayloadUUID"]
	if !uuid.MatchString(account) || !uuid.MatchString(profile) || account == profile {
		t.Errorf("UUIDs %q and %q, want two of version 8", account, profile)
	}
	identifier := "org.example.valetkey." + strings.ToLower(profile)
	want := map[string]string{
		"/PayloadDescription": `Mail for alice@example.org, with the app password "phone & \"tablet\" <1>"`, "/PayloadDisplayName": hostile.Organisation + `: phone & "tablet" <1>`,
		"/PayloadIdentifier": identifier, "/PayloadOrganization": hostile.Organisation, "/PayloadRemovalDisallowed": "false", "/PayloadType": "Configuration",
		"/PayloadUUID": profile, "/PayloadVersion": "1",
	}
	for key, value := range map[string]string{
		"EmailAccountDescription": hostile.Organisation, "EmailAccountName": hostile.DisplayName, "EmailAccountType": "EmailTypeIMAP", "EmailAddress": "alice@example.org",
		"IncomingMailServerAuthentication": "EmailAuthPassword", "IncomingMailServerHostName": "imap.example.org", "IncomingMailServerPortNumber": "993",
		"IncomingMailServerUseSSL": "true", "IncomingMailServerUsername": "alice", "IncomingPassword": "abcd-efgh-ijkl-mnop",
		"OutgoingMailServerAuthentication": "EmailAuthPassword", "OutgoingMailServerHostName": "smtp.example.org", "OutgoingMailServerPortNumber": "587",
		"OutgoingMailServerUseSSL": "true", "OutgoingMailServerUsername": "alice", "OutgoingPasswordSameAsIncomingPassword": "true",
		"PayloadDescription": "Mail account alice@example.org", "PayloadDisplayName": "Mail: alice@example.org", "PayloadIdentifier": identifier + ".mail",
		"PayloadType": "com.apple.mail.managed", "PayloadUUID": account, "PayloadVersion": "1",
	} {
		want[mail+"/"+key] = value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("profile (-want +got):\n%s", diff)
	}

	// The same account again is the same profile, whatever the secret; another label is another one.
	if again := plistValue(t, mobileconfig(hostile, `phone & "tablet" <1>`, "zzzz-efgh-ijkl-mnop")); again["/PayloadUUID"] != profile || again[mail+"/PayloadUUID"] != account {
		t.Error("another secret makes other UUIDs")
	}
	if other := plistValue(t, mobileconfig(hostile, "tablet", "abcd-efgh-ijkl-mnop")); other["/PayloadUUID"] == profile {
		t.Error("another label has the same UUID")
	}
	pop := hostile
	pop.IMAP, pop.POP3 = nil, &admin.MailServer{Host: "pop.example.org", Port: 995, Socket: "ssl"}
	if got := plistValue(t, mobileconfig(pop, "x", "y")); got[mail+"/EmailAccountType"] != "EmailTypePOP" || got[mail+"/IncomingMailServerHostName"] != "pop.example.org" {
		t.Errorf("profile without IMAP = %v", got)
	}
}

func TestAutoconfig(t *testing.T) {
	m := hostile
	m.POP3 = &admin.MailServer{Host: "pop.example.org", Port: 995, Socket: "ssl"}
	want := `<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="example.org">
    <domain>example.org</domain>
    <displayName>Müller &amp; Söhne &lt;/string&gt;&lt;key&gt;x&lt;/key&gt;</displayName>
    <displayShortName>Müller &amp; Söhne &lt;/string&gt;&lt;key&gt;x&lt;/key&gt;</displayShortName>
    <incomingServer type="imap">
      <hostname>imap.example.org</hostname>
      <port>993</port>
      <socketType>SSL</socketType>
      <authentication>password-cleartext</authentication>
      <username>alice</username>
    </incomingServer>
    <incomingServer type="pop3">
      <hostname>pop.example.org</hostname>
      <port>995</port>
      <socketType>SSL</socketType>
      <authentication>password-cleartext</authentication>
      <username>alice</username>
    </incomingServer>
    <outgoingServer type="smtp">
      <hostname>smtp.example.org</hostname>
      <port>587</port>
      <socketType>STARTTLS</socketType>
      <authentication>password-cleartext</authentication>
      <username>alice</username>
    </outgoingServer>
  </emailProvider>
</clientConfig>
`
	if diff := cmp.Diff(want, string(autoconfig(m))); diff != "" {
		t.Errorf("autoconfig (-want +got):\n%s", diff)
	}
}

func TestNewFile(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name, text string) {
		if err := os.WriteFile(path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(name, text string, mode os.FileMode) {
		t.Helper()
		got, err := os.ReadFile(path(name))
		info, _ := os.Stat(path(name))
		if err != nil || string(got) != text || info.Mode() != mode {
			t.Errorf("%s = %q, %v, mode %v, want %q, mode %v", name, got, err, info.Mode(), text, mode)
		}
	}
	write := func(name string, force bool, meanwhile func()) error {
		f, err := createFile(path(name), force)
		if err != nil {
			return err
		}
		if meanwhile != nil {
			meanwhile()
		}
		return f.write([]byte("new"))
	}
	if err := write("fresh", false, nil); err != nil {
		t.Error(err)
	}
	want("fresh", "new", 0o600)
	put("taken", "old")
	if err := write("taken", false, nil); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a file that exists: %v, want a refusal", err)
	}
	want("taken", "old", 0o644)
	if err := write("taken", true, nil); err != nil {
		t.Error(err)
	}
	want("taken", "new", 0o600) // not the old mode
	if err := write("late", false, func() { put("late", "old") }); err == nil {
		t.Error("a file that somebody made meanwhile was replaced")
	}
	want("late", "old", 0o644)
	put("aim", "old")
	if err := os.Symlink(path("aim"), path("link")); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if err := write("link", force, nil); err == nil {
			t.Error("a symbolic link was followed or replaced")
		}
	}
	want("aim", "old", 0o644)
	f, err := createFile(path("given up"), false)
	if err != nil {
		t.Fatal(err)
	}
	f.abandon()
	if left, _ := filepath.Glob(path(".valetkey-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(path("given up")); err == nil {
		t.Error("an abandoned file is there")
	}
}
