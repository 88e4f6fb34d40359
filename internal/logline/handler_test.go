package logline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// sink is a log whose text can be read.
type sink struct {
	out    bytes.Buffer
	writer *Writer
	level  slog.LevelVar
}

func newSink(t *testing.T) *sink {
	s := &sink{}
	s.writer = NewWriter(&s.out)
	t.Cleanup(s.writer.Close)
	return s
}

func (s *sink) journal() *slog.Logger {
	return slog.New(NewHandler(Config{Out: s.writer, Level: &s.level, Journal: true}))
}

// text returns what was logged since the last call.
func (s *sink) text() string {
	s.writer.Flush()
	text := s.out.String()
	s.out.Reset()
	return text
}

type stringer struct{}

func (stringer) String() string { return "as a string" }

type valuer struct{ v slog.Value }

func (v valuer) LogValue() slog.Value { return v.v }

type panics struct{}

func (*panics) Error() string { panic("broken") }

func TestValues(t *testing.T) {
	s := newSink(t)
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name string
		attr slog.Attr
		want string
	}{
		{"word", slog.String("k", "imap"), "k=imap"},
		{"address", slog.String("k", "2001:db8::1"), "k=2001:db8::1"},
		{"address and port", slog.String("k", "[::1]:3389"), "k=[::1]:3389"},
		{"path", slog.String("k", "/run/valetkey/admin.sock"), "k=/run/valetkey/admin.sock"},
		{"every bare sign", slog.String("k", "a.Z_0-:/+@,%[x]"), "k=a.Z_0-:/+@,%[x]"},
		{"empty", slog.String("k", ""), "k=-"},
		{"hyphen", slog.String("k", "-"), "k=-"}, // reads as empty
		{"space", slog.String("k", "a b"), `k="a b"`},
		{"equals", slog.String("k", "a=b"), `k="a=b"`},
		{"quote", slog.String("k", `a"b`), `k="a\"b"`},
		{"backslash", slog.String("k", `a\b`), `k="a\\b"`},
		{"newline", slog.String("k", "a\nb"), `k="a\nb"`},
		{"NUL", slog.String("k", "a\x00"), `k="a\x00"`},
		{"DEL", slog.String("k", "a\x7f"), `k="a\x7f"`},
		{"non-ASCII", slog.String("k", "é\u202e"), `k="\u00e9\u202e"`},
		{"invalid UTF-8", slog.String("k", "\xff"), `k="\xff"`},
		{"priority", slog.String("k", "<3>"), `k="<3>"`},
		{"quoted word", auth.Quoted("k", "imap"), `k="imap"`},
		{"quoted empty", auth.Quoted("k", ""), `k=""`},
		{"quoted hostile", auth.Quoted("k", "a\" b\n\u2028"), `k="a\" b\n\u2028"`},
		{"error", slog.Any("k", errors.New("broken\nline")), `k="broken\nline"`},
		{"error of one word", slog.Any("k", errors.New("EOF")), `k="EOF"`},
		{"wrapped error", slog.Any("k", fmt.Errorf("reading: %w", context.Canceled)), `k="reading: context canceled"`},
		{"nil", slog.Any("k", nil), `k="<nil>"`},
		{"int", slog.Int("k", -12), "k=-12"},
		{"uint", slog.Uint64("k", math.MaxUint64), "k=18446744073709551615"},
		{"bool", slog.Bool("k", true), "k=true"},
		{"float", slog.Float64("k", 1.5), "k=1.5"},
		{"infinity", slog.Float64("k", math.Inf(-1)), "k=-Inf"},
		{"duration below a millisecond", slog.Duration("k", 420*time.Microsecond), "k=0.4ms"},
		{"duration", slog.Duration("k", 61*time.Second), "k=61000.0ms"},
		{"negative duration", slog.Duration("k", -time.Millisecond), "k=-1.0ms"},
		{"longest duration", slog.Duration("k", math.MaxInt64), "k=9223372036854.8ms"},
		{"time", slog.Time("k", at), "k=2030-01-02T02:04:05Z"},
		{"stringer", slog.Any("k", stringer{}), `k="as a string"`},
		{"strings", slog.Any("k", []string{"a", "b\n"}), `k="[a b\n]"`},
		{"bytes", slog.Any("k", []byte("a")), `k=[97]`},
		{"valuer", slog.Any("k", valuer{slog.StringValue("a b")}), `k="a b"`},
		{"valuer of a valuer", slog.Any("k", valuer{slog.AnyValue(valuer{slog.IntValue(1)})}), "k=1"},
		{"group", slog.Group("g", "a", 1, "b", "x y"), `g.a=1 g.b="x y"`},
		{"group in a group", slog.Group("g", slog.Group("h", "a", 1)), "g.h.a=1"},
		{"group without a name", slog.Group("", "a", 1), "a=1"},
		{"valuer of a group", slog.Any("g", valuer{slog.GroupValue(slog.Int("a", 1))}), "g.a=1"},
		{"empty group", slog.Group("g"), ""},
		{"no key", slog.Attr{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := "<6>started: last=1\n"
			if tt.want != "" {
				want = "<6>started: " + tt.want + " last=1\n"
			}
			s.journal().LogAttrs(t.Context(), slog.LevelInfo, "started", tt.attr, slog.Int("last", 1))
			if got := s.text(); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		})
	}
}

