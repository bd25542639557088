package front

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"mellium.im/xmpp"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/stanza"
)

// Defaults of Config.
const (
	DefaultQueueStanzas = 256
	DefaultQueueBytes   = 4 << 20
	DefaultPassBytes    = 16 << 20
	DefaultCloseTimeout = 5 * time.Second
)

// Errors of this package.
var (
	// ErrUnsupported: the session is not a negotiated client-to-server session
	// from the client's side, with both streams open.
	ErrUnsupported = errors.New("front: unsupported session")
	// ErrSlowConsumer: more than Config.PassBytes waited for the application.
	ErrSlowConsumer = errors.New("front: the application reads too slowly")
	// ErrClosed: an element was accepted from the application, but the front
	// ended before it was handed over.
	ErrClosed = errors.New("front: closed")

	errMalformed    = errors.New("front: the application wrote malformed XML")
	errCloseTimeout = fmt.Errorf("front: the peer did not close its stream: %w", os.ErrDeadlineExceeded)
)

// Direction says which way an element goes.
type Direction int

// The directions.
const (
	Outgoing Direction = iota // from the application to the wire
	Incoming                  // from the wire to the application
)

// Handler gets every top-level element of both sides. It owns the elements. Its
// methods must not call Front.Close.
type Handler interface {
	// Outgoing is called in order, from one goroutine, for each element that the
	// application wrote. It may block, which in time blocks the application, but
	// only until ctx ends: when the front ends and Config.CloseTimeout is over.
	Outgoing(ctx context.Context, e *stanza.Element)

	// Incoming is called in order, from the goroutine that reads the wire, for
	// each element that arrived. It must neither wait for the application nor
	// write to the wire, which may wait for the peer to read. ctx ends last of
	// all: what arrives while the front ends is taken as at any other time.
	Incoming(ctx context.Context, e *stanza.Element)

	// Refused is called in Outgoing's or Incoming's place for an element that
	// exceeded its limits (stanza.ErrLimit), that held what XMPP does not allow
	// (stanza.ErrMarkup) or, outgoing, that could not be handed over before the
	// end (ErrClosed). The rest of the stream is not affected.
	Refused(d Direction, start xml.StartElement, err error)

	// Ended is called once, when the wire has ended and after the last call of
	// Incoming. err is nil if the peer closed its stream in order; else what
	// ended it. What was delivered before still reaches the application.
	Ended(err error)
}

// Config is what New needs. Real, Handler and Limits are required; a number that
// is zero stands for its default.
type Config struct {
	// Real is the session to the server. Once Start was called, nobody else may
	// read, serve or write it.
	Real    *xmpp.Session
	Handler Handler

	// Features are the application's own stream features: those for which
	// Session.Feature shall answer as it does for mellium's.
	Features []xmpp.StreamFeature

	// Limits hold for messages of both directions, and for the incoming elements
	// that Limited, if it is set, picks by their start tag.
	Limits  stanza.Limits
	Limited func(start xml.StartElement) bool

	// Drain, if it is set, is called after the last call of Outgoing, and before
	// the real stream is closed. It returns when all that Outgoing took is on
	// the wire, or when ctx ends.
	Drain func(ctx context.Context)

	QueueStanzas int           // elements that wait for Outgoing
	QueueBytes   int           // bytes that wait for Outgoing
	PassBytes    int           // bytes that wait for the application; the largest element that is no message
	CloseTimeout time.Duration // for what the application has written, and once more for the peer
}

// Front is a front session and what moves elements between it and the wire.
type Front struct {
	c       Config
	session *xmpp.Session
	in      *inbound
	out     *outbound
	queue   *queue

	outCtx, inCtx       context.Context // of Outgoing and Incoming
	outCancel, inCancel context.CancelFunc

	sending chan struct{} // held while writing to the wire

	start     sync.Once
	stop      chan struct{} // closed by Fail
	parsed    chan struct{} // closed when the application writes no more
	drained   chan struct{} // closed when the queue is empty for good
	outEnded  chan struct{} // closed when the real output stream is closed
	wireEnded chan struct{} // closed after Ended
	done      chan struct{} // closed when all is over

	mu      sync.Mutex
	cause   error // what ended the front, if not the streams in order
	stopped bool
}

// New makes a front session. Nothing moves before Start. ctx is for its values
// only: it does not end the front.
func New(ctx context.Context, c Config) (*Front, error) {
	if c.Real == nil || c.Handler == nil {
		return nil, errors.New("front: session or handler missing")
	}
	const open = xmpp.Ready
	const refused = xmpp.Received | xmpp.S2S | xmpp.InputStreamClosed | xmpp.OutputStreamClosed
	if state := c.Real.State(); state&open != open || state&refused != 0 || c.Real.Out().XMLNS != xmppstanza.NSClient {
		return nil, fmt.Errorf("%w (state %v, namespace %q)", ErrUnsupported, state, c.Real.Out().XMLNS)
	}
	setDefault(&c.QueueStanzas, DefaultQueueStanzas)
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.PassBytes, DefaultPassBytes)
	setDefault(&c.CloseTimeout, DefaultCloseTimeout)

	f := &Front{
		c:         c,
		in:        newInbound(c.PassBytes),
		out:       newOutbound(),
		queue:     newQueue(c.QueueStanzas, c.QueueBytes),
		sending:   make(chan struct{}, 1),
		stop:      make(chan struct{}),
		parsed:    make(chan struct{}),
		drained:   make(chan struct{}),
		outEnded:  make(chan struct{}),
		wireEnded: make(chan struct{}),
		done:      make(chan struct{}),
	}
	f.out.keepalive = func(space []byte) { _ = f.Send(f.outCtx, space) }
	// Without its end: mellium sets deadlines when the context of NewSession
	// ends, for a moment even after NewSession has returned.
	ctx = context.WithoutCancel(ctx)
	f.outCtx, f.outCancel = context.WithCancel(ctx)
	f.inCtx, f.inCancel = context.WithCancel(ctx)
	session, err := negotiate(ctx, c.Real, &conn{f}, c.Features)
	if err != nil {
		f.outCancel()
		f.inCancel()
		return nil, err
	}
	f.session = session
	f.out.open()
	return f, nil
}

