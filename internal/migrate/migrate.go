// Package migrate reads what other systems keep of their users and app passwords: tables as mysql, mysqldump, pg_dump and sqlite3
// print them, CSV, passwd-files and glauth's configuration.
//
// It refuses to know the daemon, and what a hash is worth. The one rule a newcomer would break: a file is data of a stranger. Whatever
// is in it, memory is bounded by what is wanted of it, an error never quotes a value, and a file that ends too early gives no rows at
// all.
package migrate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Bounds of a file.
const (
	MaxRows   = 2_000_000
	maxValue  = 64 << 10 // bytes of one value that is wanted; longer ones are taken for something else
	maxRecord = 1 << 20  // bytes of a line or record
	maxConfig = 16 << 20 // bytes of a configuration file

	maxSkipped = 100_000 // rows that are left out and listed; more are counted
)

// Row is a user, with at most one app password, as the source has it: nothing is normalised or checked.
type Row struct {
	Ref string // where it stands, for people: "line 7", "app_passwd id 17"

	Login       string
	MustExist   bool // a login that is only mentioned: no account is to be made for it
	DisplayName string
	Aliases     []string
	Attributes  map[string][]string
	Userdb      map[string]string
	Groups      []string

	// Of the app password; without a Hash there is none.
	Key       string // what it is at the source, for ever
	Label     string
	Hash      string // secret-derived, or a password in clear: never print it
	Scheme    string // of a hash that names none
	Services  []string
	Networks  []string
	CreatedAt time.Time // zero: not known
	ExpiresAt time.Time // zero: never
}

// Skipped is what is not taken over, and why.
type Skipped struct {
	Ref   string `json:"ref"`
	Login string `json:"login,omitempty"`
	Label string `json:"label,omitempty"`
	Why   string `json:"why"`
}

// Result is what a file has.
type Result struct {
	Rows    []Row
	Skipped []Skipped
	Notes   []string // for people, about the file as a whole

	unlisted int // skipped beyond maxSkipped
}

func (r *Result) skip(ref, login, label, format string, args ...any) {
	if len(r.Skipped) >= maxSkipped {
		r.unlisted++
		return
	}
	r.Skipped = append(r.Skipped, Skipped{ref, clip(login), clip(label), fmt.Sprintf(format, args...)})
}

// clip shortens what is only shown.
func clip(s string) string {
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "") + "..."
	}
	return s
}

func (r *Result) add(row Row) error {
	if len(r.Rows) >= MaxRows {
		return &Fault{fmt.Sprintf("there are more than %d rows in it", MaxRows), "import it in parts"}
	}
	if row.Hash != "" {
		row.Label = cleanLabel(row.Label)
	}
	r.Rows = append(r.Rows, row)
	return nil
}

// maxLabel is the longest label, in characters (auth.MaxLabel).
const maxLabel = 64

// cleanLabel makes of a name there what can be a label here: nobody is to lose a password because of its name.
func cleanLabel(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, " "))), " ")
	if runes := []rune(s); len(runes) > maxLabel {
		s = strings.TrimSpace(string(runes[:maxLabel]))
	}
	if s == "" {
		return "imported"
	}
	return s
}

// Options are how to read a source.
type Options struct {
	// MainPasswords takes over the users' main passwords too, where the source has app passwords besides.
	MainPasswords bool
	// DefaultScheme is that of hashes that name none, as in Dovecot's default_pass_scheme. Empty: the source's own.
	DefaultScheme string
	// AppLogins makes "user@application" an alias of the user (ap4rc).
	AppLogins bool
	// ExpireAfter is how long after its making an app password ends (ap4rc). Zero: never.
	ExpireAfter time.Duration
}

// Fault is why a file is not taken, with the cure.
type Fault struct {
	Message string
	Hint    string
}

// Error is the message.
func (f *Fault) Error() string { return f.Message }

// source is a system whose files can be read.
type source struct {
	name, what string
	read       func(r *bufio.Reader, o Options) (*Result, error)
}

