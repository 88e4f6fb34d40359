package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/auth"
)

// maxImportRows is how many rows [Store.Import] takes at a time, so that its transaction is short.
const maxImportRows = 1000

// errDryRun undoes a transaction that went well.
var errDryRun = errors.New("dry run")

// Import takes over a part of what another system has, in one transaction, and says what became of each row. What is there already
// stays as it is and is reported as there, so that the same part can be sent again after an interruption: nothing is lost, and
// nothing is there twice. What cannot be taken over is skipped and does not keep the rest out. An error means that nothing was
// done, or that it is not known; [auth.ErrLoginTaken] that somebody was faster again and again.
func (s *Store) Import(ctx context.Context, n auth.Import) ([]auth.ImportOutcome, error) {
	if len(n.Rows) > maxImportRows {
		return nil, fmt.Errorf("import: %d rows at a time are too many", len(n.Rows))
	}
	var out []auth.ImportOutcome
	var err error
	for range 3 {
		err = s.transact(ctx, "import", func(ctx context.Context, tx *sql.Tx) error {
			b := &importing{tx: tx, n: n, out: make([]auth.ImportOutcome, len(n.Rows))}
			if err := b.run(ctx); err != nil {
				return err
			}
			out = b.out
			if n.DryRun {
				return errDryRun
			}
			return nil
		})
		if !errors.Is(err, auth.ErrLoginTaken) && !errors.Is(err, auth.ErrGroupTaken) {
			break
		}
	}
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return out, nil
}

// importing is one transaction of an import. Every statement of it is for all rows together: a statement for each would make it as
// slow as the way to the database is long.
type importing struct {
	tx  *sql.Tx
	n   auth.Import
	out []auth.ImportOutcome

	byLogin  map[string]*importedAccount // logins and aliases, those of new accounts included
	accounts []*importedAccount          // of the rows, each once
	of       []*importedAccount          // of each row; nil: skipped
	passwords
	events []event
}

// importedAccount is an account of a row, before and after.
type importedAccount struct {
	id      int64 // 0: to be added
	login   string
	kind    auth.Kind
	aliases []string // to be added
	row     int      // the first of it

	live, ever, imported int
	labels               map[string]bool    // held
	keys                 map[string]keyHeld // import keys
}

type keyHeld struct {
	label   string
	revoked bool
	expired bool
	phc     string // while it has not been replaced
}

// passwords are the columns of what is to be inserted.
type passwords struct {
	rows                                                   []int
	accounts                                               []*importedAccount
	labels, labelKeys, services, networks, phcs, importKey []string
	strong                                                 []bool
	created, expires                                       []sql.NullTime
}

func (b *importing) run(ctx context.Context) error {
	groups, err := b.makeGroups(ctx) // groups are locked before accounts, everywhere
	if err != nil {
		return err
	}
	if err := b.findAccounts(ctx); err != nil {
		return err
	}
	b.placeRows()
	if err := b.addAccounts(ctx); err != nil {
		return err
	}
	if err := b.fillAccounts(ctx); err != nil {
		return err
	}
	if err := b.join(ctx, groups); err != nil {
		return err
	}
	if err := b.readPasswords(ctx); err != nil {
		return err
	}
	b.choosePasswords()
	if err := b.addPasswords(ctx); err != nil {
		return err
	}
	return addEvents(ctx, b.tx, b.events)
}

