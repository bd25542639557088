package xmpptest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is how many bytes each direction of an in-process connection holds before Write
// waits, about what a socket does.
const pipeBuffer = 64 << 10

// newPipe returns the two ends of an in-process connection. Unlike those of net.Pipe they are
// buffered: a write does not wait for a read, as programs expect of a socket.
func newPipe() (client, server net.Conn) {
	up, down := newFlow(), newFlow()
	return &pipeConn{in: down, out: up, local: "client", remote: "server"},
		&pipeConn{in: up, out: down, local: "server", remote: "client"}
}

// flow is one direction of a pipe.
type flow struct {
	mu            sync.Mutex
	changed       *sync.Cond
	data          []byte
	writerClosed  bool // reads return what is left, then io.EOF
	readerClosed  bool
	readDeadline  deadline
	writeDeadline deadline
}

func newFlow() *flow {
	f := new(flow)
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.readerClosed:
			return 0, net.ErrClosed
		case f.readDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(f.data) > 0:
			n := copy(p, f.data)
			f.data = f.data[n:]
			f.changed.Broadcast()
			return n, nil
		case f.writerClosed:
			return 0, io.EOF
		}
		f.changed.Wait()
	}
}

func (f *flow) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	written := 0
	for {
		switch {
		case f.writerClosed:
			return written, net.ErrClosed
		case f.readerClosed:
			return written, io.ErrClosedPipe
		case f.writeDeadline.passed():
			return written, os.ErrDeadlineExceeded
		case written == len(p):
			return written, nil
		}
		if n := min(pipeBuffer-len(f.data), len(p)-written); n > 0 {
			f.data = append(f.data, p[written:written+n]...)
			written += n
			f.changed.Broadcast()
			continue
		}
		f.changed.Wait()
	}
}

func (f *flow) close(end *bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*end = true
	f.changed.Broadcast()
}

// deadline is guarded by the mutex of its flow.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (f *flow) setDeadline(d *deadline, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.changed.Broadcast()
		})
	}
	f.changed.Broadcast()
}

// pipeConn is one end of a pipe.
type pipeConn struct {
	in, out       *flow
	local, remote pipeAddr
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *pipeConn) Close() error {
	c.in.close(&c.in.readerClosed)
	c.out.close(&c.out.writerClosed)
	return c.SetDeadline(time.Time{})
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readDeadline, t)
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readDeadline, t)
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
