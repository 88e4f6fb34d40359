package netserve

import (
	"fmt"
	"runtime"
)

// PanicText describes the value of a panic for the log. The value may quote a request, so only the runtime's own errors are
// given in full, and of anything else the type. A stack trace beside it is harmless: it holds addresses, not contents.
func PanicText(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}