func TestLine(t *testing.T) {
	s := newSink(t)
	for _, tt := range []struct {
		name string
		log  func(l *slog.Logger)
		want string
	}{
		{"message only", func(l *slog.Logger) { l.Info("started") }, "<6>started\n"},
		{"message with a colon", func(l *slog.Logger) { l.Info("started:") }, "<6>started:\n"},
		{"attributes", func(l *slog.Logger) { l.Info("started", "a", 1, "b", 2) }, "<6>started: a=1 b=2\n"},
		{"message with a newline", func(l *slog.Logger) { l.Info("a\nb") }, `<6>"a\nb"` + "\n"},
		{"message in other script", func(l *slog.Logger) { l.Info("é") }, `<6>"\u00e9"` + "\n"},
		{"empty message", func(l *slog.Logger) { l.Info("", "a", 1) }, "<6>: a=1\n"},
		{"warning", func(l *slog.Logger) { l.Warn("slow", "a", 1) }, "<4>warning: slow: a=1\n"},
		{"error", func(l *slog.Logger) { l.Error("broken", "a", 1) }, "<3>error: broken: a=1\n"},
		{"debug", func(l *slog.Logger) { l.Debug("detail") }, "<7>debug: detail\n"},
		{"an attempt keeps its beginning", func(l *slog.Logger) { l.Warn("auth", "result", "undecided") }, "<4>auth: result=undecided\n"},
		{"With", func(l *slog.Logger) { l.With("a", 1).With("b", "x y").Info("m", "c", 3) }, "<6>m: a=1 b=\"x y\" c=3\n"},
		{"With only", func(l *slog.Logger) { l.With("a", 1).Info("m") }, "<6>m: a=1\n"},
		{"group", func(l *slog.Logger) { l.WithGroup("g").Info("m", "a", 1) }, "<6>m: g.a=1\n"},
		{"groups", func(l *slog.Logger) {
			l.With("z", 0).WithGroup("g").With("a", 1).WithGroup("h").Info("m", "b", 2, slog.Group("i", "c", 3))
		}, "<6>m: z=0 g.a=1 g.h.b=2 g.h.i.c=3\n"},
		{"group without a name", func(l *slog.Logger) { l.WithGroup("").Info("m", "a", 1) }, "<6>m: a=1\n"},
		{"odd arguments", func(l *slog.Logger) { l.Info("m", []any{"a"}...) }, "<6>m: !BADKEY=a\n"},

		// The last character belongs to the value.
		{"last value ends in a colon", func(l *slog.Logger) { l.Info("listening", "addr", "2001:db8::") }, "<6>listening: addr=2001:db8::\n"},
		{"last value is a colon", func(l *slog.Logger) { l.Info("listening", "addr", ":") }, "<6>listening: addr=:\n"},
		{"only empty attributes", func(l *slog.Logger) { l.Info("m", slog.Attr{}, slog.Group("g")) }, "<6>m\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.level.Set(slog.LevelDebug)
			tt.log(s.journal())
			if got := s.text(); got != tt.want {
				t.Errorf("logged %q, want %q", got, tt.want)
			}
		})
	}
}

// Two loggers made from one must not write into each other's attributes.
func TestWithDoesNotShare(t *testing.T) {
	s := newSink(t)
	base := s.journal().With("a", strings.Repeat("x", 100))
	one, two := base.With("b", "one"), base.With("b", "two")
	one.Info("m")
	two.Info("m")
	base.Info("m")
	head := "<6>m: a=" + strings.Repeat("x", 100)
	if got, want := s.text(), head+" b=one\n"+head+" b=two\n"+head+"\n"; got != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}

