package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Client talks to a daemon's admin socket.
type Client struct {
	http   *http.Client
	socket string
}

// NewClient returns a client for the socket at that path. It connects at the first call.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		IdleConnTimeout: 30 * time.Second, // before the server ends it, so that no call meets that
	}}}
}

// UnreachableError means that the daemon did not answer: nothing is known, and a change may have been made.
type UnreachableError struct {
	Socket string
	Err    error
}

// Error names the socket and the cause.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach valetkeyd at %s: %v", e.Socket, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError is the daemon's answer that it did not do it.
type RefusedError struct {
	Status int // of HTTP
	ProblemDetail
}

// Error is the daemon's message.
func (e *RefusedError) Error() string { return e.Message }

// answers are buffers for the bodies of answers. Who reads a long list makes a thousand calls, and the next page takes the place of the last
// one instead of growing a new buffer.
var answers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	text := answers.Get().(*bytes.Buffer)
	defer answers.Put(text) // nothing that is decoded shares its bytes
	text.Reset()
	if err := c.send(ctx, method, path, query, in, text); err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(text.Bytes(), out); err != nil {
		return &UnreachableError{c.socket, errors.New("its answer is not what this version understands")}
	}
	return nil
}

// send makes a call and appends the body of its success.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, in any, text *bytes.Buffer) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://valetkeyd"+path+"?"+query.Encode(), body)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which names accounts
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address, which UnreachableError names
		}
		return &UnreachableError{c.socket, err}
	}
	defer answer.Body.Close()
	if _, err := text.ReadFrom(io.LimitReader(answer.Body, 16<<20)); err != nil {
		return &UnreachableError{c.socket, err}
	}
	if answer.StatusCode/100 != 2 {
		var p Problem
		if err := json.Unmarshal(text.Bytes(), &p); err != nil || p.Error.Message == "" {
			return &UnreachableError{c.socket, fmt.Errorf("it answers HTTP status %d: is it valetkeyd?", answer.StatusCode)}
		}
		return &RefusedError{answer.StatusCode, p.Error}
	}
	return nil
}

// ask makes a call whose answer is a T.
func ask[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, query, in, &out)
	return out, err
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "GET", "/v1/status", nil, nil)
}

// AddAccount adds an account.
func (c *Client) AddAccount(ctx context.Context, n NewAccount) (Account, error) {
	return ask[Account](ctx, c, "POST", "/v1/accounts", nil, n)
}

// Accounts asks for a page of accounts of a kind, or of people if it is empty; limit 0 leaves its size to the daemon.
func (c *Client) Accounts(ctx context.Context, kind, after string, limit int) (Accounts, error) {
	return ask[Accounts](ctx, c, "GET", "/v1/accounts", url.Values{"kind": {kind}, "after": {after}, "limit": {strconv.Itoa(limit)}}, nil)
}

// Account asks for one account, by login or alias.
func (c *Client) Account(ctx context.Context, login string) (Account, error) {
	return ask[Account](ctx, c, "GET", "/v1/account", url.Values{"login": {login}}, nil)
}

// PatchAccount changes an account.
func (c *Client) PatchAccount(ctx context.Context, login string, p AccountPatch) (Account, error) {
	return ask[Account](ctx, c, "PATCH", "/v1/account", url.Values{"login": {login}}, p)
}

// DeleteAccount deletes an account with its app passwords. With a kind, it refuses an account of the other one.
func (c *Client) DeleteAccount(ctx context.Context, login, kind string) error {
	return c.call(ctx, "DELETE", "/v1/account", url.Values{"login": {login}, "kind": {kind}}, nil, nil)
}

// AddGroup adds a group without members.
func (c *Client) AddGroup(ctx context.Context, n NewGroup) (Group, error) {
	return ask[Group](ctx, c, "POST", "/v1/groups", nil, n)
}

// Groups asks for a page of groups, without their members; limit 0 leaves its size to the daemon.
func (c *Client) Groups(ctx context.Context, after string, limit int) (Groups, error) {
	return ask[Groups](ctx, c, "GET", "/v1/groups", url.Values{"after": {after}, "limit": {strconv.Itoa(limit)}}, nil)
}

// Group asks for one group with its members.
func (c *Client) Group(ctx context.Context, name string) (Group, error) {
	return ask[Group](ctx, c, "GET", "/v1/group", url.Values{"name": {name}}, nil)
}

