package ldapbridge

const (
	oidWhoAmI         = "1.3.6.1.4.1.4203.1.11.3"
	oidPasswordModify = "1.3.6.1.4.1.4203.1.11.1"
	oidStartTLS       = "1.3.6.1.4.1.1466.20037"
)

// readOnly is the answer to every operation that would write.
var readOnly = result{code: unwillingToPerform, diag: "read-only"}

// extended answers an ExtendedRequest (RFC 4511 section 4.12). Errors are those of search.
func (c *conn) extended(m *message) error {
	var req extendedRequest
	if err := req.decode(m.body); err != nil {
		return err
	}
	if string(req.name) == oidStartTLS {
		c.startTLS(m, &req)
		return nil
	}
	r, value, err := c.extendedResult(m, &req)
	if err != nil {
		return err
	}
	c.out = appendExtended(c.out, m.id, r, "", value)
	return nil
}

func (c *conn) extendedResult(m *message, req *extendedRequest) (result, []byte, error) {
	if m.unknownCritical() {
		return result{code: unavailableCriticalExt}, nil, nil
	}
	switch string(req.name) {
	case oidWhoAmI: // RFC 4532
		if req.value != nil {
			return result{code: protocolError, diag: "no request value expected"}, nil, nil
		}
		if c.login == "" {
			return result{}, []byte{}, nil
		}
		// Some ask this to learn whether they are still logged in.
		if r, err := c.stands(); err != nil || r.code != success {
			return r, nil, err
		}
		return result{}, c.srv.dn(&c.identity).append([]byte("dn:")), nil
	case oidPasswordModify:
		return readOnly, nil, nil
	}
	return result{code: protocolError, diag: "unknown extended request"}, nil, nil
}