// makeGroups adds the groups that are not there and locks all that somebody joins, by name. It returns their ids.
func (b *importing) makeGroups(ctx context.Context) (map[string]int64, error) {
	given := map[string]auth.ImportGroup{}
	for _, r := range b.n.Rows {
		for _, name := range r.Groups {
			given[name] = auth.ImportGroup{NewGroup: auth.NewGroup{Name: name}}
		}
	}
	for _, g := range b.n.Groups {
		given[g.Name] = g
	}
	if len(given) == 0 {
		return nil, nil
	}
	names := slices.Sorted(maps.Keys(given))
	var display, attributes []string
	var uuids []sql.NullString
	var created []sql.NullTime
	for _, name := range names {
		g := given[name]
		texts, err := packed(nonNil(g.Attributes))
		if err != nil {
			return nil, err
		}
		display, attributes = append(display, g.DisplayName), append(attributes, texts[0])
		uuids, created = append(uuids, sql.NullString{String: g.UUID, Valid: g.UUID != ""}), append(created, nullTime(g.CreatedAt))
	}
	if err := freeUUIDs(ctx, b.tx, "groups", uuids); err != nil {
		return nil, err
	}
	rows, err := b.tx.QueryContext(ctx, `INSERT INTO groups (name, display_name, attributes, uuid, created_at)
		SELECT name, display, attributes, COALESCE(uuid, gen_random_uuid()), COALESCE(created, now())
		FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::uuid[], $5::timestamptz[]) AS g (name, display, attributes, uuid, created)
		ORDER BY name ON CONFLICT (name) DO NOTHING RETURNING name`,
		pq.Array(names), pq.Array(display), pq.Array(attributes), pq.Array(uuids), pq.Array(created))
	if err != nil {
		return nil, err
	}
	added, err := collect[string](rows)
	if err != nil {
		return nil, err
	}
	for _, name := range added {
		b.events = append(b.events, event{kind: eventGroupAdded, actor: b.n.By, detail: map[string]any{"group": name, "source": b.n.Source}})
	}
	ids := map[string]int64{}
	rows, err = b.tx.QueryContext(ctx, "SELECT id, name FROM groups WHERE name = ANY ($1::text[]) ORDER BY name FOR UPDATE", pq.Array(names))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return nil, err
		}
		ids[name] = id
	}
	return ids, rows.Err()
}

// findAccounts reads and locks the accounts that the rows' logins and aliases mean already.
func (b *importing) findAccounts(ctx context.Context) error {
	var logins []string
	for _, r := range b.n.Rows {
		logins = append(append(logins, r.Account.Login), r.Account.Aliases...)
	}
	slices.Sort(logins)
	logins = slices.Compact(logins)
	rows, err := b.tx.QueryContext(ctx, `SELECT n.login, a.id, a.login, a.kind = 'reader' FROM logins n JOIN accounts a ON a.id = n.account_id
		WHERE n.login = ANY ($1::text[]) ORDER BY a.id FOR NO KEY UPDATE OF a`, pq.Array(logins))
	if err != nil {
		return err
	}
	defer rows.Close()
	b.byLogin = map[string]*importedAccount{}
	byID := map[int64]*importedAccount{}
	for rows.Next() {
		var name, canonical string
		var id int64
		var reader bool
		if err := rows.Scan(&name, &id, &canonical, &reader); err != nil {
			return err
		}
		a := byID[id]
		if a == nil {
			a = &importedAccount{id: id, login: canonical, row: -1}
			if reader {
				a.kind = auth.Reader
			}
			byID[id] = a
		}
		b.byLogin[name] = a
	}
	return rows.Err()
}

// placeRows decides which account each row means, and which aliases are new.
func (b *importing) placeRows() {
	b.of = make([]*importedAccount, len(b.n.Rows))
	for i, r := range b.n.Rows {
		o := &b.out[i]
		a := b.byLogin[r.Account.Login]
		switch {
		case a == nil && r.MustExist:
			o.Login, o.Account, o.Why = r.Account.Login, auth.ImportSkipped, "there is no such account"
			continue
		case a == nil:
			a = &importedAccount{login: r.Account.Login, kind: r.Account.Kind, row: -1}
			b.byLogin[a.login] = a
			o.Account = auth.ImportAdded
		case a.kind != r.Account.Kind:
			o.Login, o.Account, o.Why = a.login, auth.ImportSkipped, "the account of this login is of another kind: "+kindText(a.kind)
			continue
		default:
			o.Account = auth.ImportThere
		}
		if a.row < 0 {
			a.row = i
			b.accounts = append(b.accounts, a)
		}
		b.of[i], o.Login = a, a.login
		for _, alias := range r.Account.Aliases {
			switch other := b.byLogin[alias]; {
			case other == nil:
				b.byLogin[alias] = a
				a.aliases = append(a.aliases, alias)
				if o.Account == auth.ImportThere {
					o.Account = auth.ImportChanged
				}
			case other != a:
				o.Notes = append(o.Notes, "the alias "+alias+" means another account already")
			}
		}
	}
}