func TestPlainPrefix(t *testing.T) {
	s := newSink(t)
	h := NewHandler(Config{Out: s.writer, Level: &s.level, Name: "valetkeyd", PID: 811})
	r := slog.NewRecord(time.Date(2030, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", -3600)), slog.LevelWarn, "slow", 0)
	r.Add("a", 1)
	h.Handle(t.Context(), r)
	if got, want := s.text(), "2030-01-02T04:04:05.678Z valetkeyd[811]: warning: slow: a=1\n"; got != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}

func TestEnabled(t *testing.T) {
	s := newSink(t)
	l := s.journal()
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		s.level.Set(level)
		l.Debug("m")
		l.Info("m")
		l.Warn("m")
		l.Error("m")
		if got, want := strings.Count(s.text(), "\n"), 4-(int(level)+4)/4; got != want {
			t.Errorf("level %v: %d lines, want %d", level, got, want)
		}
	}
}

// Keys come from our own code, but a plugin's log is passed on with the plugin's keys.
func TestHostileKey(t *testing.T) {
	s := newSink(t)
	for _, key := range []string{"a\nb", "a b", "a=b", `a"b`, "é", "a\x00", "\xff", "a\x1b[2J", "a\u2028b", strings.Repeat("\n", 100)} {
		s.journal().Info("m", key, 1)
		s.journal().WithGroup(key).Info("m", "a", 1)
		s.journal().With(key, 1).Info("m", slog.Group(key, "a", 1))
		got := s.text()
		if strings.Count(got, "\n") != 3 {
			t.Errorf("key %.20q: three records became %.200q, want three lines", key, got)
		}
		for line := range strings.Lines(got) {
			if !printable(strings.TrimSuffix(line, "\n")) {
				t.Errorf("key %.20q: logged %.200q, want printable ASCII", key, line)
			}
			if strings.Count(line, " ") != strings.Count(line, "=") || strings.Count(line, `"`)%2 != 0 {
				t.Errorf("key %.20q: logged %.200q, where the fields cannot be told apart", key, line)
			}
		}
	}
}

// A log line must not bring the daemon down: slog's own handlers survive a value whose method panics.
func TestValueThatPanics(t *testing.T) {
	s := newSink(t)
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("logging an error whose Error method panics panicked: %v", r)
		}
	}()
	s.journal().Info("m", "err", (*panics)(nil))
	if got := s.text(); strings.Count(got, "\n") != 1 {
		t.Errorf("logged %q, want one line", got)
	}
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }) < 0
}

func TestHandlerConcurrently(t *testing.T) {
	s := newSink(t)
	const goroutines, each = 8, 200
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			l := s.journal().With("g", g)
			for i := range each {
				l.Info("m", "i", i, "text", strings.Repeat("x", i))
			}
		})
	}
	wg.Wait()
	next := make(map[int]int)
	for line := range strings.Lines(s.text()) {
		var g, i int
		var text string
		if n, err := fmt.Sscanf(line, "<6>m: g=%d i=%d text=%s\n", &g, &i, &text); n != 3 || err != nil {
			t.Fatalf("a line is %.100q: %v", line, err)
		}
		if want := strings.Repeat("x", i); text != want && !(i == 0 && text == "-") || next[g] != i {
			t.Fatalf("goroutine %d: line %d with %d bytes, want line %d whole", g, i, len(text), next[g])
		}
		next[g]++
	}
	for g := range goroutines {
		if next[g] != each {
			t.Errorf("goroutine %d: %d lines, want %d", g, next[g], each)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Fuzz(func(t *testing.T, message, key, value, quoted string, level int) {
		var out bytes.Buffer
		w := NewWriter(&out)
		defer w.Close()
		var least slog.LevelVar
		least.Set(math.MinInt)
		for _, journal := range []bool{true, false} {
			h := NewHandler(Config{Out: w, Level: &least, Journal: journal, Name: "valetkeyd", PID: 1})
			r := slog.NewRecord(time.Unix(0, 0), slog.Level(level), message, 0)
			r.AddAttrs(slog.String(key, value), auth.Quoted("user", quoted), slog.Any("err", errors.New(value)),
				slog.Group(key, slog.String("x", quoted)), slog.Any("any", []string{value}))
			if err := h.WithGroup(key).WithAttrs([]slog.Attr{slog.String("with", value)}).Handle(t.Context(), r); err != nil {
				t.Errorf("Handle = %v, want nil", err)
			}
			w.Flush()
			line := out.String()
			out.Reset()
			if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
				t.Errorf("one record became %q, want one line", line)
			}
			if !printable(strings.TrimSuffix(line, "\n")) {
				t.Errorf("one record became %q, want printable ASCII", line)
			}
		}
	})
}
