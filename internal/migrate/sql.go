package migrate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// readSQL reads dumps as mysqldump, mariadb-dump, pg_dump and "sqlite3 .dump" write them: CREATE TABLE for the order of columns, INSERT
// or COPY for the rows. It is no interpreter: every other statement is passed over. Other tables may be of any size; their values
// are never held.
func readSQL(r *bufio.Reader, tables []wanted, use func(record) error) error {
	d := &dump{in: r, tables: tables, use: use, columns: map[string][]string{}}
	for {
		err := d.statement()
		if errors.Is(err, io.EOF) {
			if d.header && !d.trailer {
				return errCut
			}
			if !d.found {
				var names []string
				for _, w := range tables {
					names = append(names, w.name)
				}
				return &Fault{"it has no rows of the table " + strings.Join(names, " or "), "is it a dump of this source's database, with its data?"}
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dump is a dump while it is read.
type dump struct {
	in      *bufio.Reader
	tables  []wanted
	use     func(record) error
	columns map[string][]string // of CREATE TABLE
	found   bool                // a row of a wanted table

	header, trailer bool // the comments of mysqldump and pg_dump at the begin and at the end
	backslash       bool // a backslash in a string escapes: MySQL
	knows           bool // backslash was decided
}

func (d *dump) byte() (byte, error) {
	c, err := d.in.ReadByte()
	if err == nil && c == 0 {
		return 0, errBinary
	}
	return c, err
}

func (d *dump) mustByte() (byte, error) {
	c, err := d.byte()
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	return c, err
}

// kinds of tokens.
const (
	tokenWord = iota // a keyword, a number, a name without quotes
	tokenName        // a name in quotes of names
	tokenText        // a string
	tokenSign        // one of ( ) , ; . and others
)

type token struct {
	kind    int
	text    string
	tooLong bool
}

func (t token) is(word string) bool   { return t.kind == tokenWord && strings.EqualFold(t.text, word) }
func (t token) sign(c string) bool    { return t.kind == tokenSign && t.text == c }
func (t token) named() (string, bool) { return t.text, t.kind == tokenWord || t.kind == tokenName }

// token returns the next one. keep says whether the text of a string is wanted.
func (d *dump) token(keep bool) (token, error) {
	for {
		c, err := d.byte()
		if err != nil {
			return token{}, err
		}
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == '-':
			if next, _ := d.in.Peek(1); len(next) == 1 && next[0] == '-' {
				if err := d.comment(); err != nil {
					return token{}, err
				}
				continue
			}
			return d.word(c)
		case c == '/':
			if next, _ := d.in.Peek(1); len(next) == 1 && next[0] == '*' {
				if err := d.blockComment(); err != nil {
					return token{}, err
				}
				continue
			}
			return token{kind: tokenSign, text: "/"}, nil
		case c == '\'':
			return d.quoted('\'', tokenText, keep)
		case c == '`':
			if !d.knows { // without mysqldump's comments
				d.backslash, d.knows = true, true
			}
			return d.quoted('`', tokenName, true)
		case c == '"':
			return d.quoted('"', tokenName, true)
		case wordByte(c):
			return d.word(c)
		default:
			return token{kind: tokenSign, text: string(rune(c))}, nil
		}
	}
}

func wordByte(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '+' || c == '\\' || c == '$' || c >= 0x80
}

func (d *dump) word(first byte) (token, error) {
	b := []byte{first}
	for {
		next, err := d.in.Peek(1)
		if err != nil && !errors.Is(err, io.EOF) {
			return token{}, err
		}
		if len(next) == 0 || !(wordByte(next[0]) || next[0] == '-') {
			return token{kind: tokenWord, text: string(b)}, nil
		}
		d.in.ReadByte()
		if len(b) >= maxValue {
			return token{}, errLongLine
		}
		b = append(b, next[0])
	}
}

// comment reads a line comment. Those that dumps begin and end with are noted.
func (d *dump) comment() error {
	line := []byte{'-'}
	for {
		c, err := d.byte()
		if errors.Is(err, io.EOF) || c == '\n' {
			break
		}
		if err != nil {
			return err
		}
		if len(line) < 128 {
			line = append(line, c)
		}
	}
	switch text := string(line); {
	case strings.HasPrefix(text, "-- MySQL dump"), strings.HasPrefix(text, "-- MariaDB dump"), strings.HasPrefix(text, "-- PostgreSQL database dump") && !strings.Contains(text, "complete"):
		d.header = true
		if !d.knows {
			d.backslash, d.knows = !strings.Contains(text, "PostgreSQL"), true
		}
	case strings.HasPrefix(text, "-- Dump completed"), strings.HasPrefix(text, "-- PostgreSQL database dump complete"):
		d.trailer = true
	}
	return nil
}

func (d *dump) blockComment() error {
	d.in.ReadByte() // the star
	last := byte(0)
	for {
		c, err := d.mustByte()
		if err != nil {
			return err
		}
		if last == '*' && c == '/' {
			return nil
		}
		last = c
	}
}

var sqlEscapes = map[byte]byte{'n': '\n', 't': '\t', '0': 0, 'r': '\r', 'b': '\b', 'Z': 26}

// quoted reads to the closing quote, which stands for itself if it is doubled.
func (d *dump) quoted(q byte, kind int, keep bool) (token, error) {
	t := token{kind: kind}
	var b []byte
	for {
		c, err := d.mustByte()
		if err != nil {
			return t, err
		}
		switch {
		case c == q:
			if next, _ := d.in.Peek(1); len(next) == 0 || next[0] != q {
				t.text = string(b)
				return t, nil
			}
			d.in.ReadByte()
		case c == '\\' && kind == tokenText && d.backslash:
			if c, err = d.mustByte(); err != nil {
				return t, err
			}
			if e, known := sqlEscapes[c]; known {
				c = e
			}
		}
		if !keep {
			continue
		}
		if len(b) >= maxValue {
			if kind == tokenName {
				return t, errLongLine
			}
			b, t.tooLong, keep = nil, true, false
			continue
		}
		b = append(b, c)
	}
}

// statement reads one, to its semicolon. io.EOF means that there is none.
func (d *dump) statement() error {
	first, err := d.token(false)
	if err != nil {
		return err
	}
	if first.sign(";") {
		return nil
	}
	if !d.trailer { // what comes after the end is none of ours
		switch {
		case first.is("CREATE"):
			err = d.create()
		case first.is("INSERT"), first.is("REPLACE"):
			err = d.insert()
		case first.is("COPY"):
			return d.copy()
		case first.kind == tokenWord && strings.HasPrefix(first.text, `\`): // pg_dump's \restrict, a line without a semicolon
			_, err := readLine(d.in)
			return err
		default:
			err = d.rest(first)
		}
	} else {
		err = d.rest(first)
	}
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}

// rest passes over the rest of a statement.
func (d *dump) rest(t token) error {
	var err error
	for !t.sign(";") {
		if t, err = d.token(false); err != nil {
			return err
		}
	}
	return nil
}

// tableName reads a name that may have a database or schema in front, and returns what came after it.
func (d *dump) tableName(t token) (name string, after token, err error) {
	for {
		text, ok := t.named()
		if !ok {
			return "", t, nil
		}
		name = text
		if i := strings.LastIndexByte(name, '.'); t.kind == tokenWord && i >= 0 && i+1 < len(name) {
			name = name[i+1:]
		}
		dot := t.kind == tokenWord && strings.HasSuffix(text, ".")
		if t, err = d.token(false); err != nil {
			return "", t, err
		}
		if t.kind == tokenWord && t.text == "." {
			dot = true
			if t, err = d.token(false); err != nil {
				return "", t, err
			}
		} else if t.kind == tokenWord && strings.HasPrefix(t.text, ".") && len(t.text) > 1 {
			t.text = t.text[1:]
			dot = true
		}
		if !dot {
			return strings.ToLower(name), t, nil
		}
	}
}

// create reads the columns of CREATE TABLE.
func (d *dump) create() error {
	t, err := d.token(false)
	if err != nil {
		return err
	}
	if !t.is("TABLE") {
		return d.rest(t)
	}
	if t, err = d.token(false); err != nil {
		return err
	}
	for t.is("IF") || t.is("NOT") || t.is("EXISTS") {
		if t, err = d.token(false); err != nil {
			return err
		}
	}
	name, t, err := d.tableName(t)
	if err != nil {
		return err
	}
	if d.wanted(name) == nil || !t.sign("(") {
		return d.rest(t)
	}
	var columns []string
	for depth, begin := 1, true; depth > 0; {
		if t, err = d.token(false); err != nil {
			return err
		}
		switch {
		case t.sign("("):
			depth++
		case t.sign(")"):
			depth--
		case t.sign(",") && depth == 1:
			begin = true
			continue
		case begin && depth == 1:
			keyword := t.kind == tokenWord && slices.ContainsFunc([]string{"PRIMARY", "UNIQUE", "KEY", "CONSTRAINT", "INDEX", "FULLTEXT", "FOREIGN", "CHECK"}, t.is)
			if text, ok := t.named(); ok && !keyword {
				columns = append(columns, strings.ToLower(text))
			}
		}
		begin = false
		if len(columns) > 256 {
			return &Fault{"it has more than 256 columns", ""}
		}
	}
	d.columns[name] = columns
	return d.rest(t)
}

func (d *dump) wanted(table string) *wanted {
	i := slices.IndexFunc(d.tables, func(w wanted) bool { return w.name == table })
	if i < 0 {
		return nil
	}
	return &d.tables[i]
}

// columnList reads "a, b)" behind its bracket.
func (d *dump) columnList() ([]string, error) {
	var columns []string
	for {
		t, err := d.token(false)
		switch {
		case err != nil:
			return nil, err
		case t.sign(")"):
			return columns, nil
		case t.sign(","):
		default:
			text, ok := t.named()
			if !ok || len(columns) >= 256 {
				return nil, &Fault{"a list of columns cannot be read", "is it a dump of mysqldump, pg_dump or sqlite3?"}
			}
			columns = append(columns, strings.ToLower(text))
		}
	}
}

func (d *dump) checkColumns(w *wanted, columns []string) error {
	for _, c := range w.needs {
		if !slices.Contains(columns, c) {
			return &Fault{fmt.Sprintf("its table %s has no column %s", w.name, c), "is it a dump of this source's database? mysqldump must write the tables' definitions too, or --complete-insert"}
		}
	}
	return nil
}

// insert reads INSERT INTO table [(columns)] VALUES (...), (...);
func (d *dump) insert() error {
	t, err := d.token(false)
	for err == nil && (t.is("INTO") || t.is("IGNORE") || t.is("OR") || t.is("REPLACE")) {
		t, err = d.token(false)
	}
	if err != nil {
		return err
	}
	name, t, err := d.tableName(t)
	if err != nil {
		return err
	}
	w := d.wanted(name)
	if w == nil {
		return d.rest(t)
	}
	columns := d.columns[name]
	if t.sign("(") {
		if columns, err = d.columnList(); err != nil {
			return err
		}
		if t, err = d.token(false); err != nil {
			return err
		}
	}
	if err := d.checkColumns(w, columns); err != nil {
		return err
	}
	if !t.is("VALUES") {
		return &Fault{"an INSERT without VALUES cannot be read", "is it a dump of mysqldump, pg_dump or sqlite3?"}
	}
	for n := 1; ; n++ {
		if t, err = d.token(false); err != nil {
			return err
		}
		switch {
		case t.sign(";"):
			return nil
		case t.sign(","):
			n--
			continue
		case !t.sign("("):
			return d.rest(t) // ON DUPLICATE KEY and the like
		}
		rec := record{table: name, values: make(map[string]value, len(columns))}
		for i := 0; ; i++ {
			v, end, err := d.value()
			if err != nil {
				return err
			}
			if i >= len(columns) {
				return &Fault{fmt.Sprintf("a row of its table %s has more values than there are columns", name), ""}
			}
			rec.values[columns[i]] = v
			if end {
				if i != len(columns)-1 {
					return &Fault{fmt.Sprintf("a row of its table %s has fewer values than there are columns", name), ""}
				}
				break
			}
		}
		if err := d.row(rec); err != nil {
			return err
		}
	}
}

func (d *dump) row(rec record) error {
	d.found = true
	if rec.values["password"].tooLong { // that is no hash, and must not pass for none at all
		return errLongLine
	}
	rec.ref = rec.table
	if id := rec.get("id"); id != "" {
		rec.ref += " id " + id
	}
	return d.use(rec)
}

// value reads a value and the comma, or the bracket that ends the row.
func (d *dump) value() (v value, end bool, err error) {
	v.there = true
	var t token
	for n := 0; ; n++ {
		if t, err = d.token(true); err != nil {
			return v, false, err
		}
		switch {
		case t.sign(","):
			return v, false, nil
		case t.sign(")"):
			return v, true, nil
		case n > 4:
			return v, false, &Fault{"a value of an INSERT cannot be read", "is it a dump of mysqldump, pg_dump or sqlite3?"}
		case t.kind == tokenText:
			v.text, v.tooLong, v.null = t.text, t.tooLong, false
		case t.is("NULL"):
			v.null = true
		case t.kind == tokenWord && strings.HasPrefix(t.text, "_"): // _binary, _utf8mb4: a character set before a string
		case t.kind == tokenWord:
			v.text += t.text
		}
	}
}

// copy reads Postgres' COPY table (columns) FROM stdin; and the lines after it, to "\.".
func (d *dump) copy() error {
	t, err := d.token(false)
	if err != nil {
		return cut(err)
	}
	name, t, err := d.tableName(t)
	if err != nil {
		return cut(err)
	}
	var columns []string
	if t.sign("(") {
		if columns, err = d.columnList(); err != nil {
			return cut(err)
		}
		if t, err = d.token(false); err != nil {
			return cut(err)
		}
	}
	if err := d.rest(t); err != nil {
		return cut(err)
	}
	if line, err := readLine(d.in); err != nil || strings.TrimSpace(line) != "" {
		return &Fault{"the lines of a COPY do not begin where they should", ""}
	}
	w := d.wanted(name)
	if w != nil {
		if err := d.checkColumns(w, columns); err != nil {
			return err
		}
	}
	for {
		if w == nil {
			line, err := d.passLine()
			if err != nil {
				return cut(err)
			}
			if bytes.Equal(line, []byte(`\.`)) {
				return nil
			}
			continue
		}
		line, err := readLine(d.in)
		if err != nil {
			return cut(err)
		}
		if line == `\.` {
			return nil
		}
		fields := strings.Split(line, "\t")
		if len(fields) != len(columns) {
			return &Fault{fmt.Sprintf("a row of its table %s has another number of values than there are columns", name), ""}
		}
		if err := d.row(tabRecord("", name, columns, fields, `\N`)); err != nil {
			return err
		}
	}
}

// passLine returns the beginning of a line and forgets the rest, however long it is.
func (d *dump) passLine() ([]byte, error) {
	var begin []byte
	for {
		part, err := d.in.ReadSlice('\n')
		if len(begin) < 8 {
			begin = append(begin, part[:min(len(part), 8)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimRight(begin, "\r\n"), err
	}
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return errCut
	}
	return err
}
