// Command recorder is an enrolment plugin that writes down everything it is given and says of everybody that he is enrolled. It speaks the
// protocol by hand, as plugin/doc.go says for other languages, so that nothing is taken away from what arrives: the bytes of every message
// and all that comes with it.
//
//	recorder FOLDER
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func main() {
	dir := os.Args[1]
	stdin, err := io.ReadAll(os.Stdin)
	open, _ := os.ReadDir("/proc/self/fd")
	var descriptors []string
	for _, e := range open {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		descriptors = append(descriptors, e.Name()+" "+to)
	}
	cwd, _ := os.Getwd()
	for name, text := range map[string]string{
		"environment": strings.Join(os.Environ(), "\n"), "arguments": strings.Join(os.Args, "\n"),
		"stdin": fmt.Sprintf("%q, %v", stdin, err), "descriptors": strings.Join(descriptors, "\n"), "cwd": cwd,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			panic(err)
		}
	}
	wire, err := os.OpenFile(filepath.Join(dir, "wire"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|grpc\n", path)

	var mu sync.Mutex
	serve := func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		var in []byte
		if err := s.RecvMsg(&in); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		about, _ := metadata.FromIncomingContext(s.Context())
		mu.Lock()
		fmt.Fprintf(wire, "%s %q %q\n", method, map[string][]string(about), in) // a metadata.MD would hide some of itself
		mu.Unlock()
		var out []byte
		switch method {
		case "/valetkey.enrolment.v1.Enrolment/Describe":
			out = []byte("\x0a\x08recorder") // name = 1
		case "/valetkey.enrolment.v1.Enrolment/Check":
			out = []byte("\x08\x01") // status = 1, ENROLLED
		default:
			return status.Error(codes.Unimplemented, method)
		}
		return s.SendMsg(&out)
	}
	panic(grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(serve)).Serve(l))
}

// raw leaves messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (raw) Name() string { return "raw" }
