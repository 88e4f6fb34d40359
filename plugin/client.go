package plugin

import (
	"context"
	"fmt"
	"math"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/valetkey/valetkey/plugin/internal/enrolmentpb"
)

// Client asks a plugin that runs. A plugin's author needs none: it is for plugin/host and plugin/plugintest.
type Client struct {
	rpc enrolmentpb.EnrolmentClient
}

// NewClient returns the client of a started plugin.
func NewClient(c goplugin.ClientProtocol) (*Client, error) {
	raw, err := c.Dispense(setKey)
	if err != nil {
		return nil, err
	}
	client, ok := raw.(*Client)
	if !ok {
		return nil, fmt.Errorf("go-plugin returned a %T", raw)
	}
	return client, nil
}

// DialOptions bound what a plugin can send: 64 KiB a message, 16 KiB of headers, which include the text of an error. go-plugin's own
// limit is 2 GiB.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithMaxHeaderListSize(16 << 10),
		// A fixed window: left alone it grows with what the other side sends.
		grpc.WithInitialWindowSize(maxMessage),
		grpc.WithInitialConnWindowSize(4 * maxMessage),
	}
}

// Describe asks the plugin who it is. Errors are those of gRPC, or say which limit the plugin did not keep.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	m, err := c.rpc.Describe(ctx, &enrolmentpb.DescribeRequest{})
	if err != nil {
		return Description{}, err
	}
	d := Description{Name: m.GetName(), Version: m.GetVersion(), MaxParallel: int(min(m.GetMaxParallel(), math.MaxInt32))}
	if err := d.Validate(); err != nil {
		return Description{}, &BadAnswerError{err}
	}
	return d, nil
}

// Check asks about one account. Errors are those of gRPC, or a [*BadAnswerError].
func (c *Client) Check(ctx context.Context, r Request) (Answer, error) {
	m, err := c.rpc.Check(ctx, &enrolmentpb.CheckRequest{AccountId: r.AccountID, Login: r.Login})
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	if s := m.GetStatus(); s > 0 && s <= math.MaxUint8 {
		a.Status = Status(s)
	}
	a.ReasonCode = m.GetReasonCode()
	a.ValidFor = time.Duration(m.GetValidForSeconds()) * time.Second
	if err := a.Validate(); err != nil {
		return Answer{}, &BadAnswerError{err}
	}
	return a, nil
}

// BadAnswerError says which limit an answer does not keep.
type BadAnswerError struct{ err error }

func (e *BadAnswerError) Error() string { return "bad answer from the plugin: " + e.err.Error() }
func (e *BadAnswerError) Unwrap() error { return e.err }
