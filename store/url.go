package store

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/valetkey/valetkey/internal/pgdial"
)

// connectTimeout bounds the making of a connection unless the URL says otherwise. lib/pq's own default is for ever.
const connectTimeout = 2 * time.Second

// parseURL checks a URL (postgres://..) or keyword string (host=.. dbname=..). Its errors never quote the input, which
// may hold a password; lib/pq's and net/url's do.
func parseURL(s string) (pq.Config, error) {
	if strings.TrimSpace(s) == "" {
		return pq.Config{}, errors.New("database.url: empty: give a URL such as postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full")
	}
	cfg, err := pq.NewConfig(s)
	if err != nil {
		// What follows the name of one of these keys is the value of that key and can be shown.
		for _, key := range []string{"sslmode", "port", "connect_timeout", "target_session_attrs", "load_balance_hosts"} {
			if text := err.Error(); strings.HasPrefix(text, `pq: wrong value for "`+key+`"`) {
				return pq.Config{}, fmt.Errorf("database.url: %s", strings.TrimPrefix(text, "pq: "))
			}
		}
		return pq.Config{}, errors.New("database.url: not a connection URL that can be read: " +
			"in a URL, percent-encode special characters of the password; in a keyword string, quote values that hold spaces")
	}
	if !hasSSLMode(s) {
		return pq.Config{}, errors.New("database.url: it does not say sslmode: add sslmode=verify-full for a server reached over " +
			"the network (with sslrootcert if its certificate is private), or sslmode=disable for a Unix socket or the loopback address")
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = "valetkeyd"
	}
	return cfg, nil
}

// hasSSLMode reports whether the text itself names sslmode. The parsed form does not tell, since defaults, the
// environment and Unix sockets set it too.
func hasSSLMode(s string) bool {
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		u, err := url.Parse(s)
		return err == nil && u.Query().Get("sslmode") != ""
	}
	// A later keyword replaces an earlier one: if what is put in front shows through, the text has none of its own. The
	// host is replaced because a Unix socket forces the mode.
	mode := func(m string) pq.SSLMode {
		cfg, err := pq.NewConfig("sslmode=" + m + " " + s + " host=localhost")
		if err != nil {
			return ""
		}
		return cfg.SSLMode
	}
	return mode("disable") == mode("verify-full")
}

// redact describes where the database is without the password, for the log.
func redact(cfg pq.Config) string {
	hosts := []string{hostPort(cfg.Host, cfg.Hostaddr.IsValid(), cfg.Hostaddr.String(), cfg.Port)}
	for _, m := range cfg.Multi {
		hosts = append(hosts, hostPort(m.Host, m.Hostaddr.IsValid(), m.Hostaddr.String(), m.Port))
	}
	return fmt.Sprintf("%s@%s/%s sslmode=%s", cfg.User, strings.Join(hosts, ","), cfg.Database, cfg.SSLMode)
}

func hostPort(host string, hasAddr bool, addr string, port uint16) string {
	if hasAddr && host == "" {
		host = addr
	}
	if filepath.IsAbs(host) || strings.HasPrefix(host, "@") {
		return fmt.Sprintf("%s/.s.PGSQL.%d", host, port)
	}
	return fmt.Sprintf("%s:%d", host, port)
}

// connector makes connections with these session settings and time limit per exchange.
func connector(cfg pq.Config, exchange time.Duration, settings map[string]string) (*pq.Connector, error) {
	cfg = cfg.Clone()
	maps.Copy(cfg.Runtime, settings)
	c, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, err
	}
	c.Dialer(pgdial.Dialer{Exchange: exchange})
	return c, nil
}

// sslProtects reports whether the connection is encrypted and the server verified, or does not leave the machine.
func sslProtects(cfg pq.Config) bool {
	local := func(host string) bool {
		return filepath.IsAbs(host) || strings.HasPrefix(host, "@") || host == "localhost" || host == "127.0.0.1" || host == "::1"
	}
	if local(cfg.Host) && !slices.ContainsFunc(cfg.Multi, func(m pq.ConfigMultihost) bool { return !local(m.Host) }) {
		return true
	}
	return cfg.SSLMode == pq.SSLModeVerifyFull || cfg.SSLMode == pq.SSLModeVerifyCA
}
