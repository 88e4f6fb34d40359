package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/docs"
	"github.com/valetkey/valetkey/internal/admin"
)

// statusTimeout bounds what a snippet waits for: the page's own values are better than none.
const statusTimeout = 5 * time.Second

// snippetOptions are the flags of the command.
type snippetOptions struct {
	file, listener         string
	domain, user, mailHome string
	all                    bool
}

// snippetFile is one part of what is to be done.
type snippetFile struct {
	Name  string `json:"name"`            // on the page
	Place string `json:"place,omitempty"` // path of the file; none: it goes into no file
	Where string `json:"where,omitempty"`
	Text  string `json:"text"`
}

// snippets is what one way of a page comes to here.
type snippets struct {
	Page  string        `json:"page"`
	Way   string        `json:"way,omitempty"`
	Files []snippetFile `json:"files"`
	Notes []string      `json:"notes"`
}

func (s *snippets) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// listedPeer is a page in the list.
type listedPeer struct {
	Name  string   `json:"name"`
	Title string   `json:"title"`
	Ways  []string `json:"ways"` // the recommended one first; empty: there is one only
}

func (a *app) snippetCommand() *cobra.Command {
	var o snippetOptions
	cmd := &cobra.Command{
		Use:   "snippet [PEER [WAY]]",
		Short: "Print what a peer's configuration needs, with this site's own paths",
		Long: `Print what a peer's configuration needs in order to ask the daemon, as docs/peers has it, with this site's own paths, addresses and base DN in
place of the page's. Without PEER, list the peers. If there are several ways, the first one of the list is the recommended one.

What the daemon's own configuration lacks is printed first. A secret is never printed: SECRET stands for it, and a note names its file. Notes go to
standard error. Without a running daemon the values are the page's.`,
		Example: `  valetkey snippet
  valetkey snippet postfix
  valetkey snippet dovecot-2.3 ldap --mail-user mail --mail-home /srv/mail
  valetkey snippet dovecot-2.3 --file valetkey-oauth2.conf.ext > /etc/dovecot/valetkey-oauth2.conf.ext`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 2 {
				return usageError{hinted{fmt.Errorf("there is one argument too many: %q", given[2]), "usage: " + cmd.UseLine()}}
			}
			return nil
		},
		ValidArgsFunction: completePeer,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listPeers(o)
			}
			page, w, err := choosePeer(given)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			status, unreachable := a.client().Status(ctx)
			if unreachable != nil {
				if o.listener != "" {
					return unreachable
				}
				status = admin.Status{}
			}
			s, err := o.snippets(page, w, status, unreachable)
			if err != nil {
				return err
			}
			if _, hint := a.explain(unreachable); unreachable != nil && hint != "" {
				s.note("%s", hint)
			}
			if len(given) == 1 && w.name != "" {
				s.note("this is the way %q; there is also: %s", w.name, strings.Join(wayNames(page.Name)[1:], ", "))
			}
			return a.print(s, func() { a.tellSnippets(s, o.file != "") })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "file", "", "print this file's text alone; `NAME` of the file, or of one snippet for it")
	f.StringVar(&o.domain, "domain", "", "`DOMAIN` in place of example.org (default: that of the daemon's base DN)")
	f.StringVar(&o.user, "mail-user", "", "system `USER` that mail belongs to, in place of vmail")
	f.StringVar(&o.mailHome, "mail-home", "", "`DIRECTORY` of the mailboxes, in place of /var/vmail")
	f.StringVar(&o.listener, "listener", "", "`NAME` of the daemon's listener that the peer is to ask: see valetkey status")
	f.BoolVar(&o.all, "all", false, "print the daemon's part too if the daemon has it")
	cmd.RegisterFlagCompletionFunc("file", completeFile)
	cmd.MarkFlagDirname("mail-home")
	return cmd
}

func (a *app) listPeers(o snippetOptions) error {
	if o != (snippetOptions{}) {
		return usageError{errors.New("PEER is missing: the flags say what to print for one")}
	}
	var all []listedPeer
	for _, p := range docs.Peers() {
		all = append(all, listedPeer{p.Name, p.Title, wayNames(p.Name)})
	}
	return a.print(map[string][]listedPeer{"peers": all}, func() {
		t := a.table("PEER", "WHAT IT IS", "WAYS")
		for _, p := range all {
			t.row(p.Name, p.Title, strings.Join(p.Ways, ", "))
		}
		t.print()
	})
}