// addAccounts inserts the new accounts with what their first row says.
func (b *importing) addAccounts(ctx context.Context) error {
	var fresh []*importedAccount
	for _, a := range b.accounts {
		if a.id == 0 {
			fresh = append(fresh, a)
		}
	}
	// Sorted, so that two transactions that add the same names wait for each other instead of dead-locking.
	slices.SortFunc(fresh, func(a, c *importedAccount) int { return cmp.Compare(a.login, c.login) })
	var kinds, logins, display, attributes, userdb, keys, keyLogins []string
	var enabled []bool
	var uuids []sql.NullString
	var created []sql.NullTime
	for _, a := range fresh {
		r := b.n.Rows[a.row]
		texts, err := packed(nonNil(r.Account.Attributes), nonNil(r.Account.Userdb))
		if err != nil {
			return err
		}
		kinds, logins, display = append(kinds, kindText(a.kind)), append(logins, a.login), append(display, r.Account.DisplayName)
		attributes, userdb, enabled = append(attributes, texts[0]), append(userdb, texts[1]), append(enabled, r.Enabled)
		uuids, created = append(uuids, sql.NullString{String: r.UUID, Valid: r.UUID != ""}), append(created, nullTime(r.CreatedAt))
		if a.kind == auth.Person {
			for _, k := range searchKeys(r.Account.DisplayName, r.Account.Attributes) {
				keys, keyLogins = append(keys, k), append(keyLogins, a.login)
			}
		}
	}
	if len(fresh) > 0 {
		if err := freeUUIDs(ctx, b.tx, "accounts", uuids); err != nil {
			return err
		}
		rows, err := b.tx.QueryContext(ctx, `INSERT INTO accounts (kind, login, display_name, enabled, attributes, userdb, uuid, created_at, keyed)
			SELECT kind, login, display, enabled, attributes, userdb, COALESCE(uuid, gen_random_uuid()), COALESCE(created, now()), $9
			FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::jsonb[], $6::jsonb[], $7::uuid[], $8::timestamptz[])
				AS a (kind, login, display, enabled, attributes, userdb, uuid, created) RETURNING id, login`,
			pq.Array(kinds), pq.Array(logins), pq.Array(display), pq.Array(enabled), pq.Array(attributes), pq.Array(userdb),
			pq.Array(uuids), pq.Array(created), keyVersion)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var login string
			if err := rows.Scan(&id, &login); err != nil {
				return err
			}
			b.byLogin[login].id = id
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if _, err := b.tx.ExecContext(ctx, "INSERT INTO search_keys (key, login) SELECT * FROM unnest($1::text[], $2::text[])",
			pq.Array(keys), pq.Array(keyLogins)); err != nil {
			return err
		}
	}
	type name struct {
		login string
		id    int64
	}
	var names []name
	for _, a := range b.accounts {
		if slices.Contains(fresh, a) {
			names = append(names, name{a.login, a.id})
		}
		for _, alias := range a.aliases {
			names = append(names, name{alias, a.id})
		}
	}
	slices.SortFunc(names, func(a, c name) int { return cmp.Compare(a.login, c.login) })
	texts, ids := make([]string, len(names)), make([]int64, len(names))
	for i, n := range names {
		texts[i], ids[i] = n.login, n.id
	}
	if _, err := b.tx.ExecContext(ctx, "INSERT INTO logins (login, account_id) SELECT * FROM unnest($1::text[], $2::bigint[])",
		pq.Array(texts), pq.Array(ids)); err != nil {
		return err
	}
	for _, a := range fresh {
		b.events = append(b.events, event{kind: eventAccountAdded, actor: b.n.By, accountID: a.id, login: a.login,
			detail: map[string]any{"aliases": aliasesDetail(a.aliases), "kind": kindText(a.kind), "source": b.n.Source}})
	}
	return nil
}

