package dovecot

import (
	"errors"
	"os"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

const (
	maxUnsent  = 32 * 1024 // replies kept while a write is under way; beyond it, who has another one waits
	keptBuffer = 4 * 1024  // largest buffer kept between writes
)

// appendFail appends FAIL with the login as it was sent. An overlong login is left out: some peers read lines of 1024
// bytes.
func appendFail(dst []byte, id uint32, login, code string) []byte {
	dst = appendReply(dst, "FAIL", id)
	if login != "" && len(login) <= auth.MaxLogin {
		dst = append(dst, "\tuser="...)
		dst = appendClean(dst, login)
	}
	dst = append(dst, code...)
	return append(dst, '\n')
}

func (c *conn) fail(id uint32, login string) {
	c.reply(func(out []byte) []byte { return appendFail(out, id, login, "") })
}

// reply adds a reply of the reading goroutine, to be sent before it reads again. It waits while the peer leaves too much
// unread.
func (c *conn) reply(add func(out []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxUnsent && !c.closing {
		if c.writing {
			c.unsent.Wait()
		} else {
			c.flush()
		}
	}
	if c.closing {
		return
	}
	c.out = add(c.out)
	c.replied = true
}

// flush writes what is in out, and what others add meanwhile, unless another goroutine is doing just that. It is called
// with mu held and gives it up while it writes.
func (c *conn) flush() {
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 {
		b := c.out
		c.out = c.spare[:0]
		c.mu.Unlock()
		if now := time.Now(); now.Sub(c.armed) > c.srv.cfg.WriteTimeout/rearm {
			c.armed = now
			c.nc.SetWriteDeadline(now.Add(c.srv.cfg.WriteTimeout))
		}
		_, err := c.nc.Write(b)
		c.mu.Lock()
		if cap(b) <= keptBuffer {
			c.spare = b[:0]
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.log.Info("dovecot: closing connection: peer does not read")
			}
			c.closing = true
			c.out = nil
		}
		c.unsent.Broadcast()
	}
	c.writing = false
	if c.closing {
		c.cancel()
		c.nc.Close()
	}
}

// hangUp closes the connection once the replies made so far are written. It is called with mu held.
func (c *conn) hangUp() {
	c.closing = true
	c.cancel()
	c.flush()
}
