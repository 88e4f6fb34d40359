package ldapbridge

import (
	"strings"
	"testing"
)

func defaultLimits(t testing.TB) *Limits {
	t.Helper()
	var l Limits
	if err := l.setDefaults(); err != nil {
		t.Fatal(err)
	}
	return &l
}

func TestDN(t *testing.T) {
	tests := []struct{ in, want string }{ // want "!": refused
		{"", ""},
		{" ", "!"},
		{",", "!"},
		{"uid", "!"},
		{"uid=", "uid="},
		{"uid= ", "uid="},
		{"uid=alice", "uid=alice"},
		{"  UID  =  alice  ", "uid=alice"},
		{"uid=alice,", "!"},
		{",uid=alice", "!"},
		{"uid=alice,,dc=org", "!"},
		{"uid=alice;dc=org", "!"},
		{"uid=a+cn=b , dc=org", "uid=a+cn=b,dc=org"},
		{"uid=a+", "!"},
		{"=alice", "!"},
		{"1=alice", "1=alice"},
		{"1.2.=alice", "!"},
		{"1..2=alice", "!"},
		{"2.5.4.3=alice", "cn=alice"},
		{"rfc822mailbox=x", "mail=x"},
		{"X-Other=x", "x-other=x"},
		{"u id=x", "!"},
		{"u_id=x", "!"},
		{"uid=a=b", "uid=a=b"},
		{"uid=#04", "!"},
		{`uid=\#04`, `uid=\#04`},
		{"uid=a#", "uid=a#"},
		{`uid="alice"`, "!"},
		{"uid=a<b", "!"},
		{`uid=a\<b`, `uid=a\<b`},
		{`uid=\41\,\2c\3D\\`, `uid=A\,\,=\\`},
		{`uid=a\ `, `uid=a\ `},
		{`uid=a\   `, `uid=a\ `},
		{`uid=\ a`, `uid=\ a`},
		{`uid=a\20  ,cn=b\20`, `uid=a\ ,cn=b\ `},
		{`uid=a  b`, `uid=a  b`},
		{`uid=\`, "!"},
		{`uid=\4`, "!"},
		{`uid=\4g`, "!"},
		{`uid=a\00`, "!"},
		{"uid=a\x00", "!"},
		{`uid=a\0a`, "!"},
		{"uid=a\tb", "!"},
		{`uid=a\7f`, "!"},
		{"uid=a\u0085", "!"},
		{"uid=a\xff", "!"},
		{`uid=a\ff`, "!"},
		{`uid=\C3\A9`, "uid=é"},
		{"uid=\xc3\\A9", "!"},
		{"uid=é", "uid=é"},
		{strings.Repeat("dc=x,", 31) + "dc=x", strings.Repeat("dc=x,", 31) + "dc=x"},
		{strings.Repeat("dc=x,", 32) + "dc=x", "!"},
		{strings.Repeat("dc=x+", 63) + "dc=x", strings.Repeat("dc=x+", 63) + "dc=x"},
		{strings.Repeat("dc=x+", 64) + "dc=x", "!"},
		{"uid=" + strings.Repeat("x", 1020), "uid=" + strings.Repeat("x", 1020)},
		{"uid=" + strings.Repeat("x", 1021), "!"},
	}
	l := defaultLimits(t)
	var d dn // reused, as a connection does
	for _, tt := range tests {
		got := "!"
		if d.parse([]byte(tt.in), l) == nil {
			got = d.String()
		}
		if got != tt.want {
			t.Errorf("parse(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDNEqual(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"dc=example,dc=org", "DC = EXAMPLE, domainComponent=org", true},
		{"cn=A   B", "cn= a b ", true},
		{"cn=ab", "cn=a b", false},
		{"cn=Ä", "cn=\u0041\u0308", true},
		{"cn=a+sn=b", "surname=B+cn=A", true},
		{"cn=a+cn=b", "cn=a+cn=a", false},
		{"cn=a", "cn=a+cn=a", false},
		{"cn=a", "sn=a", false},
		{`cn=a\,dc=org`, "cn=a,dc=org", false},
		{"dc=org", "dc=example,dc=org", false},
		{"", "", true},
		{"", "dc=org", false},
	}
	l := defaultLimits(t)
	for _, tt := range tests {
		a, err := parseDN(tt.a, l)
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseDN(tt.b, l)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.equal(b); got != tt.want {
			t.Errorf("equal(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if a.equal(b) != b.equal(a) {
			t.Errorf("equal(%q, %q) depends on the order", tt.a, tt.b)
		}
	}
}

func TestNewRefusesConfig(t *testing.T) {
	tests := map[string]Config{
		"no base DN":            {},
		"base DN unparsable":    {BaseDN: "example.org"},
		"base DN a space":       {BaseDN: " "},
		"people unparsable":     {BaseDN: testBase, People: "people"},
		"people empty RDN":      {BaseDN: testBase, People: " "},
		"RDN attribute unknown": {BaseDN: testBase, RDNAttribute: "login"},
		"RDN attribute secret":  {BaseDN: testBase, RDNAttribute: "userPassword"},
		"RDN attribute number":  {BaseDN: testBase, RDNAttribute: "uidNumber"},
		"service":               {BaseDN: testBase, Service: "a b"},
		"negative limit":        {BaseDN: testBase, Limits: Limits{Connections: -1}},
		"huge depth":            {BaseDN: testBase, Limits: Limits{FilterDepth: 1 << 20}},
		"negative timeout":      {BaseDN: testBase, Limits: Limits{Idle: -1}},
		"no room for accounts":  {BaseDN: strings.Repeat("dc=x,", 30) + "dc=x"},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			if s, err := New(cfg, &fakeAuth{}, fakeDirectory{}, nil); err == nil {
				t.Errorf("New(%+v) = %v, nil, want an error", cfg, s)
			}
		})
	}
}
