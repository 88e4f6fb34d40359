// Command fake is a plugin that does on request what plugins must not do. The first argument is how it behaves as a program, the login
// of a request how it answers.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/valetkey/valetkey/plugin"
	"github.com/valetkey/valetkey/plugin/internal/enrolmentpb"
)

func main() {
	mode, dir := "", ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	if len(os.Args) > 2 {
		dir = os.Args[2] // where it leaves notes
	}
	stderr := os.Stderr
	switch mode {
	case "":
	case "garbage":
		fmt.Println("Welcome to my plugin!")
		time.Sleep(time.Hour)
	case "endless": // a handshake line that never ends
		for {
			os.Stdout.Write(bytes.Repeat([]byte("x"), 1<<16))
		}
	case "silent":
		time.Sleep(time.Hour)
	case "deaf": // says where it listens, and never accepts
		path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
		listen(path)
		fmt.Printf("1|1|unix|%s|grpc\n", path)
		time.Sleep(time.Hour)
	case "elsewhere":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc")
		time.Sleep(time.Hour)
	case "old":
		fmt.Println("1|99|unix|" + filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s") + "|grpc")
		time.Sleep(time.Hour)
	case "exit":
		fmt.Fprintln(os.Stderr, "no configuration\x1b[31m")
		os.Exit(3)
	case "slow":
		time.Sleep(700 * time.Millisecond)
	case "environment":
		note(dir, "environment", strings.Join(os.Environ(), "\n"))
		stdin, err := io.ReadAll(os.Stdin)
		note(dir, "stdin", fmt.Sprintf("%d bytes, %v", len(stdin), err))
		wd, _ := os.Getwd()
		note(dir, "wd", wd)
		open, _ := os.ReadDir("/proc/self/fd")
		var targets []string
		for _, e := range open {
			target, _ := os.Readlink("/proc/self/fd/" + e.Name())
			targets = append(targets, e.Name()+" "+target)
		}
		note(dir, "descriptors", strings.Join(targets, "\n"))
	case "grandchild":
		child := exec.Command("sleep", "3600")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			panic(err)
		}
		note(dir, "grandchild", fmt.Sprint(child.Process.Pid))
	case "daemonised": // a grandchild in a session of its own, out of reach of a signal to the group
		child := exec.Command("setsid", "sleep", "20")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			panic(err)
		}
	case "flood":
		go func() {
			line := []byte("level=error msg=\"all is lost\x1b[2J\" \n")
			block := bytes.Repeat(line, 1000)
			for range 2000 {
				stderr.Write(block)
			}
			note(dir, "flooded", "yes")
		}()
	case "flood-stdio": // through the connection, and without ends of lines
		go func() {
			for os.Stderr == stderr {
				time.Sleep(time.Millisecond)
			}
			block := bytes.Repeat([]byte("y"), 1<<16)
			for range 200 {
				os.Stderr.Write(block)
			}
			note(dir, "flooded", "yes")
		}()
	case "raw":
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  plugin.Handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{1: {"raw": &raw{}}},
			GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(o, grpc.MaxSendMsgSize(1<<30))...)
			},
		})
		return
	}
	plugin.Serve(&checker{dir: dir, stuck: mode == "stubborn"})
	if mode == "stubborn" {
		time.Sleep(time.Hour) // asked to end, it stays
	}
}

func note(dir, name, text string) {
	if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte(text), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)); err != nil {
		panic(err)
	}
}

type checker struct {
	dir   string
	stuck bool
}

func (c *checker) Describe() plugin.Description {
	return plugin.Description{Name: "fake", Version: "1.2.3", MaxParallel: 16}
}

func (c *checker) Check(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
	if c.dir != "" {
		f, err := os.OpenFile(filepath.Join(c.dir, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, r.AccountID, r.Login)
			f.Close()
		}
	}
	switch {
	case r.Login == "alice":
		return plugin.Answer{Status: plugin.Enrolled, ReasonCode: "totp"}, nil
	case r.Login == "bob":
		return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_token"}, nil
	case r.Login == "carol":
		return plugin.Answer{Status: plugin.Exempt}, nil
	case r.Login == "brief":
		return plugin.Answer{Status: plugin.Enrolled, ValidFor: time.Second}, nil
	case r.Login == "fails":
		return plugin.Answer{}, errors.New("the directory is away: " + strings.Repeat("z", 4000))
	case r.Login == "panics":
		panic("as asked")
	case r.Login == "hangs":
		time.Sleep(time.Minute)
	case r.Login == "waits":
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return plugin.Answer{}, ctx.Err()
		}
		return plugin.Answer{Status: plugin.Enrolled}, nil
	case r.Login == "exits":
		os.Exit(7)
	case strings.HasPrefix(r.Login, "zero"):
		return plugin.Answer{}, nil
	}
	return plugin.Answer{Status: plugin.AccountUnknown}, nil
}

// raw answers what plugin.Serve would not let through.
type raw struct {
	goplugin.NetRPCUnsupportedPlugin
	enrolmentpb.UnimplementedEnrolmentServer
}

func (r *raw) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	enrolmentpb.RegisterEnrolmentServer(s, r)
	return nil
}

func (r *raw) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a host")
}

func (r *raw) Describe(context.Context, *enrolmentpb.DescribeRequest) (*enrolmentpb.DescribeReply, error) {
	return &enrolmentpb.DescribeReply{Name: "raw"}, nil
}

func (r *raw) Check(_ context.Context, m *enrolmentpb.CheckRequest) (*enrolmentpb.CheckReply, error) {
	reply := &enrolmentpb.CheckReply{Status: enrolmentpb.CheckReply_ENROLLED}
	switch m.GetLogin() {
	case "huge":
		reply.ReasonCode = strings.Repeat("a", 256<<20)
	case "status":
		reply.Status = 257 // an int that would pass for Enrolled in a byte
	case "unspecified":
		reply.Status = 0
	case "reason":
		reply.ReasonCode = "forged\nline"
	case "error":
		return nil, errors.New(strings.Repeat("e", 1<<20))
	}
	return reply, nil
}