// tellSnippets prints for people. Every one of these files knows # as a comment, TOML, Postfix's, Exim's, LDIF and the shell among them.
func (a *app) tellSnippets(s *snippets, bare bool) {
	for _, n := range s.Notes {
		fmt.Fprintf(a.err, "note: %s\n", visible(n))
	}
	for i, f := range s.Files {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if !bare {
			fmt.Fprintf(a.out, "# %s\n", visible(heading(f)))
		}
		fmt.Fprint(a.out, f.Text)
	}
}

// heading says where a part goes.
func heading(f snippetFile) string {
	return strings.Join(slices.DeleteFunc([]string{f.Place, f.Where}, func(x string) bool { return x == "" }), ": ")
}

// wayNames are the ways of a page, the recommended one first; none if there is one only.
func wayNames(page string) []string {
	names := []string{}
	for _, w := range peers[page] {
		if w.name != "" {
			names = append(names, w.name)
		}
	}
	return names
}

// choosePeer finds the page, and the way on it, that the arguments name.
func choosePeer(given []string) (docs.Page, way, error) {
	all := docs.Peers()
	i := slices.IndexFunc(all, func(p docs.Page) bool { return p.Name == given[0] })
	if i < 0 || len(peers[given[0]]) == 0 {
		return docs.Page{}, way{}, usageError{hinted{fmt.Errorf("there is no peer %q", given[0]), nearest(given[0], all)}}
	}
	ways := peers[given[0]]
	if len(given) == 1 {
		return all[i], ways[0], nil
	}
	for _, w := range ways {
		if w.name != "" && w.name == given[1] {
			return all[i], w, nil
		}
	}
	hint := "it has one way only: leave it out"
	if names := wayNames(given[0]); len(names) > 0 {
		hint = "the ways are: " + strings.Join(names, ", ")
	}
	return docs.Page{}, way{}, usageError{hinted{fmt.Errorf("%s has no way %q", given[0], given[1]), hint}}
}