func setDefault[T int | time.Duration](n *T, value T) {
	if *n <= 0 {
		*n = value
	}
}

// Start lets elements move. It is apart from New so that the Handler can know
// the Front before its methods are called.
func (f *Front) Start() {
	f.start.Do(func() {
		go f.parse()
		go f.dispatch()
		go f.readWire()
		go f.supervise()
	})
}

// Session returns the front session, which is the application's.
func (f *Front) Session() *xmpp.Session { return f.session }

// Deliver queues one stanza for the application; it does not block. read, which
// may be nil, is called when the application is done with the stanza, from the
// goroutine that reads the front session: it must not block for long. If more
// than Config.PassBytes wait, the front ends with ErrSlowConsumer.
//
// The stanza is one element as XML, and becomes the front's.
func (f *Front) Deliver(stanza []byte, read func()) {
	if !f.in.push(slot{stanza: stanza, read: read}) {
		f.Fail(ErrSlowConsumer)
	}
}

// DeliverLazily queues a stanza that is kept elsewhere until its turn has come,
// which keeps the order between it and what is delivered before and after. Only
// next itself is in memory, and what waits so is not counted.
//
// next is called, at most once, from the goroutine that reads the front session,
// when that asks for more. It returns what Deliver takes, or false if there is
// nothing to deliver after all. It must not wait for the network. After Ended
// was called, returning false keeps the stanza for another connection.
func (f *Front) DeliverLazily(next func() (stanza []byte, read func(), ok bool)) {
	f.in.push(slot{next: next})
}

// Send writes one element, given as XML, to the wire: whole, and by itself. ctx
// bounds the wait for other writers, but not the writing, since a stanza that is
// cut ends the stream.
func (f *Front) Send(ctx context.Context, raw []byte) error {
	select {
	case f.sending <- struct{}{}:
		defer func() { <-f.sending }()
	case <-f.outEnded:
		return fmt.Errorf("front: sending: %w", cmp.Or(f.failure(), net.ErrClosed))
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("front: sending: %w", err)
	}
	// The lock of the real session's encoder, which holds back nothing.
	w := f.c.Real.TokenWriter()
	defer w.Close()
	if err := w.Flush(); err != nil {
		return fmt.Errorf("front: sending: %w", err)
	}
	if _, err := f.c.Real.Conn().Write(raw); err != nil {
		err = fmt.Errorf("front: sending: %w", err)
		f.setCause(err)
		f.c.Real.Conn().Close()
		return err
	}
	return nil
}

// SendElement is Send for an element that is not serialized yet.
func (f *Front) SendElement(ctx context.Context, e *stanza.Element) error {
	return f.Send(ctx, e.AppendXML(nil))
}

// Fail ends the front and does not wait for that: reading the front session
// gives cause at once, and what waited for the application is dropped. What the
// application wrote before still leaves. Only the first cause counts.
func (f *Front) Fail(cause error) {
	f.setCause(cause)
	f.in.abort(f.failure())
	f.out.close(f.failure())
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stopped {
		f.stopped = true
		close(f.stop)
	}
}

// Close ends the front in order and waits for that: what the application wrote
// leaves, the real stream and the real connection are closed. For the
// application it is as if it had closed its connection.
func (f *Front) Close() error {
	f.Start()
	f.Fail(net.ErrClosed)
	<-f.done
	return nil
}

// Done returns a channel that is closed when the front has ended and the real
// connection is closed.
func (f *Front) Done() <-chan struct{} { return f.done }

func (f *Front) setCause(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause == nil {
		f.cause = err
	}
}

// failure is what ended the front, nil if nothing has or all was in order.
func (f *Front) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// supervise waits for a reason to end, and ends the front.
func (f *Front) supervise() {
	defer close(f.done)
	defer f.inCancel()
	real := f.c.Real
	select {
	case <-f.parsed: // the application closed its stream
	case <-f.stop:
	case <-f.wireEnded:
		if f.failure() == nil {
			// The peer closed its stream: the application closes its own, if it
			// comes to that in time.
			select {
			case <-f.parsed:
			case <-f.stop:
			case <-time.After(f.c.CloseTimeout):
			}
		}
	}
	f.out.close(cmp.Or(f.failure(), net.ErrClosed))
	select {
	case <-f.drained:
	case <-time.After(f.c.CloseTimeout):
	}
	f.outCancel()

	// Closing the connection frees whoever is stuck on the wire.
	last := time.AfterFunc(f.c.CloseTimeout, func() {
		f.setCause(errCloseTimeout)
		f.inCancel()
		real.Conn().Close()
	})
	f.sending <- struct{}{} // never given back
	// A stream that is broken already cannot be closed, and need not be.
	_ = real.Close()
	close(f.outEnded)
	<-f.wireEnded
	last.Stop()
	_ = real.Conn().Close()
	<-f.drained
}

// IsMessage reports whether a top-level element of that name is a message.
// mellium writes stanzas without namespace, too.
func IsMessage(name xml.Name) bool {
	return name.Local == "message" && (name.Space == "" || name.Space == xmppstanza.NSClient || name.Space == xmppstanza.NSServer)
}
