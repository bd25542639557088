package xmpptest

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"net"
	"strings"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	nsStream  = "http://etherx.jabber.org/streams"
	nsStreams = "urn:ietf:params:xml:ns:xmpp-streams"
	nsClient  = "jabber:client"

	streamEnd = "</stream:stream>"

	// closeTimeout bounds the writing of what is queued when a stream ends in order.
	closeTimeout = 5 * time.Second
)

var errTooLarge = errors.New("xmpptest: stanza too large")

// session is one connection of a client: the goroutine in run reads, a second one writes what is
// in out as soon as a resource is bound. The address and what it is made of do not change after that;
// the fields at the end are guarded by Server.mu.
type session struct {
	srv    *Server
	raw    net.Conn // as accepted: closing it does not wait
	conn   net.Conn // raw, or TLS over it; replaced only before there is a writer
	ctx    context.Context
	cancel context.CancelFunc
	out    *queue
	in     *streamReader
	dec    *xml.Decoder

	account *account
	jid     jid.JID
	full    string // jid as a string
	bare    string

	bound     bool
	presence  *element // last broadcast, with from; nil: unavailable
	priority  int
	directed  map[string]struct{} // addresses that were sent available presence
	roster    bool                // asked for the roster, so gets pushes
	carbons   bool
	caps      string // node, version and hash of the caps last announced
	capsQuery string // id of the disco#info request that is open
	features  map[string]struct{}
}

func newSession(s *Server, conn net.Conn) *session {
	c := &session{srv: s, raw: conn, conn: conn, out: newQueue(), directed: make(map[string]struct{})}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.restart()
	return c
}

// abort cuts the connection, under Server.mu or from the session's own goroutine.
func (c *session) abort() {
	c.cancel()
	c.out.abort()
	_ = c.raw.Close()
}

// send queues a stanza for the client.
func (c *session) send(o outgoing) {
	if !c.out.push(o) {
		c.end(streamError("resource-constraint"))
	}
}

// end lets the writer finish, write last and close the connection; a client that does not read and a
// filter that does not return are given closeTimeout.
func (c *session) end(last string) {
	time.AfterFunc(closeTimeout, c.abort)
	c.out.end(last)
}

// run serves the connection until it ends.
func (c *session) run() {
	defer c.abort()
	requested, err := c.negotiate()
	if err != nil {
		if condition := streamCondition(err); condition != "" {
			_ = c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
			_ = c.write([]byte(streamError(condition)))
		}
		return
	}
	if !c.srv.attach(c, requested) {
		return
	}
	done := make(chan struct{})
	c.srv.wg.Go(func() {
		defer close(done)
		c.writeLoop()
	})
	err = c.readLoop()
	c.srv.mu.Lock()
	c.srv.detach(c)
	c.srv.mu.Unlock()
	switch condition := streamCondition(err); {
	case err == errStreamEnd:
		c.end(streamEnd)
	case condition != "":
		c.end(streamError(condition))
	default:
		return
	}
	<-done
}

// readLoop acts on one stanza after the other.
func (c *session) readLoop() error {
	for {
		e, raw, err := c.next()
		if err != nil {
			return err
		}
		st := Stanza{Time: time.Now(), Session: c.full, Direction: FromClient, XML: raw}
		c.srv.wire.record(st)
		f := c.srv.filter.Load()
		if f == nil {
			c.srv.handle(c, e)
			continue
		}
		for _, b := range (*f)(c.ctx, st) {
			if e, err = parseElement(b); err != nil {
				return err
			}
			c.srv.handle(c, e)
		}
	}
}

// writeLoop writes what is queued, several stanzas with one write where they wait together.
func (c *session) writeLoop() {
	defer c.abort()
	var b []byte
	for {
		batch, last, open := c.out.take()
		f := c.srv.filter.Load()
		for _, o := range batch {
			st := Stanza{Time: time.Now(), Session: c.full, Direction: ToClient, XML: o.xml}
			replaced := [][]byte{o.xml}
			if f != nil && !o.injected {
				// What came before must not wait for a filter that waits.
				if c.write(b) != nil {
					return
				}
				b = b[:0]
				replaced = (*f)(c.ctx, st)
			}
			for _, x := range replaced {
				st.XML = x
				c.srv.wire.record(st)
				b = append(b, x...)
			}
			if len(b) >= pipeBuffer {
				if c.write(b) != nil {
					return
				}
				b = b[:0]
			}
		}
		b = append(b, last...)
		if c.write(b) != nil {
			return
		}
		b = b[:0]
		if !open {
			return
		}
	}
}

func (c *session) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := c.conn.Write(b)
	return err
}

// restart begins a new stream on the connection. What the client has already sent on it stays.
func (c *session) restart() {
	var rest *bufio.Reader
	if c.in != nil {
		rest = c.in.r
	} else {
		rest = bufio.NewReaderSize(c.conn, 16<<10)
	}
	c.in = &streamReader{r: rest, max: c.srv.maxStanza}
	c.dec = xml.NewDecoder(c.in)
}

// errStreamEnd says that the client ended its stream in order.
var errStreamEnd = errors.New("xmpptest: stream ended")

// next reads one element of the stream, and returns it also as it stood there.
func (c *session) next() (*element, []byte, error) {
	for {
		c.in.forget(c.dec.InputOffset())
		token, err := c.dec.Token()
		if err != nil {
			return nil, nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			e, err := readElement(c.dec, t, 1)
			if err != nil {
				return nil, nil, err
			}
			return e, c.in.recorded(c.dec.InputOffset()), nil
		case xml.EndElement:
			return nil, nil, errStreamEnd
		case xml.CharData:
			if strings.TrimSpace(string(t)) != "" {
				return nil, nil, streamFault("bad-format")
			}
		default:
			return nil, nil, errRestrictedXML
		}
	}
}

// streamReader hands bytes to the decoder one by one, so that the decoder reads no further than it
// must, and records them.
type streamReader struct {
	r      *bufio.Reader
	max    int
	rec    []byte
	offset int64 // in the stream, of rec[0]
}

func (r *streamReader) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, err
	}
	if len(r.rec) >= r.max {
		return 0, errTooLarge
	}
	r.rec = append(r.rec, b)
	return b, nil
}

// Read is there because xml.NewDecoder asks for an io.Reader; it calls ReadByte.
func (r *streamReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

// forget drops what stands before the given offset.
func (r *streamReader) forget(before int64) {
	n := copy(r.rec, r.rec[before-r.offset:])
	r.rec = r.rec[:n]
	r.offset = before
}

// recorded returns a copy of what stands between the offset of the last forget and the given one.
func (r *streamReader) recorded(end int64) []byte {
	return append([]byte(nil), r.rec[:end-r.offset]...)
}

// streamFault is the defined condition of a stream error (RFC 6120 §4.9.3).
type streamFault string

func (f streamFault) Error() string { return "xmpptest: stream error: " + string(f) }

// streamCondition returns the condition of the stream error with which a client is told of err;
// empty: none, since there is nobody to tell.
func streamCondition(err error) string {
	if fault, ok := errors.AsType[streamFault](err); ok {
		return string(fault)
	}
	syntax, ok := errors.AsType[*xml.SyntaxError](err)
	switch {
	case errors.Is(err, errTooLarge):
		return "policy-violation"
	case errors.Is(err, errRestrictedXML):
		return "restricted-xml"
	case ok && syntax.Msg != "unexpected EOF":
		return "not-well-formed"
	}
	return ""
}

func streamError(condition string) string {
	return "<stream:error><" + condition + " xmlns='" + nsStreams + "'/></stream:error>" + streamEnd
}