// freeUUIDs takes the UUIDs away that a row of the table has already: a new one is made then.
func freeUUIDs(ctx context.Context, tx *sql.Tx, table string, uuids []sql.NullString) error {
	var given []string
	for _, u := range uuids {
		if u.Valid {
			given = append(given, u.String)
		}
	}
	if len(given) == 0 {
		return nil
	}
	rows, err := tx.QueryContext(ctx, "SELECT uuid::text FROM "+table+" WHERE uuid = ANY ($1::uuid[])", pq.Array(given))
	if err != nil {
		return err
	}
	taken, err := collect[string](rows)
	if err != nil {
		return err
	}
	for i, u := range uuids {
		if slices.Contains(taken, u.String) {
			uuids[i] = sql.NullString{}
		}
	}
	return nil
}

// aliasesDetail keeps an event within its bound.
func aliasesDetail(aliases []string) any {
	if len(strings.Join(aliases, ",")) > 8000 {
		return len(aliases)
	}
	return nonNilList(aliases)
}

func nonNilList(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// fillAccounts gives accounts what they lack: a display name, attributes, userdb fields. What they have stays. Each change is a
// statement of its own: there are none when the same import runs again.
func (b *importing) fillAccounts(ctx context.Context) error {
	var ids []int64
	for _, a := range b.accounts {
		ids = append(ids, a.id)
	}
	rows, err := b.tx.QueryContext(ctx, "SELECT id, display_name, attributes, userdb FROM accounts WHERE id = ANY ($1)", pq.Array(ids))
	if err != nil {
		return err
	}
	defer rows.Close()
	records := map[int64]*auth.Account{}
	for rows.Next() {
		var r auth.Account
		var attributes, userdb []byte
		if err := rows.Scan(&r.ID, &r.DisplayName, &attributes, &userdb); err != nil {
			return err
		}
		if err := json.Unmarshal(attributes, &r.Attributes); err != nil {
			return err
		}
		if err := json.Unmarshal(userdb, &r.Userdb); err != nil {
			return err
		}
		records[r.ID] = &r
	}
	if err := rows.Err(); err != nil {
		return err
	}
	aliased := map[*importedAccount]bool{}
	for i, r := range b.n.Rows {
		a := b.of[i]
		if a == nil || a.row == i && b.out[i].Account == auth.ImportAdded {
			continue
		}
		have := records[a.id]
		c := auth.AccountChange{Attributes: map[string][]string{}, Userdb: map[string]string{}}
		if have.DisplayName == "" && r.Account.DisplayName != "" {
			c.DisplayName = &r.Account.DisplayName
		}
		for name, values := range r.Account.Attributes {
			if !hasFolded(have.Attributes, name) && len(have.Attributes)+len(c.Attributes) < maxImportedFields {
				c.Attributes[name] = values
			}
		}
		for name, value := range r.Account.Userdb {
			if _, there := have.Userdb[name]; !there && len(have.Userdb)+len(c.Userdb) < maxImportedFields {
				c.Userdb[name] = value
			}
		}
		if c.DisplayName == nil && len(c.Attributes)+len(c.Userdb) == 0 {
			if b.out[i].Account == auth.ImportChanged && !aliased[a] && b.out[a.row].Account != auth.ImportAdded {
				aliased[a] = true
				if err := b.noteAliases(ctx, a); err != nil {
					return err
				}
			}
			continue
		}
		old := auth.Account{ID: a.id, Login: a.login, Kind: a.kind, DisplayName: have.DisplayName, Attributes: have.Attributes, Userdb: have.Userdb}
		if err := changeRecord(ctx, b.tx, &old, c, b.n.By); err != nil {
			return err
		}
		if c.DisplayName != nil {
			have.DisplayName = *c.DisplayName
		}
		have.Attributes, _ = mergeAttributes(nonNil(have.Attributes), c.Attributes)
		have.Userdb = nonNil(have.Userdb)
		maps.Copy(have.Userdb, c.Userdb)
		if b.out[i].Account == auth.ImportThere {
			b.out[i].Account = auth.ImportChanged
		}
	}
	return nil
}

// maxImportedFields is how many attributes, and how many userdb fields, an import leaves an account with.
const maxImportedFields = 64

func hasFolded(attributes map[string][]string, name string) bool {
	for have := range attributes {
		if strings.EqualFold(have, name) {
			return true
		}
	}
	return false
}

// noteAliases tells of aliases that an account has got and of nothing else.
func (b *importing) noteAliases(ctx context.Context, a *importedAccount) error {
	if _, err := b.tx.ExecContext(ctx, "UPDATE accounts SET modified_at = now() WHERE id = $1", a.id); err != nil {
		return err
	}
	b.events = append(b.events, event{kind: eventAccountChanged, actor: b.n.By, accountID: a.id, login: a.login,
		detail: map[string]any{"aliases_added": aliasesDetail(a.aliases), "source": b.n.Source}})
	return nil
}

// join puts the rows' accounts into their groups.
func (b *importing) join(ctx context.Context, groups map[string]int64) error {
	var accounts, into []int64
	logins, names := map[int64]string{}, map[int64]string{}
	for i, r := range b.n.Rows {
		a := b.of[i]
		if a == nil {
			continue
		}
		for _, g := range r.Groups {
			if a.kind != auth.Person {
				b.out[i].Notes = append(b.out[i].Notes, "a reader cannot be in a group")
				break
			}
			accounts, into = append(accounts, a.id), append(into, groups[g])
			logins[a.id], names[groups[g]] = a.login, g
		}
	}
	if len(accounts) == 0 {
		return nil
	}
	rows, err := b.tx.QueryContext(ctx, `INSERT INTO group_members (group_id, account_id)
		SELECT DISTINCT g, a FROM unnest($1::bigint[], $2::bigint[]) AS m (g, a) ON CONFLICT DO NOTHING RETURNING group_id, account_id`,
		pq.Array(into), pq.Array(accounts))
	if err != nil {
		return err
	}
	defer rows.Close()
	joined := map[int64][]member{} // by group
	moved := map[int64]bool{}
	for rows.Next() {
		var group, account int64
		if err := rows.Scan(&group, &account); err != nil {
			return err
		}
		joined[group] = append(joined[group], member{account, logins[account]})
		moved[account] = true
		b.events = append(b.events, event{kind: eventMemberAdded, actor: b.n.By, accountID: account, login: logins[account],
			detail: map[string]any{"group": names[group], "source": b.n.Source}})
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, group := range slices.Sorted(maps.Keys(joined)) {
		if err := checkGroupLimits(ctx, b.tx, group, joined[group]); err != nil {
			return err
		}
	}
	if _, err := b.tx.ExecContext(ctx, "UPDATE groups SET modified_at = now() WHERE id = ANY ($1)",
		pq.Array(slices.Collect(maps.Keys(joined)))); err != nil {
		return err
	}
	_, err = b.tx.ExecContext(ctx, "UPDATE accounts SET modified_at = now() WHERE id = ANY ($1)", pq.Array(slices.Collect(maps.Keys(moved))))
	return err
}

// readPasswords reads what the accounts hold.
func (b *importing) readPasswords(ctx context.Context) error {
	byID := map[int64]*importedAccount{}
	var ids []int64
	for i, r := range b.n.Rows {
		if a := b.of[i]; a != nil && r.AppPassword != nil && byID[a.id] == nil {
			byID[a.id] = a
			a.labels, a.keys = map[string]bool{}, map[string]keyHeld{}
			ids = append(ids, a.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := b.tx.QueryContext(ctx, `SELECT account_id, label, label_key, holds_label, COALESCE(import_key, ''), revoked_at IS NOT NULL, `+expired+`,
		origin = 'imported', CASE WHEN upgraded_at IS NULL AND import_key IS NOT NULL THEN phc ELSE '' END
		FROM app_passwords WHERE account_id = ANY ($1)`, pq.Array(ids))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var h keyHeld
		var labelKey, importKey string
		var holds, imported bool
		if err := rows.Scan(&id, &h.label, &labelKey, &holds, &importKey, &h.revoked, &h.expired, &imported, &h.phc); err != nil {
			return err
		}
		a := byID[id]
		if holds {
			a.labels[labelKey] = true
		}
		if importKey != "" {
			a.keys[importKey] = h
		}
		if imported {
			a.ever++
		}
		if !h.revoked && !h.expired {
			a.live++
			if imported {
				a.imported++
			}
		}
	}
	return rows.Err()
}

// choosePasswords decides which app passwords are new.
func (b *importing) choosePasswords() {
	limit := b.n.LimitPerAccount
	if limit <= 0 || limit > maxLive {
		limit = maxLive
	}
	for i, r := range b.n.Rows {
		a, p, o := b.of[i], r.AppPassword, &b.out[i]
		if a == nil || p == nil {
			continue
		}
		key := b.n.Source + ":" + p.Key
		if held, there := a.keys[key]; there {
			o.AppPassword, o.Label = auth.ImportThere, held.label
			switch {
			case held.revoked:
				o.AppPassword, o.Why = auth.ImportSkipped, "it was taken over before and has been revoked here since"
			case held.phc != "" && p.PHC != "" && !p.Strong && held.phc != p.PHC:
				o.AppPassword, o.Why = auth.ImportSkipped, "it was taken over before and has another password there now; what is here stays"
			}
			continue
		}
		switch {
		case a.imported >= auth.MaxImported || a.ever >= auth.MaxImportedEver:
			o.AppPassword, o.Why = auth.ImportSkipped, fmt.Sprintf("the account has %d imported app passwords, as many as it may; every login compares each of them", max(a.imported, min(a.ever, auth.MaxImported)))
			continue
		case a.live >= limit:
			o.AppPassword, o.Why = auth.ImportSkipped, fmt.Sprintf("the account has %d app passwords, as many as it may", a.live)
			continue
		}
		label, labelKey := p.Label, p.LabelKey
		var err error
		for n := 2; err == nil && a.labels[labelKey]; n++ {
			label, labelKey, err = auth.CheckLabel(numbered(p.Label, n))
		}
		if err != nil {
			o.AppPassword, o.Why = auth.ImportSkipped, "its label is taken, and cannot have a number added"
			continue
		}
		a.labels[labelKey], a.keys[key] = true, keyHeld{label: label}
		a.live++
		a.imported++
		a.ever++
		o.AppPassword, o.Label = auth.ImportAdded, label
		networks := make([]string, len(p.Networks))
		for j, n := range p.Networks {
			networks[j] = n.Masked().String() // the type cidr refuses host bits
		}
		c := &b.passwords
		c.rows, c.accounts = append(c.rows, i), append(c.accounts, a)
		c.labels, c.labelKeys = append(c.labels, label), append(c.labelKeys, labelKey)
		c.services, c.networks = append(c.services, strings.Join(p.Services, " ")), append(c.networks, strings.Join(networks, " "))
		c.phcs, c.importKey, c.strong = append(c.phcs, p.PHC), append(c.importKey, key), append(c.strong, p.Strong)
		c.created, c.expires = append(c.created, nullTime(p.CreatedAt)), append(c.expires, nullTime(p.ExpiresAt))
	}
}

// numbered adds a number to a label and keeps it within its bound.
func numbered(label string, n int) string {
	suffix := fmt.Sprintf(" (%d)", n)
	runes := []rune(label)
	if most := auth.MaxLabel - len(suffix); len(runes) > most {
		runes = runes[:most]
	}
	return strings.TrimRight(string(runes), " ") + suffix
}

func (b *importing) addPasswords(ctx context.Context) error {
	c := &b.passwords
	if len(c.rows) == 0 || b.n.DryRun && slices.Contains(c.phcs, "") {
		return nil
	}
	ids := make([]int64, len(c.accounts))
	for i, a := range c.accounts {
		ids[i] = a.id
	}
	rows, err := b.tx.QueryContext(ctx, `INSERT INTO app_passwords (account_id, label, label_key, services, networks, phc, origin, created_by,
			created_at, expires_at, import_key, upgraded_at)
		SELECT account, label, label_key, string_to_array(services, ' '), string_to_array(networks, ' ')::cidr[], phc, 'imported', $1,
			COALESCE(created, now()), expires, import_key, CASE WHEN strong THEN now() END
		FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::boolean[])
			AS p (account, label, label_key, services, networks, phc, created, expires, import_key, strong)
		RETURNING id, account_id, import_key`, b.n.By,
		pq.Array(ids), pq.Array(c.labels), pq.Array(c.labelKeys), pq.Array(c.services), pq.Array(c.networks), pq.Array(c.phcs),
		pq.Array(c.created), pq.Array(c.expires), pq.Array(c.importKey), pq.Array(c.strong))
	if err != nil {
		return err
	}
	defer rows.Close()
	type place struct {
		account int64
		key     string
	}
	made := map[place]int64{}
	for rows.Next() {
		var id int64
		var p place
		if err := rows.Scan(&id, &p.account, &p.key); err != nil {
			return err
		}
		made[p] = id
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i, a := range c.accounts {
		r := b.n.Rows[c.rows[i]].AppPassword
		detail := map[string]any{"origin": auth.Imported, "source": b.n.Source, "services": nonNilList(r.Services), "networks": strings.Fields(c.networks[i])}
		if !r.ExpiresAt.IsZero() {
			detail["expires_at"] = r.ExpiresAt
		}
		b.events = append(b.events, event{kind: eventAppPasswordCreated, actor: b.n.By, accountID: a.id, login: a.login,
			appPasswordID: made[place{a.id, c.importKey[i]}], label: c.labels[i], detail: detail})
	}
	return nil
}

// ReplacePHC replaces the hash of a live imported app password that still is the old one, and reports whether it did. It
// implements a part of [auth.Upgrade].
func (s *Store) ReplacePHC(ctx context.Context, id int64, old, new string) (replaced bool, err error) {
	err = s.transact(ctx, "replace an imported hash", func(ctx context.Context, tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE app_passwords SET phc = $3, upgraded_at = now()
			WHERE id = $1 AND phc = $2 AND origin = 'imported' AND revoked_at IS NULL`, id, old, new)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		replaced = n > 0
		return err
	})
	return replaced && err == nil, err
}

// addEvents writes many events in one statement.
func addEvents(ctx context.Context, tx *sql.Tx, events []event) error {
	if len(events) == 0 {
		return nil
	}
	var kinds, actors, logins, labels, details []string
	var accounts, passwords []int64
	for _, e := range events {
		detail := []byte("{}")
		if len(e.detail) > 0 {
			var err error
			if detail, err = json.Marshal(e.detail); err != nil {
				return err
			}
		}
		kinds, actors, logins, labels = append(kinds, e.kind), append(actors, e.actor), append(logins, e.login), append(labels, e.label)
		details, accounts, passwords = append(details, string(detail)), append(accounts, e.accountID), append(passwords, e.appPasswordID)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO events (kind, actor, account_id, login, app_password_id, label, detail)
		SELECT kind, actor, NULLIF(account, 0), NULLIF(login, ''), NULLIF(app_password, 0), NULLIF(label, ''), detail
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::jsonb[])
			AS e (kind, actor, account, login, app_password, label, detail)`,
		pq.Array(kinds), pq.Array(actors), pq.Array(accounts), pq.Array(logins), pq.Array(passwords), pq.Array(labels), pq.Array(details))
	return err
}

func nullTime(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }

// collect reads a column.
func collect[T any](rows *sql.Rows) ([]T, error) {
	defer rows.Close()
	var list []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}
