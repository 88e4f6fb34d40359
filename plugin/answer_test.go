package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/plugin/internal/enrolmentpb"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    interface{ Validate() error }
		want string // part of the error; empty: none
	}{
		{"answer", Answer{Status: Enrolled}, ""},
		{"answer in full", Answer{Exempt, time.Hour, "is_a_printer_2"}, ""},
		{"longest reason", Answer{Status: NotEnrolled, ReasonCode: strings.Repeat("a", 64)}, ""},
		{"zero answer", Answer{}, "no known status"},
		{"unknown status", Answer{Status: 5}, "no known status"},
		{"negative time", Answer{Status: Enrolled, ValidFor: -1}, "negative"},
		{"too long a reason", Answer{Status: Enrolled, ReasonCode: strings.Repeat("a", 65)}, "65 bytes"},
		{"capitals in a reason", Answer{Status: Enrolled, ReasonCode: "TOTP"}, "a-z"},
		{"a line in a reason", Answer{Status: Enrolled, ReasonCode: "a\nb"}, "a-z"},
		{"request", Request{1, "alice"}, ""},
		{"longest login", Request{1, strings.Repeat("x", 512)}, ""},
		{"no login", Request{1, ""}, "no login"},
		{"too long a login", Request{1, strings.Repeat("x", 513)}, "513 bytes"},
		{"not UTF-8", Request{1, "\xff"}, "UTF-8"},
		{"description", Description{Name: "my plugin", Version: "1.0 (beta)"}, ""},
		{"no name", Description{}, "no name"},
		{"long name", Description{Name: strings.Repeat("x", 65)}, "65 bytes"},
		{"control character", Description{Name: "x", Version: "1\x1b[2J"}, "printable"},
		{"negative parallel", Description{Name: "x", MaxParallel: -1}, "-1 checks"},
	} {
		err := tt.v.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Validate = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestStatus(t *testing.T) {
	for s, want := range map[Status]struct {
		text          string
		known, allows bool
	}{
		0: {"status(0)", false, false}, Enrolled: {"enrolled", true, true}, NotEnrolled: {"not_enrolled", true, false},
		Exempt: {"exempt", true, true}, AccountUnknown: {"account_unknown", true, false}, 5: {"status(5)", false, false},
	} {
		if s.String() != want.text || s.Known() != want.known || s.Allows() != want.allows {
			t.Errorf("Status(%d): %q, known %v, allows %v, want %+v", uint8(s), s, s.Known(), s.Allows(), want)
		}
		if want.known && enrolmentpb.CheckReply_Status(s).String() != strings.ToUpper(want.text) {
			t.Errorf("Status(%d) is %v on the wire", uint8(s), enrolmentpb.CheckReply_Status(s))
		}
	}
}

// What the server makes of requests, answers, errors and panics.
func TestServer(t *testing.T) {
	s := &server{checker: CheckerFunc(func(ctx context.Context, r Request) (Answer, error) {
		switch r.Login {
		case "alice":
			return Answer{Enrolled, 1500 * time.Millisecond, "totp"}, nil
		case "forever":
			return Answer{Status: Enrolled, ValidFor: 1 << 62}, nil
		case "fails":
			return Answer{}, errors.New(strings.Repeat("\xff", 5000))
		case "late":
			<-ctx.Done()
			return Answer{}, errors.New("given up")
		case "panics":
			panic("as asked")
		}
		return Answer{}, nil
	})}
	for _, tt := range []struct {
		login   string
		code    codes.Code
		seconds uint32
	}{
		{"alice", codes.OK, 2}, {"forever", codes.OK, 3600}, {"fails", codes.Unknown, 0}, {"panics", codes.Internal, 0},
		{"nobody", codes.Internal, 0}, {"", codes.InvalidArgument, 0}, {strings.Repeat("x", 513), codes.InvalidArgument, 0},
		{"late", codes.DeadlineExceeded, 0},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		reply, err := s.Check(ctx, &enrolmentpb.CheckRequest{AccountId: 1, Login: tt.login})
		cancel()
		if status.Code(err) != tt.code || reply.GetValidForSeconds() != tt.seconds {
			t.Errorf("Check(%.20q) = %v, %v, want %v, valid for %d s", tt.login, reply, err, tt.code, tt.seconds)
		}
		if err != nil && len(err.Error()) > 700 {
			t.Errorf("Check(%.20q): an error of %d bytes", tt.login, len(err.Error()))
		}
	}
}
