package front

import (
	"crypto/tls"
	"net"
	"time"
)

// conn is the connection of the front session: the pipe for reading and
// writing, the real connection for all else.
type conn struct{ f *Front }

var _ net.Conn = (*conn)(nil)

func (c *conn) Read(b []byte) (int, error) { return c.f.in.Read(b) }

// Write takes what the application sends. The end tag of the stream is written
// when all before it is, so that a program may exit after Session.Close as it may
// without a front.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.f.out.Write(b)
	if err == nil && string(b) == closing {
		<-c.f.outEnded
	}
	return n, err
}

// Close ends the front, and with it the real connection.
func (c *conn) Close() error { return c.f.Close() }

// ConnectionState is how mellium finds the TLS state of a session.
func (c *conn) ConnectionState() tls.ConnectionState { return c.f.c.Real.ConnectionState() }

func (c *conn) RemoteAddr() net.Addr { return c.f.c.Real.Conn().RemoteAddr() }

func (c *conn) LocalAddr() net.Addr {
	// mellium's wrapper of a stream that is no net.Conn has no addresses, and
	// panics when asked for the local one.
	if real := c.f.c.Real.Conn(); real.RemoteAddr() != nil {
		return real.LocalAddr()
	}
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.f.in.setDeadline(t)
	c.f.out.setDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.f.in.setDeadline(t)
	return nil
}

// SetWriteDeadline bounds how long a Write waits for room. A time that is past
// when it is set has no effect: that is how mellium interrupts a write whose
// context has ended, and an interrupted write makes every later one of the
// session fail.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.f.out.setDeadline(t)
	return nil
}
