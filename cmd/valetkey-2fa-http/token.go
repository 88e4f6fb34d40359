package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/plugincmd"
)

// How long a token is used.
const (
	maxTokenAnswer = 64 << 10         // bytes
	tokenMargin    = 30 * time.Second // before its end a token is not used any more, but at most a tenth of its life
	tokenUnknown   = time.Minute      // what does not say how long it lives (RFC 6749 section 5.1 only recommends that)
	tokenLongest   = time.Hour        // whatever it says
)

// tokens gets an access token with the client's own credentials (RFC 6749 section 4.4) and keeps it as long as it lives. Whoever needs
// one while it is being fetched waits for that one, no longer than his context; golang.org/x/oauth2 holds a mutex meanwhile, which no
// deadline ends.
type tokens struct {
	client          *http.Client
	url, id, secret string
	scope           string
	now             func() time.Time

	slot    chan struct{} // guards what follows
	current string
	until   time.Time
}

// get returns a token that is not the stale one.
func (t *tokens) get(ctx context.Context, stale string) (string, error) {
	select {
	case t.slot <- struct{}{}:
		defer func() { <-t.slot }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if t.current != "" && t.current != stale && t.now().Before(t.until) {
		return t.current, nil
	}
	t.current = ""
	token, life, err := t.fetch(ctx)
	if err != nil {
		return "", err
	}
	t.current, t.until = token, t.now().Add(life-min(tokenMargin, life/10))
	return token, nil
}

var errorCode = regexp.MustCompile(`^[a-z_]{1,40}$`)

func (t *tokens) fetch(ctx context.Context) (token string, life time.Duration, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if t.scope != "" {
		form.Set("scope", t.scope)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, errors.New("token_url is no URL")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	// RFC 6749 section 2.3.1: form-encoded first, and every server must support it.
	r.SetBasicAuth(url.QueryEscape(t.id), url.QueryEscape(t.secret))
	status, _, body, err := exchange(t.client, r, maxTokenAnswer)
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int64  `json:"expires_in"`
		Error   string `json:"error"`
	}
	err = json.Unmarshal(body, &answer)
	if status != http.StatusOK {
		code := ""
		if errorCode.MatchString(answer.Error) { // RFC 6749 section 5.2
			code = ": " + answer.Error
		}
		return "", 0, plugincmd.WithHint(fmt.Errorf("the token endpoint answers with status %d%s", status, code),
			"check client_id and client_secret_file, and that the client may use the client credentials grant")
	}
	if err != nil || answer.Token == "" || !strings.EqualFold(answer.Type, "bearer") {
		return "", 0, errors.New("the answer of the token endpoint has no bearer token")
	}
	life = tokenUnknown
	if answer.Expires > 0 {
		life = min(time.Duration(min(answer.Expires, int64(tokenLongest/time.Second)))*time.Second, tokenLongest)
	}
	return answer.Token, life, nil
}
