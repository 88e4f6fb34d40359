package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/admin"
)

// plist writes an Apple property list, as far as a profile needs one.
type plist struct{ bytes.Buffer }

func (p *plist) text(tag, s string) {
	p.WriteString("<" + tag + ">")
	xml.EscapeText(p, []byte(s))
	p.WriteString("</" + tag + ">\n")
}

// entry writes a key with a string, a number or a truth value.
func (p *plist) entry(key string, value any) {
	p.text("key", key)
	switch v := value.(type) {
	case string:
		p.text("string", v)
	case int:
		p.text("integer", fmt.Sprint(v))
	case bool:
		fmt.Fprintf(p, "<%t/>\n", v)
	}
}

// stableUUID is the same for the same names: a device that gets the profile again replaces the old one, instead of having the account
// twice. The form is that of RFC 9562 section 5.8.
func stableUUID(names ...string) string {
	h := sha256.Sum256([]byte("valetkey mobileconfig\x00" + strings.Join(names, "\x00")))
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

// mobileconfig is a configuration profile with one mail account (Apple, "Configuration Profile Reference", payload com.apple.mail.managed). It is not signed:
// the device says so and asks. The secret stands in it.
func mobileconfig(m admin.MailSettings, label, secret string) []byte {
	account, profile := stableUUID("account", m.Domain, m.Login, label), stableUUID("profile", m.Domain, m.Login, label)
	parts := strings.Split(strings.ToLower(m.Domain), ".")
	slices.Reverse(parts)
	identifier := strings.Join(parts, ".") + ".valetkey." + strings.ToLower(profile)
	kind, incoming := "EmailTypeIMAP", m.IMAP
	if incoming == nil {
		kind, incoming = "EmailTypePOP", m.POP3
	}
	var p plist
	p.WriteString(xml.Header + `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>PayloadContent</key>
<array>
<dict>
`)
	for _, e := range []struct {
		key   string
		value any
	}{
		{"EmailAccountDescription", m.Organisation},
		{"EmailAccountName", m.DisplayName},
		{"EmailAccountType", kind},
		{"EmailAddress", m.Address},
		{"IncomingMailServerAuthentication", "EmailAuthPassword"},
		{"IncomingMailServerHostName", incoming.Host},
		{"IncomingMailServerPortNumber", incoming.Port},
		{"IncomingMailServerUseSSL", true}, // STARTTLS too: the device finds out by the port
		{"IncomingMailServerUsername", m.Login},
		{"IncomingPassword", secret},
		{"OutgoingMailServerAuthentication", "EmailAuthPassword"},
		{"OutgoingMailServerHostName", m.SMTP.Host},
		{"OutgoingMailServerPortNumber", m.SMTP.Port},
		{"OutgoingMailServerUseSSL", true},
		{"OutgoingMailServerUsername", m.Login},
		{"OutgoingPasswordSameAsIncomingPassword", true},
		{"PayloadDescription", "Mail account " + m.Address},
		{"PayloadDisplayName", "Mail: " + m.Address},
		{"PayloadIdentifier", identifier + ".mail"},
		{"PayloadType", "com.apple.mail.managed"},
		{"PayloadUUID", account},
		{"PayloadVersion", 1},
	} {
		p.entry(e.key, e.value)
	}
	p.WriteString("</dict>\n</array>\n")
	p.entry("PayloadDescription", fmt.Sprintf("Mail for %s, with the app password %q", m.Address, label))
	p.entry("PayloadDisplayName", m.Organisation+": "+label)
	p.entry("PayloadIdentifier", identifier)
	p.entry("PayloadOrganization", m.Organisation)
	p.entry("PayloadRemovalDisallowed", false)
	p.entry("PayloadType", "Configuration")
	p.entry("PayloadUUID", profile)
	p.entry("PayloadVersion", 1)
	p.WriteString("</dict>\n</plist>\n")
	return p.Bytes()
}

// autoconfigServer is an incomingServer or outgoingServer.
type autoconfigServer struct {
	Type           string `xml:"type,attr"`
	Hostname       string `xml:"hostname"`
	Port           int    `xml:"port"`
	SocketType     string `xml:"socketType"`
	Authentication string `xml:"authentication"`
	Username       string `xml:"username"`
}

// autoconfig is a file as Thunderbird's autoconfig reads it (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat). No secret is in it.
func autoconfig(m admin.MailSettings) []byte {
	type provider struct {
		ID               string             `xml:"id,attr"`
		Domain           string             `xml:"domain"`
		DisplayName      string             `xml:"displayName"`
		DisplayShortName string             `xml:"displayShortName"`
		Incoming         []autoconfigServer `xml:"incomingServer"`
		Outgoing         []autoconfigServer `xml:"outgoingServer"`
	}
	server := func(kind string, s *admin.MailServer) autoconfigServer {
		socket := "SSL"
		if s.Socket == "starttls" {
			socket = "STARTTLS"
		}
		// password-cleartext: PLAIN or LOGIN; the socket protects it.
		return autoconfigServer{kind, s.Host, s.Port, socket, "password-cleartext", m.Login}
	}
	p := provider{ID: m.Domain, Domain: m.Domain, DisplayName: m.Organisation, DisplayShortName: m.Organisation}
	if m.IMAP != nil {
		p.Incoming = append(p.Incoming, server("imap", m.IMAP))
	}
	if m.POP3 != nil {
		p.Incoming = append(p.Incoming, server("pop3", m.POP3))
	}
	p.Outgoing = append(p.Outgoing, server("smtp", m.SMTP))
	text, err := xml.MarshalIndent(struct {
		XMLName  xml.Name `xml:"clientConfig"`
		Version  string   `xml:"version,attr"`
		Provider provider `xml:"emailProvider"`
	}{Version: "1.1", Provider: p}, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return append([]byte(xml.Header), append(text, '\n')...)
}
