package migrate

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// record is a row of a table.
type record struct {
	ref    string
	table  string // empty: the file does not say
	values map[string]value
}

// value is one of a record. The zero value is what is not there.
type value struct {
	text    string
	null    bool
	there   bool
	tooLong bool
}

// get returns the value of a column, or "" if it is NULL or not there.
func (r record) get(column string) string { return r.values[column].text }

// has reports whether there is such a column.
func (r record) has(column string) bool { return r.values[column].there }

// on reads a flag: a column that is not there counts as otherwise.
func (r record) on(column string, otherwise bool) bool {
	if !r.has(column) {
		return otherwise
	}
	switch strings.ToLower(r.get(column)) {
	case "1", "t", "true", "y", "yes":
		return true
	}
	return false
}

// timeLayouts are how MySQL, Postgres and SQLite print a moment.
var timeLayouts = []string{time.RFC3339, "2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999", "2006-01-02"}

// moment reads a time; one without a zone is taken for UTC. What is none, and MySQL's "0000-00-00", is the zero time.
func moment(text string) time.Time {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil && t.Year() >= 1970 {
			return t.UTC()
		}
	}
	return time.Time{}
}

// wanted is a table of a source.
type wanted struct {
	name  string
	needs []string // columns without which it is another table
}

// readTables calls use for each record of the wanted tables, whatever the format: SQL statements of a dump, what mysql -B prints
// (tabs), or CSV. Formats that do not name the table have one table, which its columns tell.
func readTables(r *bufio.Reader, tables []wanted, use func(record) error) error {
	head, _ := r.Peek(4096)
	first := head
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		first = head[:i]
	}
	switch {
	case isSQL(head):
		return readSQL(r, tables, use)
	case bytes.IndexByte(first, '\t') >= 0:
		return readTabs(r, tables, use)
	default:
		return readCommas(r, tables, use)
	}
}

// isSQL judges by the first word.
func isSQL(head []byte) bool {
	head = bytes.ToUpper(bytes.TrimLeft(head, " \t\r\n"))
	for _, word := range []string{"--", "/*", "CREATE ", "INSERT ", "REPLACE ", "SET ", "PRAGMA ", "BEGIN", "COPY ", "DROP ", "LOCK ", "USE ", "START ", `\RESTRICT`} {
		if bytes.HasPrefix(head, []byte(word)) {
			return true
		}
	}
	return false
}

// whichTable finds the table that has these columns.
func whichTable(tables []wanted, columns []string) (string, error) {
	for _, w := range tables {
		if !slices.ContainsFunc(w.needs, func(c string) bool { return !slices.Contains(columns, c) }) {
			return w.name, nil
		}
	}
	var forms []string
	for _, w := range tables {
		forms = append(forms, fmt.Sprintf("%s has %s", w.name, strings.Join(w.needs, ", ")))
	}
	return "", &Fault{"its first line does not name the columns of a table that is wanted", "the table " + strings.Join(forms, "; the table ") + ". Is it a file of this source, with its header?"}
}

func header(names []string) ([]string, error) {
	columns := make([]string, len(names))
	for i, n := range names {
		columns[i] = strings.ToLower(strings.TrimSpace(n))
	}
	if len(columns) > 256 {
		return nil, &Fault{"it has more than 256 columns", ""}
	}
	seen := map[string]bool{}
	for _, c := range columns {
		if seen[c] && c != "" {
			return nil, &Fault{"its header names a column twice", ""}
		}
		seen[c] = true
	}
	return columns, nil
}

// readTabs reads what "mysql --batch" prints: a header, tabs, backslash escapes, NULL. Postgres' COPY has the same without a header.
func readTabs(r *bufio.Reader, tables []wanted, use func(record) error) error {
	line, err := readLine(r)
	if err != nil {
		return err
	}
	columns, err := header(strings.Split(line, "\t"))
	if err != nil {
		return err
	}
	table, err := whichTable(tables, columns)
	if err != nil {
		return err
	}
	for n := 2; ; n++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if line == "" {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != len(columns) {
			return &Fault{fmt.Sprintf("line %d has %d fields, the header %d: it is not complete, or no table", n, len(fields), len(columns)), "make the export again"}
		}
		if err := use(tabRecord(fmt.Sprintf("line %d", n), table, columns, fields, "NULL")); err != nil {
			return err
		}
	}
}

func tabRecord(ref, table string, columns, fields []string, null string) record {
	rec := record{ref: ref, table: table, values: make(map[string]value, len(columns))}
	for i, f := range fields {
		v := value{there: true}
		if f == null {
			v.null = true
		} else {
			v.text = unescapeTab(f)
		}
		rec.values[columns[i]] = v
	}
	return rec
}

var tabEscapes = map[byte]byte{'n': '\n', 't': '\t', '0': 0, 'r': '\r', 'b': '\b', '\\': '\\', 'f': '\f', 'v': '\v'}

func unescapeTab(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			if c, known := tabEscapes[s[i]]; known {
				b.WriteByte(c)
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readCommas reads CSV (RFC 4180) with a header; a semicolon in the header's place of the first comma is what spreadsheets write in
// half of Europe.
func readCommas(r *bufio.Reader, tables []wanted, use func(record) error) error {
	in := newBounded(r)
	c := csv.NewReader(in)
	head, _ := r.Peek(4096)
	line, _, _ := bytes.Cut(head, []byte("\n"))
	if bytes.Count(line, []byte(";")) > bytes.Count(line, []byte(",")) {
		c.Comma = ';'
	}
	names, err := c.Read()
	if err != nil {
		return csvFault(err)
	}
	columns, err := header(names)
	if err != nil {
		return err
	}
	table, err := whichTable(tables, columns)
	if err != nil {
		return err
	}
	for {
		in.next()
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvFault(err)
		}
		n, _ := c.FieldPos(0)
		rec := record{ref: fmt.Sprintf("line %d", n), table: table, values: make(map[string]value, len(columns))}
		for i, f := range fields {
			rec.values[columns[i]] = value{text: f, there: true, null: f == "NULL" || f == `\N`}
			if f == "NULL" || f == `\N` {
				rec.values[columns[i]] = value{there: true, null: true}
			}
		}
		if err := use(rec); err != nil {
			return err
		}
	}
}

func csvFault(err error) error {
	var p *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return &Fault{"it has no header", "the first line names the columns"}
	case errors.As(err, &p) && errors.Is(p.Err, csv.ErrFieldCount):
		return &Fault{fmt.Sprintf("line %d has another number of fields than the header: it is not complete, or no table", p.Line), "make the export again"}
	case errors.As(err, &p) && (errors.Is(p.Err, csv.ErrQuote) || errors.Is(p.Err, csv.ErrBareQuote)):
		return &Fault{fmt.Sprintf("line %d has a quotation mark in a wrong place", p.Line), "it must be CSV as RFC 4180 describes it"}
	}
	return err
}
