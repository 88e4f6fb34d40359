package ldapbridge

import (
	"context"
	"fmt"

	"github.com/valetkey/valetkey/internal/auth"
)

// Application is a program whose users bind and search below a suffix of its own, "app=NAME,BASE". The same tree hangs there,
// so one listener serves many applications, each with its own service.
type Application struct {
	Name    string // the value in the suffix: lower-case letters, digits, "-", "_", "."
	Group   string // whose members may log in; empty: everybody
	Service string // what a bind logs in to; empty: Name
}

// application is an [Application] in its place in the tree.
type application struct {
	Application
	suffix *dn
	name   string // string form of suffix
	entry  *entry // of the suffix
}

func (s *Server) addApplication(a Application) error {
	if a.Service == "" {
		a.Service = a.Name
	}
	if name, err := auth.NormaliseService(a.Name); err != nil || name != a.Name {
		return fmt.Errorf("ldap: application %q: the name must be like that of a service, in lower case", a.Name)
	}
	service, err := auth.NormaliseService(a.Service)
	if err != nil {
		return fmt.Errorf("ldap: application %q: service %q: %w", a.Name, a.Service, err)
	}
	a.Service = service
	if a.Group != "" {
		if a.Group, err = auth.NormaliseGroup(a.Group); err != nil {
			return fmt.Errorf("ldap: application %q: %w", a.Name, err)
		}
	}
	if s.apps[a.Name] != nil {
		return fmt.Errorf("ldap: application %q: there are two of this name", a.Name)
	}
	app := &application{Application: a, suffix: s.base.below(ava{typ: typeApp.name, value: []byte(a.Name)})}
	if app.suffix.rdns() >= s.cfg.Limits.RDNs-1 {
		return fmt.Errorf("ldap: application %q: no room for entries below it", a.Name)
	}
	app.name = app.suffix.String()
	app.entry = applicationEntry(app)
	s.apps[a.Name] = app
	return nil
}

// split takes the application off a name below the suffix. The name is nil if it does not lie below the suffix, or below an
// application that is not configured. The result shares the values.
func (s *Server) split(d *dn) (*application, *dn) {
	if !d.endsWith(s.base) {
		return nil, nil
	}
	i := d.rdns() - s.base.rdns() - 1
	if i < 0 {
		return nil, d
	}
	rdn := d.rdn(i)
	if len(rdn) != 1 || rdn[0].typ != typeApp.name {
		return nil, d
	}
	var buf [auth.MaxService]byte
	app := s.apps[string(appendFold(buf[:0], rdn[0].value))]
	if app == nil {
		return nil, nil
	}
	first := d.starts[i]
	plain := &dn{avas: append(append(make([]ava, 0, len(d.avas)-1), d.avas[:first]...), d.avas[first+1:]...)}
	plain.starts = append(make([]int, 0, len(d.starts)-1), d.starts[:i]...)
	for _, start := range d.starts[i+1:] {
		plain.starts = append(plain.starts, start-1)
	}
	return app, plain
}

// join puts the application into a name of the plain tree. A name that does not lie below the suffix stays as it is. The result
// shares the values.
func (s *Server) join(app *application, d *dn) *dn {
	if app == nil || !d.endsWith(s.base) {
		return d
	}
	own := d.rdns() - s.base.rdns() // RDNs below the suffix
	avas := len(d.avas) - len(s.base.avas)
	joined := &dn{avas: append(append(make([]ava, 0, len(d.avas)+1), d.avas[:avas]...), app.suffix.avas...)}
	joined.starts = append(make([]int, 0, len(d.starts)+1), d.starts[:own]...)
	for _, start := range app.suffix.starts {
		joined.starts = append(joined.starts, avas+start)
	}
	return joined
}

// inApplication returns an entry of the plain tree as it hangs below the application, with every name that it holds.
func (s *Server) inApplication(app *application, e *entry) *entry {
	if app == nil {
		return e
	}
	if e.dn.rdns() == s.base.rdns() {
		return app.entry
	}
	moved := &entry{kind: e.kind, logins: e.logins, dn: s.join(app, e.dn), attrs: append([]attribute(nil), e.attrs...)}
	moved.name = moved.dn.String()
	var d dn
	for i := range moved.attrs {
		a := &moved.attrs[i]
		if a.typ.rule != distinguishedName || a.typ == typeSubschemaSubentry {
			continue
		}
		values := make([]string, len(a.values))
		for j, v := range a.values {
			if values[j] = v; d.parse([]byte(v), &s.cfg.Limits) == nil && d.endsWith(s.base) {
				values[j] = s.join(app, &d).String()
			}
		}
		a.values = values
	}
	return moved
}

// gate returns what the core asks before it accepts a login below the application, or nil if there is nothing to ask: everybody may
// log in there, or it is a reader, who is in no group.
func (s *Server) gate(id *identity) auth.Gate {
	if id.nobody {
		return noGate{}
	}
	if id.app == nil || id.app.Group == "" || id.reader {
		return nil
	}
	return groupGate{s.src, id.app.Group}
}

// noGate lets nobody in.
type noGate struct{}

// Admits implements [auth.Gate].
func (noGate) Admits(context.Context, string) (bool, error) { return false, nil }

// groupGate lets the members of a group in.
type groupGate struct {
	src   source
	group string
}

// Admits implements [auth.Gate].
func (g groupGate) Admits(ctx context.Context, login string) (bool, error) {
	return g.src.member(ctx, g.group, login)
}

// MissingGroups returns those of the applications whose group does not exist, by name: nobody can log in to them. An error means that it
// is not known.
func (s *Server) MissingGroups(ctx context.Context) (map[string]bool, error) {
	missing, asked := map[string]bool{}, map[string]bool{}
	for _, app := range s.apps {
		if app.Group == "" {
			continue
		}
		has, known := asked[app.Group]
		if !known {
			var err error
			if has, err = s.src.hasGroup(ctx, app.Group); err != nil {
				return nil, fmt.Errorf("looking for the group %q: %w", app.Group, err)
			}
			asked[app.Group] = has
		}
		if !has {
			missing[app.Name] = true
		}
	}
	return missing, nil
}

// suffix returns the name of what a client that bound below the application takes for the suffix.
func (s *Server) suffix(app *application) string {
	if app != nil {
		return app.name
	}
	return s.base.String()
}

// service returns what a bind below the application logs in to.
func (s *Server) service(app *application) string {
	if app != nil {
		return app.Service
	}
	return s.cfg.Service
}
