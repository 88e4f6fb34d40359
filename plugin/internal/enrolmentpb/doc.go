// Package enrolmentpb is plugin/enrolment.proto as Go, generated; the plain structs that people use are in the package plugin.
//
// The generators are programs of the modules that go.mod names or that stand beside them; protoc is Debian's protobuf-compiler. From
// the top of the module:
//
//	GOBIN=/tmp/bin go install google.golang.org/protobuf/cmd/protoc-gen-go
//	GOBIN=/tmp/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//	PATH=/tmp/bin:$PATH go generate ./plugin/internal/enrolmentpb
package enrolmentpb

//go:generate protoc -I ../.. --go_out=../../.. --go_opt=module=github.com/valetkey/valetkey --go-grpc_out=../../.. --go-grpc_opt=module=github.com/valetkey/valetkey enrolment.proto
