package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/valetkey/valetkey/plugin/internal/enrolmentpb"
)

// The handshake. The cookie tells the daemon from a person who runs the program by hand; it is no secret.
const (
	CookieKey       = "VALETKEY_ENROLMENT_PLUGIN"
	CookieValue     = "b0a3f1d6-enrolment"
	ProtocolVersion = 1
)

// Handshake is what both sides must agree on before they speak.
var Handshake = goplugin.HandshakeConfig{MagicCookieKey: CookieKey, MagicCookieValue: CookieValue}

// setKey is the name under which go-plugin keeps the one service that a plugin has.
const setKey = "enrolment"

// Versions are the protocol versions that this package speaks, for the side that starts a plugin.
func Versions() map[int]goplugin.PluginSet { return versions(nil) }

func versions(c Checker) map[int]goplugin.PluginSet {
	return map[int]goplugin.PluginSet{ProtocolVersion: {setKey: &service{checker: c}}}
}

// Serve answers the daemon's questions with c until the daemon ends the program. Call it from main and do nothing after it. If the
// program was not started by the daemon, Serve says so on standard error and exits with status 1.
//
// A panic in c is an error of that one Check; its stack goes to standard error.
func Serve(c Checker) {
	if os.Getenv(CookieKey) != CookieValue {
		// go-plugin has a text of its own, which does not say whose plugin this is.
		fmt.Fprintf(os.Stderr, "%s: this is a plugin that valetkeyd starts; it does nothing by itself\n", programName())
		fmt.Fprintln(os.Stderr, "hint: name it in the daemon's configuration, then run \"valetkey plugin status\"")
		os.Exit(1)
	}
	// go-plugin puts pipes in the place of os.Stderr and os.Stdout, whose content travels over the connection and so stops
	// when that does. What the daemon reads directly is better for the log of a program in trouble.
	stderr := os.Stderr
	logger := hclog.New(&hclog.LoggerOptions{Name: "go-plugin", Level: hclog.Warn, Output: stderr})
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  Handshake,
		VersionedPlugins: versions(c),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage))...)
		},
		Logger: logger,
	})
}

// maxMessage bounds what travels in either direction, in bytes; both sides keep to it.
const maxMessage = 64 << 10

func programName() string { return filepath.Base(os.Args[0]) }

// service is the one go-plugin "plugin" that a program has.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
	checker Checker // nil on the daemon's side
}

// GRPCServer registers the service.
func (s *service) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	enrolmentpb.RegisterEnrolmentServer(g, &server{checker: s.checker})
	return nil
}

// GRPCClient returns a [*Client].
func (s *service) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &Client{rpc: enrolmentpb.NewEnrolmentClient(conn)}, nil
}

// server turns messages into plain structs and back.
type server struct {
	enrolmentpb.UnimplementedEnrolmentServer
	checker Checker
}

func (s *server) Describe(context.Context, *enrolmentpb.DescribeRequest) (*enrolmentpb.DescribeReply, error) {
	var d Description
	if describer, ok := s.checker.(Describer); ok {
		d = describer.Describe()
	}
	if d.Name == "" {
		d.Name = programName()
	}
	if err := d.Validate(); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &enrolmentpb.DescribeReply{Name: d.Name, Version: d.Version, MaxParallel: uint32(min(d.MaxParallel, 1<<30))}, nil
}

func (s *server) Check(ctx context.Context, m *enrolmentpb.CheckRequest) (reply *enrolmentpb.CheckReply, err error) {
	r := Request{AccountID: m.GetAccountId(), Login: m.GetLogin()}
	if err := r.Validate(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "panic in Check: %v\n%s", p, debug.Stack())
			reply, err = nil, status.Error(codes.Internal, "the check panicked; its stack is in the log")
		}
	}()
	a, err := s.checker.Check(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Error(codes.Unknown, clip(err.Error()))
	}
	if err := a.Validate(); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	seconds := (min(a.ValidFor, time.Hour) + time.Second - 1) / time.Second // the daemon's limits are far below an hour
	return &enrolmentpb.CheckReply{
		Status: enrolmentpb.CheckReply_Status(a.Status), ValidForSeconds: uint32(seconds), ReasonCode: a.ReasonCode,
	}, nil
}

// maxError bounds the text of an error that a plugin reports, in bytes.
const maxError = 512

func clip(s string) string {
	if len(s) > maxError {
		s = s[:maxError] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
