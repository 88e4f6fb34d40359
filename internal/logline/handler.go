// Package logline writes slog records as the lines that an admin reads in the journal and fail2ban matches:
//
//	valetkeyd[811]: auth: result=fail rip=192.0.2.7 reason=no_match ...
//
// It refuses to know what is logged; who logs decides what is secret. The one rule a newcomer would break: a record becomes
// exactly one line, whatever the values hold, so everything outside a small alphabet is quoted and escaped to ASCII.
package logline

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// Handler is a [slog.Handler]. It writes the record's message, a colon and the attributes in their order.
type Handler struct {
	out    *Writer
	level  *slog.LevelVar
	prefix func(dst []byte, r *slog.Record) []byte
	attrs  []byte // of WithAttrs, formatted
	groups string // of WithGroup, "a.b."
}

// Config says how lines begin.
type Config struct {
	Out   *Writer
	Level *slog.LevelVar
	// Journal: lines begin with a syslog priority in angle brackets, as sd-daemon(3) says, and nothing else, since the
	// journal adds time and name. Otherwise they begin with time, Name and PID.
	Journal bool
	Name    string
	PID     int
}

// NewHandler returns a Handler.
func NewHandler(cfg Config) *Handler {
	h := &Handler{out: cfg.Out, level: cfg.Level}
	if cfg.Journal {
		h.prefix = func(dst []byte, r *slog.Record) []byte {
			priority := 6
			switch {
			case r.Level >= slog.LevelError:
				priority = 3
			case r.Level >= slog.LevelWarn:
				priority = 4
			case r.Level < slog.LevelInfo:
				priority = 7
			}
			return fmt.Appendf(dst, "<%d>", priority)
		}
		return h
	}
	name := fmt.Sprintf(" %s[%d]: ", cfg.Name, cfg.PID)
	h.prefix = func(dst []byte, r *slog.Record) []byte {
		dst = r.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
		return append(dst, name...)
	}
	return h
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// Handle implements [slog.Handler]. It never blocks on the output and never fails: see [Writer].
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	buf := buffers.Get().(*[]byte)
	b := h.prefix((*buf)[:0], &r)
	switch {
	case r.Level >= slog.LevelError:
		b = append(b, "error: "...)
	case r.Level >= slog.LevelWarn && r.Message != "auth":
		b = append(b, "warning: "...)
	case r.Level < slog.LevelInfo:
		b = append(b, "debug: "...)
	}
	b = appendText(b, r.Message)
	b = append(b, ':')
	before := len(b)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.groups, a)
		return true
	})
	if len(b) == before {
		b = b[:len(b)-1]
	}
	b = append(b, '\n')
	h.out.line(b)
	*buf = b
	buffers.Put(buf)
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		c.attrs = appendAttr(c.attrs, h.groups, a)
	}
	return &c
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.groups += name + "."
	return &c
}

// appendAttr writes one attribute. A value whose own method panics costs its text and not the caller its life.
func appendAttr(b []byte, groups string, a slog.Attr) (out []byte) {
	start := len(b)
	defer func() {
		if recover() != nil {
			out = append(b[:start], ' ')
			out = appendKey(out, groups)
			out = appendKey(out, a.Key)
			out = append(out, "=PANIC"...)
		}
	}()
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, member := range v.Group() {
			b = appendAttr(b, groups, member)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	b = append(b, ' ')
	b = appendKey(b, groups)
	b = appendKey(b, a.Key)
	b = append(b, '=')
	switch v.Kind() {
	case slog.KindDuration:
		return appendDuration(b, v.Duration())
	case slog.KindInt64, slog.KindUint64, slog.KindBool, slog.KindFloat64:
		return append(b, v.String()...)
	case slog.KindTime:
		return v.Time().UTC().AppendFormat(b, time.RFC3339)
	case slog.KindString:
		return appendValue(b, v.String())
	}
	switch x := v.Any().(type) {
	case auth.QuotedValue:
		return strconv.AppendQuoteToASCII(b, string(x))
	case error:
		return strconv.AppendQuoteToASCII(b, x.Error())
	}
	return appendValue(b, v.String())
}

// appendKey writes a key, which our own code chose, so that it stays one word on one line in any case.
func appendKey(b []byte, key string) []byte {
	for i := 0; i < len(key); i++ {
		c := key[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-' || c == '!') {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// appendDuration writes milliseconds with one decimal: "0.4ms".
func appendDuration(b []byte, d time.Duration) []byte {
	b = strconv.AppendFloat(b, float64(d)/float64(time.Millisecond), 'f', 1, 64)
	return append(b, "ms"...)
}

// appendValue writes a word as it is and everything else quoted.
func appendValue(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-', c == ':', c == '/', c == '+', c == '@', c == ',', c == '%', c == '[', c == ']':
		default:
			return strconv.AppendQuoteToASCII(b, s)
		}
	}
	return append(b, s...)
}

// appendText writes a message, which our own code chose, with anything that could end the line escaped.
func appendText(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return strconv.AppendQuoteToASCII(b, s)
		}
	}
	return append(b, s...)
}