// PatchGroup changes a group.
func (c *Client) PatchGroup(ctx context.Context, name string, p GroupPatch) (Group, error) {
	return ask[Group](ctx, c, "PATCH", "/v1/group", url.Values{"name": {name}}, p)
}

// DeleteGroup deletes a group; its members stay.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/group", url.Values{"name": {name}}, nil, nil)
}

// AppPasswords asks for those of an account, with tombstones if all is set.
func (c *Client) AppPasswords(ctx context.Context, login string, all bool) (AppPasswords, error) {
	return ask[AppPasswords](ctx, c, "GET", "/v1/app-passwords", url.Values{"login": {login}, "all": {strconv.FormatBool(all)}}, nil)
}

// Create issues an app password.
func (c *Client) Create(ctx context.Context, login string, n NewAppPassword) (Created, error) {
	return ask[Created](ctx, c, "POST", "/v1/app-passwords", url.Values{"login": {login}}, n)
}

// AppPassword asks for one app password.
func (c *Client) AppPassword(ctx context.Context, login, label string) (Detail, error) {
	return ask[Detail](ctx, c, "GET", "/v1/app-password", url.Values{"login": {login}, "label": {label}}, nil)
}

// Edit changes an app password.
func (c *Client) Edit(ctx context.Context, login, label string, p AppPasswordPatch) (AppPassword, error) {
	return ask[AppPassword](ctx, c, "PATCH", "/v1/app-password", url.Values{"login": {login}, "label": {label}}, p)
}

// Rotate gives an app password a new secret.
func (c *Client) Rotate(ctx context.Context, login, label string, n Rotation) (Rotated, error) {
	return ask[Rotated](ctx, c, "POST", "/v1/app-password/rotate", url.Values{"login": {login}, "label": {label}}, n)
}

// Find asks for a page of the app passwords that the filter means. An empty order and limit 0 leave these to the daemon.
func (c *Client) Find(ctx context.Context, f Filter, order, after string, limit int) (Found, error) {
	q := f.Values()
	for name, v := range map[string]string{"sort": order, "after": after} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return ask[Found](ctx, c, "GET", "/v1/find/app-passwords", q, nil)
}

// RevokeFound revokes some of what the filter means, and returns those that it revoked and where to go on.
func (c *Client) RevokeFound(ctx context.Context, n FoundRevocation) (Found, error) {
	return ask[Found](ctx, c, "POST", "/v1/find/app-passwords/revoke", nil, n)
}

// Revoke ends an app password; one that is revoked already stays so.
func (c *Client) Revoke(ctx context.Context, login, label, why string) (AppPassword, error) {
	return ask[AppPassword](ctx, c, "POST", "/v1/app-password/revoke", url.Values{"login": {login}, "label": {label}}, Revocation{why})
}

// Exempt frees an app password from the second factor.
func (c *Client) Exempt(ctx context.Context, login, label, because string) (AppPassword, error) {
	return ask[AppPassword](ctx, c, "POST", "/v1/app-password/exemption", url.Values{"login": {login}, "label": {label}}, Exemption{because})
}

// EndExemption makes an app password ask for the second factor again.
func (c *Client) EndExemption(ctx context.Context, login, label string) (AppPassword, error) {
	return ask[AppPassword](ctx, c, "DELETE", "/v1/app-password/exemption", url.Values{"login": {login}, "label": {label}}, nil)
}

// Plugin asks how the enrolment plugin is.
func (c *Client) Plugin(ctx context.Context) (Plugin, error) {
	return ask[Plugin](ctx, c, "GET", "/v1/plugin", nil, nil)
}

// CheckEnrolment asks what is known about an account's second factor. With fresh, the plugin is asked in any case.
func (c *Client) CheckEnrolment(ctx context.Context, login string, fresh bool) (Enrolment, error) {
	method := "GET"
	if fresh {
		method = "POST"
	}
	return ask[Enrolment](ctx, c, method, "/v1/plugin/check", url.Values{"login": {login}}, nil)
}

// CPUProfile records how the daemon spends its time, for whole seconds, in the format of go tool pprof.
func (c *Client) CPUProfile(ctx context.Context, seconds int) ([]byte, error) {
	var profile bytes.Buffer
	err := c.send(ctx, "GET", "/v1/debug/cpu-profile", url.Values{"seconds": {strconv.Itoa(seconds)}}, nil, &profile)
	return profile.Bytes(), err
}