// nearest is a hint with the peers that may have been meant.
func nearest(name string, all []docs.Page) string {
	name = strings.ToLower(name)
	var near []string
	for _, p := range all {
		if strings.Contains(p.Name, name) || strings.Contains(strings.ToLower(p.Title), name) || distance(name, p.Name) <= 2 {
			near = append(near, p.Name)
		}
	}
	if len(near) == 0 || name == "" {
		return "valetkey snippet lists the peers"
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// snippets fills in the snippets of one way. unreachable says why there is no status.
func (o snippetOptions) snippets(page docs.Page, w way, status admin.Status, unreachable error) (*snippets, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &snippets{Page: page.Name, Way: w.name, Files: []snippetFile{}, Notes: []string{}}
	text := map[string]string{}
	for _, p := range w.parts {
		x, ok := page.Snippet(p.snippet)
		if !ok {
			return nil, fmt.Errorf("the page %s has no snippet %q", page.Name, p.snippet)
		}
		text[p.snippet] = x.Text
	}
	daemons := w.parts[0]
	example, err := exampleListener(text[daemons.snippet])
	if err != nil {
		return nil, fmt.Errorf("reading the snippet %q of the page %s: %w", daemons.snippet, page.Name, err)
	}
	from := pageSite(example)
	to := from
	l, found, err := o.find(s, w, example, status, unreachable)
	if err != nil {
		return nil, err
	}
	if found {
		if what, value := unsafe(l); what != "" {
			return nil, hinted{fmt.Errorf("the %s of %s is %q, which cannot be put into a peer's configuration as it is", what, l.Name, value),
				"change it, or write the peer's configuration by hand: docs/peers/" + page.Name + ".md"}
		}
		to.listener = l
		to.listener.Address = reachable(l.Address)
	}
	to.base, to.domain = o.names(example, to.listener, found, status.Listeners)
	to.user, to.home = cmp.Or(o.user, to.user), cmp.Or(o.mailHome, to.home)
	if err := o.checkUsed(page.Name, text); err != nil {
		return nil, err
	}

	parts, err := o.choose(page.Name, w, found)
	if err != nil {
		return nil, err
	}
	replacer := w.replacer(from, to)
	for _, p := range parts {
		f := snippetFile{Name: p.snippet, Place: p.place, Where: p.where, Text: text[p.snippet]}
		if asksSecret(example, example) && !asksSecret(example, to.listener) {
			f.Text = withoutSecret(f.Text)
		}
		f.Text = replacer.Replace(f.Text)
		if p == daemons {
			f.Place = cmp.Or(status.Config, f.Place)
			if f.Where = "add this, then reload the daemon"; found {
				f.Where = "the daemon has this already, as " + l.Name
				f.Text = configured(f.Text, l)
			}
		}
		if o.file != "" && f.Where != "" { // no comment says it
			s.note("%s", heading(f))
		}
		s.Files = append(s.Files, f)
	}
	o.noteRest(s, w, example, to, found)
	return s, nil
}

// check refuses flags that would end up as something else in a peer's configuration.
func (o snippetOptions) check() error {
	switch {
	case o.domain != "" && !domainName.MatchString(o.domain):
		return usageError{fmt.Errorf("--domain %q is not a domain", o.domain)}
	case o.user != "" && !userName.MatchString(o.user):
		return usageError{fmt.Errorf("--mail-user %q is not the name of a system user", o.user)}
	case o.mailHome != "" && (!filepath.IsAbs(o.mailHome) || !plain(o.mailHome) || o.mailHome != filepath.Clean(o.mailHome)):
		return usageError{hinted{fmt.Errorf("--mail-home %q is not an absolute path of letters, digits and the like", o.mailHome),
			"say the directory alone; the user's name is put behind it"}}
	}
	return nil
}

// checkUsed refuses flags that the way has no place for.
func (o snippetOptions) checkUsed(page string, text map[string]string) error {
	for _, x := range []struct{ flag, value, old string }{
		{"--mail-user", o.user, pageUser}, {"--mail-home", o.mailHome, pageHome}, {"--domain", o.domain, pageDomain},
	} {
		used := false
		for _, t := range text {
			used = used || strings.Contains(t, x.old) || x.old == pageDomain && strings.Contains(t, pageBase)
		}
		if x.value != "" && !used {
			return usageError{fmt.Errorf("%s: there is no place for it in what %s needs", x.flag, page)}
		}
	}
	return nil
}

// find finds the listener that the peer is to ask, and notes what an admin must know about it.
func (o snippetOptions) find(s *snippets, w way, example admin.Listener, status admin.Status, unreachable error) (l admin.Listener, found bool, err error) {
	if unreachable != nil {
		s.note("%v; these are the page's own values", unreachable)
		return admin.Listener{}, false, nil
	}
	if o.listener != "" {
		l, err := choose(status.Listeners, example.FrontEnd, o.listener)
		if err != nil {
			return admin.Listener{}, false, err
		}
		if why := w.misfit(example, l, true); why != "" {
			return admin.Listener{}, false, fmt.Errorf("%s at %s %s", l.Name, l.Address, why)
		}
		return l, true, nil
	}
	fit := w.pick(example, status.Listeners)
	if len(fit) > 0 {
		l = status.Listeners[fit[0]]
		s.note("the daemon is asked at %s, %s", l.Name, l.Address)
		for _, i := range fit[1:] {
			s.note("%s at %s would do as well: --listener %s", status.Listeners[i].Name, status.Listeners[i].Address, status.Listeners[i].Name)
		}
		return l, true, nil
	}
	s.note("the daemon has no listener for this: its part of the configuration, --file %s, comes first", fileName(w.parts[0]))
	for _, l := range status.Listeners {
		if l.FrontEnd == example.FrontEnd {
			s.note("%s at %s will not do: it %s", l.Name, l.Address, w.misfit(example, l, false))
		}
		if l.Address == example.Address {
			s.note("%s has the address already that stands there: %s", l.Name, taken(example))
		}
	}
	switch {
	case status.Config == "":
		s.note("the daemon runs without a configuration file: make it, and start the daemon with --config %s", daemonFile)
		fallthrough
	case status.Implied:
		s.note("once the file names a listener it must name all: those that are there now are there because it names none")
	}
	return admin.Listener{}, false, nil
}

// taken says what to do if another listener has the page's address.
func taken(example admin.Listener) string {
	if len(example.Applications) > 0 {
		return "put [[ldap.application]] below its [[ldap]], and no second one"
	}
	if names := sortedKeys(example.Endpoints); len(names) == 1 {
		return fmt.Sprintf("put [http.%s] below its [[http]], and no second one", names[0])
	}
	return "choose another, here and below"
}

// names returns the base DN and the domain of the site: what was said, what the daemon's LDAP listeners say, or the page's own.
func (o snippetOptions) names(example, l admin.Listener, found bool, all []admin.Listener) (base, domain string) {
	for _, x := range all {
		if x.FrontEnd == "ldap" && x.BaseDN != "" && base == "" && plain(strings.ReplaceAll(x.BaseDN, " ", "")) {
			base = x.BaseDN
		}
	}
	if o.domain != "" {
		base = baseOf(o.domain)
	}
	if found && example.FrontEnd == "ldap" {
		base = l.BaseDN
	}
	base = cmp.Or(base, pageBase)
	return base, cmp.Or(o.domain, domainOf(base), pageDomain)
}

// choose returns the parts to print.
func (o snippetOptions) choose(page string, w way, found bool) ([]part, error) {
	if o.file == "" {
		if found && !o.all {
			return w.parts[1:], nil
		}
		return w.parts, nil
	}
	parts := w.named(o.file)
	if len(parts) > 0 {
		return parts, nil
	}
	err := fmt.Errorf("%s has no file %q", strings.TrimSpace(page+" "+w.name), o.file)
	for _, other := range peers[page] {
		if len(other.named(o.file)) > 0 {
			return nil, usageError{hinted{err, fmt.Sprintf("it is in another way: valetkey snippet %s %s", page, other.name)}}
		}
	}
	return nil, usageError{hinted{err, "its files are: " + strings.Join(w.files(), ", ")}}
}

// named returns the parts that --file means: the snippet of this name alone, or else all of this file that the peer needs.
func (w way) named(file string) []part {
	if i := slices.IndexFunc(w.parts, func(p part) bool { return p.snippet == file }); i >= 0 {
		return w.parts[i : i+1]
	}
	var all []part
	for _, p := range w.parts {
		if !p.apart && (p.place == file || fileName(p) == file) {
			all = append(all, p)
		}
	}
	return all
}

// fileName is what the page calls the file that a part is for.
func fileName(p part) string {
	name, _, _ := strings.Cut(p.snippet, " ")
	return name
}

// files are the names that --file takes: the files, and the snippets that stand apart.
func (w way) files() []string {
	var names []string
	for _, p := range w.parts {
		name := fileName(p)
		if p.apart {
			name = p.snippet
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// noteRest notes what is left for the admin to do.
func (o snippetOptions) noteRest(s *snippets, w way, example admin.Listener, to site, found bool) {
	has := func(text string) bool {
		return slices.ContainsFunc(s.Files, func(f snippetFile) bool { return strings.Contains(f.Text, text) })
	}
	for _, name := range sortedKeys(example.Endpoints) {
		e, have := example.Endpoints[name], to.listener.Endpoints[name]
		if has(pageSecret) {
			if found {
				s.note("put the first line of %s in place of %s", have.SecretFile, pageSecret)
			} else {
				s.note("make the secret: (umask 077; openssl rand -hex 24 > %[1]s), readable for the daemon; put the first line of %[1]s in place of %[2]s",
					have.SecretFile, pageSecret)
			}
		}
		if e.AddressHeader != "" && have.AddressHeader == "" {
			s.note("%s does not read the user's address: set address_header and trusted_proxies, or app passwords with --from do not work", to.listener.Name)
		}
		for _, protocol := range sortedKeys(e.Backends) {
			if have.Backends[protocol] == "" {
				s.note("%s has no %s server: leave it out below", to.listener.Name, protocol)
			}
		}
	}
	if example.Lookups && !to.listener.Lookups {
		s.note("%s allows no lookups: set lookups = true, or leave out the userdb that asks for them", to.listener.Name)
	}
	if network, path := split(to.listener.Address); found && w.chroot != "" && network == "unix" && !strings.HasPrefix(path, w.chroot+"/") {
		s.note("%s is not below %s: the peer must not be chrooted (Postfix: n in the fifth column of master.cf)", path, w.chroot)
	}
	if to.domain == pageDomain && has(pageDomain) {
		s.note("%s stands for your domain: --domain fills it in", pageDomain)
	}
}

// completePeer offers the peers, and then the ways of the one given.
func completePeer(_ *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var names, out []string
	switch len(given) {
	case 0:
		names = sortedKeys(peers)
	case 1:
		names = wayNames(given[0])
	}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			out = append(out, n)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeFile offers the files of the way that is given.
func completeFile(_ *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(given) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_, w, err := choosePeer(given)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.DeleteFunc(w.files(), func(n string) bool { return !strings.HasPrefix(n, prefix) }), cobra.ShellCompDirectiveNoFileComp
}
