package ldapbridge

import "github.com/valetkey/valetkey/ldapbridge/internal/ber"

// resultCode is an LDAP result code (RFC 4511 appendix A). These are all that we ever send.
type resultCode int32

const (
	success                 resultCode = 0
	operationsError         resultCode = 1 // only of StartTLS
	protocolError           resultCode = 2
	timeLimitExceeded       resultCode = 3
	sizeLimitExceeded       resultCode = 4
	compareFalse            resultCode = 5
	compareTrue             resultCode = 6
	authMethodNotSupported  resultCode = 7
	strongerAuthRequired    resultCode = 8 // only in the notice of disconnection
	unavailableCriticalExt  resultCode = 12
	confidentialityRequired resultCode = 13
	noSuchAttribute         resultCode = 16
	undefinedAttributeType  resultCode = 17
	invalidAttributeSyntax  resultCode = 21 // only of compare
	noSuchObject            resultCode = 32
	invalidDNSyntax         resultCode = 34
	invalidCredentials      resultCode = 49
	insufficientAccess      resultCode = 50
	unavailable             resultCode = 52 // only in the notice of disconnection
	unwillingToPerform      resultCode = 53
	other                   resultCode = 80
)

// Tags of protocolOp (RFC 4511 section 4.2 and following).
const (
	opBindRequest      = 0x60
	opBindResponse     = 0x61
	opUnbindRequest    = 0x42
	opSearchRequest    = 0x63
	opSearchEntry      = 0x64
	opSearchDone       = 0x65
	opModifyRequest    = 0x66
	opModifyResponse   = 0x67
	opAddRequest       = 0x68
	opAddResponse      = 0x69
	opDelRequest       = 0x4a
	opDelResponse      = 0x6b
	opModDNRequest     = 0x6c
	opModDNResponse    = 0x6d
	opCompareRequest   = 0x6e
	opCompareResponse  = 0x6f
	opAbandonRequest   = 0x50
	opExtendedRequest  = 0x77
	opExtendedResponse = 0x78
)

// responseTo returns the tag of the response to a request, or 0 if it has none.
func responseTo(request byte) byte {
	switch request {
	case opBindRequest:
		return opBindResponse
	case opSearchRequest:
		return opSearchDone
	case opModifyRequest:
		return opModifyResponse
	case opAddRequest:
		return opAddResponse
	case opDelRequest:
		return opDelResponse
	case opModDNRequest:
		return opModDNResponse
	case opCompareRequest:
		return opCompareResponse
	case opExtendedRequest:
		return opExtendedResponse
	}
	return 0
}

// result is an LDAPResult (RFC 4511 section 4.1.9). Its zero value is success. diag is short fixed English: clients show it
// to users.
type result struct {
	code    resultCode
	matched string
	diag    string
}

// appendResponse appends an LDAPMessage whose protocolOp is nothing but an LDAPResult.
func appendResponse(dst []byte, id int32, op byte, r result) []byte {
	dst, message := ber.Begin(dst, ber.Sequence)
	dst = ber.AppendInt(dst, ber.Integer, id)
	dst, body := ber.Begin(dst, op)
	dst = r.append(dst)
	dst = ber.End(dst, body)
	return ber.End(dst, message)
}

func (r result) append(dst []byte) []byte {
	dst = ber.AppendInt(dst, ber.Enumerated, int32(r.code))
	dst = ber.AppendString(dst, ber.OctetString, r.matched)
	return ber.AppendString(dst, ber.OctetString, r.diag)
}

const oidNotice = "1.3.6.1.4.1.1466.20036"

// appendNotice appends a Notice of Disconnection (RFC 4511 section 4.4.1).
func appendNotice(dst []byte, code resultCode, diag string) []byte {
	return appendExtended(dst, 0, result{code: code, diag: diag}, oidNotice, nil)
}

// appendExtended appends an ExtendedResponse. Name and value are primitive context tags without an inner OCTET STRING; an
// empty name or a nil value is left out.
func appendExtended(dst []byte, id int32, r result, name string, value []byte) []byte {
	dst, message := ber.Begin(dst, ber.Sequence)
	dst = ber.AppendInt(dst, ber.Integer, id)
	dst, body := ber.Begin(dst, opExtendedResponse)
	dst = r.append(dst)
	if name != "" {
		dst = ber.AppendString(dst, 0x8a, name)
	}
	if value != nil {
		dst = ber.AppendString(dst, 0x8b, value)
	}
	dst = ber.End(dst, body)
	return ber.End(dst, message)
}
