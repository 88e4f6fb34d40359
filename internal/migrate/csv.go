package migrate

import (
	"bufio"
	"strings"
)

// readCSV reads a table of our own form, which docs/migrating.md describes: for what has no importer.
func readCSV(r *bufio.Reader, o Options) (*Result, error) {
	var out Result
	err := readTables(r, []wanted{{"csv", []string{"login"}}}, func(rec record) error {
		list := func(column string) []string { return strings.Fields(rec.get(column)) }
		row := Row{Ref: rec.ref, Login: rec.get("login"), DisplayName: rec.get("name"), Aliases: list("aliases"), Groups: list("groups"),
			Label: cmpString(rec.get("label"), mainLabel), Hash: rec.get("hash"), Scheme: o.DefaultScheme, Services: list("services"), Networks: list("networks"),
			CreatedAt: moment(rec.get("created")), Attributes: map[string][]string{}, Userdb: map[string]string{}}
		for column := range rec.values {
			name, found := strings.CutPrefix(column, "userdb_")
			if v := rec.get(column); found && v != "" {
				row.Userdb[name] = v
			}
		}
		if mail := list("mail"); len(mail) > 0 {
			row.Attributes["mail"] = mail
		}
		if clear := rec.get("password"); clear != "" {
			if row.Hash != "" {
				out.skip(rec.ref, row.Login, row.Label, "it has both a hash and a password")
				return nil
			}
			row.Hash = "{PLAIN}" + clear
		}
		if expires := rec.get("expires"); expires != "" {
			if row.ExpiresAt = moment(expires); row.ExpiresAt.IsZero() {
				out.skip(rec.ref, row.Login, row.Label, "the time of its expiry cannot be read; write 2027-03-01 or 2027-03-01T12:00:00Z")
				return nil
			}
		}
		if !rec.on("active", true) {
			out.skip(rec.ref, row.Login, row.Label, "it is not active there")
			return nil
		}
		// Without an id of its own, the login and the label are what it is known by.
		if row.Key = rec.get("id"); row.Key == "" {
			row.Key = row.Login + "/" + strings.ToLower(row.Label)
		}
		return out.add(row)
	})
	return &out, err
}
