package migrate

import "bufio"

// ap4rc's schema is in SQL/*.sql of openSUSE/ap4rc. Its hash is SHA-512 without a salt, in hexadecimal digits, of 64 random characters
// (ap4rc.php, hash_password and random_password): that is out of reach of guessing all the same.
var ap4rcTables = []wanted{{"application_passwords", []string{"id", "application", "username", "password"}}}

func readAP4RC(r *bufio.Reader, o Options) (*Result, error) {
	var out Result
	err := readTables(r, ap4rcTables, func(rec record) error {
		hash := rec.get("password")
		if isHex(hash, 128) {
			hash = "{SHA512.HEX}" + hash
		}
		login, application := rec.get("username"), rec.get("application")
		row := Row{Ref: rec.ref, Login: login, Attributes: mailOf(login), Key: rec.get("id"), Label: application, Hash: hash,
			CreatedAt: moment(rec.get("created"))}
		if o.ExpireAfter > 0 {
			if row.CreatedAt.IsZero() {
				out.skip(rec.ref, login, application, "it does not say when it was made, so that nobody knows when it expires")
				return nil
			}
			row.ExpiresAt = row.CreatedAt.Add(o.ExpireAfter)
		}
		if o.AppLogins {
			row.Aliases = []string{login + "@" + application}
		}
		return out.add(row)
	})
	if err == nil && o.ExpireAfter == 0 {
		out.Notes = append(out.Notes, "ap4rc ends app passwords some time after they were made (ap4rc_expire_interval), which the table does not say: --expire-after keeps it so")
	}
	return &out, err
}

func isHex(s string, length int) bool {
	if len(s) != length {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
			return false
		}
	}
	return true
}