var sources = []source{
	{"mailcow", "mailcow's tables app_passwd and mailbox", readMailcow},
	{"postfixadmin", "PostfixAdmin's tables mailbox and alias", readPostfixAdmin},
	{"glauth", "glauth's configuration file", readGlauth},
	{"dovecot", "a passwd-file of Dovecot", readPasswdFile},
	{"ap4rc", "the table application_passwords of the Roundcube plugin ap4rc", readAP4RC},
	{"csv", "a table with the columns that docs/migrating.md names", readCSV},
}

// Sources are the names of what can be read, each with what it is.
func Sources() (names, what []string) {
	for _, s := range sources {
		names, what = append(names, s.name), append(what, s.what)
	}
	return names, what
}

// Read reads a file of that source, whole: if anything in it cannot be understood as a file of that kind, the error is a [*Fault], or
// what the reader returned, and there is no row. What is wrong with one row alone is in Skipped.
func Read(name string, r io.Reader, o Options) (*Result, error) {
	i := slices.IndexFunc(sources, func(s source) bool { return s.name == name })
	if i < 0 {
		names, _ := Sources()
		return nil, &Fault{"there is no source of this name", "one of " + strings.Join(names, ", ")}
	}
	b := bufio.NewReaderSize(r, 64<<10)
	if err := refuseBinary(b); err != nil {
		return nil, err
	}
	result, err := sources[i].read(b, o)
	if err != nil {
		return nil, err
	}
	if result.unlisted > 0 {
		result.Notes = append(result.Notes, fmt.Sprintf("%d more are left out than are listed", result.unlisted))
	}
	if len(result.Rows)+len(result.Skipped) == 0 {
		return nil, &Fault{"there is nothing in it that could be imported", "it should be " + sources[i].what}
	}
	return result, nil
}

var magics = []struct{ begin, what, hint string }{
	{"\x1f\x8b", "it is compressed by gzip", "gunzip it first, or: zcat FILE | valetkey import SOURCE -"},
	{"BZh", "it is compressed by bzip2", "bunzip2 it first"},
	{"\xfd7zXZ", "it is compressed by xz", "unxz it first"},
	{"\x28\xb5\x2f\xfd", "it is compressed by zstd", "unzstd it first"},
	{"PK\x03\x04", "it is a ZIP archive, or a spreadsheet", "unpack it, or save the sheet as CSV"},
	{"SQLite format 3", "it is a database of SQLite", "print the table: sqlite3 -header -csv FILE 'SELECT * FROM TABLE'"},
	{"PGDMP", "it is a dump of Postgres in its own format", "pg_restore --data-only -f OUT.sql FILE makes text of it"},
}

// refuseBinary looks at the beginning.
func refuseBinary(b *bufio.Reader) error {
	head, err := b.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(head) == 0 {
		return &Fault{"it is empty", ""}
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.begin)) {
			return &Fault{m.what, m.hint}
		}
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return &Fault{"it is in UTF-16", "iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return errBinary
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) { // what spreadsheets write before UTF-8
		b.Discard(3)
	}
	return nil
}

var (
	errBinary   = &Fault{"it is no text: it has bytes of value 0", ""}
	errLongLine = &Fault{fmt.Sprintf("it has a line or record of more than %d bytes", maxRecord), "is it the file that you mean?"}
	errCut      = &Fault{"it ends in the middle: it is not complete", "make the export again"}
)

// bounded passes a reader on and fails when more than maxRecord bytes were read since the last call of next.
type bounded struct {
	r    io.Reader
	left int
}

func newBounded(r io.Reader) *bounded { return &bounded{r, maxRecord} }

func (b *bounded) next() { b.left = maxRecord }

// Read implements [io.Reader].
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongLine
	}
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= n
	if bytes.IndexByte(p[:n], 0) >= 0 {
		return 0, errBinary
	}
	return n, err
}

// readLine returns a line without its end. The last one may have none.
func readLine(r *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		if bytes.IndexByte(part, 0) >= 0 {
			return "", errBinary
		}
		long = append(long, part...)
		switch {
		case len(long) > maxRecord:
			return "", errLongLine
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(long) > 0, err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(string(long), "\n"), "\r"), nil
		}
		return "", err
	}
}
