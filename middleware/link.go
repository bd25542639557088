package middleware

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"example.org/omellium/middleware/internal/front"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// link serves one session of the account: from Wrap until the stream ends.
//
// Nothing that waits for the network runs where stanzas are read: incoming
// messages are decrypted and committed in stream order by the reader, and what
// needs an answer is left to the worker. Outgoing messages wait in a queue for
// each recipient, so that one whose server does not answer holds up nobody else.
type link struct {
	m      *Middleware
	front  *front.Front
	full   jid.JID
	ctx    context.Context // ends with the wire: nobody answers any more
	cancel context.CancelFunc
	// life ends with the link. What the application wrote before the wire ended is
	// still committed until then; it leaves after the next Wrap.
	life    context.Context
	endLife context.CancelFunc
	ready   chan struct{} // closed when own device is published and the old outbox is sent
	ended   sync.Once

	requests  requests
	queue     *queue
	directory directory
	announcer announcer
	settler   settler
	asked     asked
	archives  archives
	pages     pages
	intakes   intakes
	hearing   hearing
	siblings  siblings
	retrial   retrial
	roster    roster
	rooms     rooms
	resources resources
	ahead     ahead
	answers   buckets
	// publishing says which bundles could not be published; it is the worker's.
	publishing map[omemo.Version]attempts
	// uncompared are the versions whose bundle could not be read when the store was
	// compared with what is published.
	uncompared map[omemo.Version]bool

	confirmed broadcast // a session was confirmed
	unheard   unheard
	overlap   overlap
	leaving   leaving

	wake    chan struct{} // for the worker: something is owed
	marked  chan struct{} // for the flusher: something was marked
	control chan *stanza.Element
	tasks   sync.WaitGroup
}

// controlQueue bounds the answers of our own that wait to be written.
const controlQueue = 64

func newLink(ctx context.Context, m *Middleware, session *xmpp.Session) (*link, error) {
	l := &link{
		m:       m,
		full:    session.LocalAddr(),
		ready:   make(chan struct{}),
		wake:    make(chan struct{}, 1),
		marked:  make(chan struct{}, 1),
		control: make(chan *stanza.Element, controlQueue),

		publishing: make(map[omemo.Version]attempts),
		uncompared: make(map[omemo.Version]bool),
	}
	l.life, l.endLife = context.WithCancel(context.WithoutCancel(ctx))
	l.ctx, l.cancel = context.WithCancel(l.life)
	l.requests.init(l)
	l.directory.init(l)
	l.announcer.init(l)
	l.settler.init(l)
	l.rooms.init(l)
	if m.config.CatchUp {
		l.intakes.open(m.own.JID)
	}
	l.queue = newQueue(m.config.QueueStanzas/2, m.config.QueueBytes/2, l.process)
	var err error
	l.front, err = front.New(ctx, front.Config{
		Real:     session,
		Handler:  l,
		Features: m.config.Features,
		Limits:   m.config.Limits,
		Limited:  l.requests.limited,
		Drain:    l.queue.drain,
		// One half waits before it was read, the other before it is encrypted.
		QueueStanzas: max(1, m.config.QueueStanzas/2),
		QueueBytes:   max(1, m.config.QueueBytes/2),
	})
	if err != nil {
		l.endLife()
		return nil, err
	}
	return l, nil
}

// open starts everything and brings our own device in order.
func (l *link) open(ctx context.Context) error {
	if err := l.redeliver(ctx); err != nil {
		return err
	}
	if err := l.m.keep(ctx, true); err != nil {
		return err
	}
	l.reopen(ctx, omemo.Address{})
	l.front.Start()
	l.tasks.Go(l.watchStore)
	l.tasks.Go(l.controls)
	l.tasks.Go(l.flush)
	l.tasks.Go(l.settler.run)
	l.tasks.Go(func() {
		<-l.front.Done()
		l.endLife()
	})
	prepare := func(ctx context.Context) error {
		if err := l.setUp(ctx); err != nil {
			return err
		}
		if err := l.resend(ctx); err != nil {
			return err
		}
		close(l.ready)
		l.mayCatchUp()
		l.tasks.Go(l.work)
		return nil
	}
	if l.m.config.Offline {
		l.tasks.Go(func() { l.retry("publishing our own device", prepare) })
		return nil
	}
	both, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(l.ctx, stop)()
	return prepare(both)
}

// watchStore ends the session when the store is lost: whoever has the account now
// must get what comes, and nothing that came here could be kept.
func (l *link) watchStore() {
	store, ok := l.m.config.Store.(interface{ Lost() <-chan struct{} })
	if !ok {
		return
	}
	select {
	case <-store.Lost():
		l.trouble(fmt.Errorf("the store was lost: %w", omemo.ErrFenced))
	case <-l.life.Done():
	}
}

// retry does something until it succeeds or the link ends.
func (l *link) retry(what string, f func(context.Context) error) {
	pause := time.Second
	for {
		err := f(l.ctx)
		if err == nil || l.ctx.Err() != nil {
			return
		}
		l.trouble(fmt.Errorf("%s: %w", what, err))
		select {
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Minute)
		case <-l.ctx.Done():
			return
		}
	}
}

// end ends the link and waits until nothing of it runs.
func (l *link) end(cause error) {
	l.ended.Do(func() {
		l.front.Start()
		if errors.Is(cause, ErrClosed) {
			_ = l.front.Close()
		} else {
			l.front.Fail(cause)
		}
	})
	<-l.front.Done()
	l.endLife()
	l.tasks.Wait()
	l.queue.wait()
	// What the application has read is read, and what the server has it has.
	if err := l.m.manager.Flush(context.WithoutCancel(l.ctx)); err != nil {
		l.trouble(err)
	}
}

// Outgoing takes what the application has written.
func (l *link) Outgoing(ctx context.Context, e *stanza.Element) {
	defer l.recovered()
	if !front.IsMessage(e.Name) {
		l.outgoingOther(ctx, e)
		return
	}
	if err := l.enqueue(ctx, &job{message: e}); err != nil {
		l.failed(e, nil, fmt.Errorf("%w: %w", ErrOffline, err))
	}
}

// Incoming takes what has come from the wire.
func (l *link) Incoming(ctx context.Context, e *stanza.Element) {
	defer l.recovered()
	if !front.IsMessage(e.Name) {
		if e.Name.Local == "message" { // which a handler could take for one of ours
			l.Refused(front.Incoming, xml.StartElement{Name: e.Name, Attr: e.Attr}, fmt.Errorf("%w: <message/> in the namespace %q", stanza.ErrMalformed, e.Name.Space))
			return
		}
		l.incomingOther(e)
		return
	}
	stripInfo(e)
	l.incoming(ctx, e)
}

// Refused takes note of an element that was too large or malformed.
func (l *link) Refused(d front.Direction, start xml.StartElement, err error) {
	e := &stanza.Element{Name: start.Name, Attr: start.Attr}
	id, _ := e.Attribute("id")
	if d == front.Outgoing {
		l.failed(e, nil, err)
		return
	}
	l.requests.refused(e, err)
	from, _ := e.Attribute("from")
	l.m.emit(Event{Kind: Refused, Account: bareOf(from), ID: id, Err: err})
}

// Ended takes note of the end of the wire.
func (l *link) Ended(err error) {
	l.cancel()
	if err != nil {
		l.m.config.Logger.Info("omemo: stream ended", "error", err)
	}
}

// outgoingOther passes IQs and presence on, with our features in them.
func (l *link) outgoingOther(ctx context.Context, e *stanza.Element) {
	if !isOther(e) {
		id, _ := e.Attribute("id")
		l.m.emit(Event{Kind: SendFailed, ID: id, Err: fmt.Errorf("%w: unknown stanza <%s/>", ErrMessage, e.Name.Local)})
		return
	}
	if l.announcer.outgoing(e) {
		return
	}
	l.archives.query(l.m.own.JID, e)
	l.rooms.outgoing(e)
	if err := l.front.SendElement(ctx, e); err != nil {
		l.m.config.Logger.Info("omemo: not written", "error", err)
	}
}

// incomingOther passes IQs and presence on, except what is for us.
func (l *link) incomingOther(e *stanza.Element) {
	if l.requests.answered(e) || l.announcer.incoming(e) {
		return
	}
	if l.archives.answered(e, l.full) {
		signal(l.wake) // what has waited for it
	}
	if e.Name.Local == "presence" {
		l.rooms.presence(e)
		l.presenceOf(e)
	}
	l.pass(e)
}

// pass hands a stanza to the application as it is.
func (l *link) pass(e *stanza.Element) { l.front.Deliver(e.AppendXML(nil), nil) }

// reply queues an answer of our own: whoever reads the wire must not write to it.
func (l *link) reply(e *stanza.Element) {
	select {
	case l.control <- e:
	default: // a flood of questions: the asker will ask again
	}
}

func (l *link) controls() {
	for {
		select {
		case e := <-l.control:
			if err := l.front.SendElement(l.ctx, e); err != nil {
				return
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// failed tells the application that its message was not sent.
func (l *link) failed(e *stanza.Element, result *Result, err error) {
	id, _ := e.Attribute("id")
	to, _ := e.Attribute("to")
	l.m.emit(Event{Kind: SendFailed, Account: bareOf(to), ID: id, Err: err, Result: result})
	if typ, _ := e.Attribute("type"); typ == "error" {
		return // an error is not answered by an error
	}
	l.pass(failureOf(e, l.full.String(), err))
}

// trouble reports what went wrong behind the application's back.
func (l *link) trouble(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	l.m.config.Logger.Warn("omemo", "reason", reason(err))
	l.m.emit(Event{Kind: Trouble, Err: err})
	if errors.Is(err, omemo.ErrFenced) || errors.Is(err, omemo.ErrClosed) {
		l.front.Fail(err) // the account is somebody else's now
	}
}

// recovered keeps a mistake of ours from letting a stanza through or from ending
// the program.
func (l *link) recovered() {
	if r := recover(); r != nil {
		l.m.config.Logger.Error("omemo: internal error", "panic", fmt.Sprintf("%T", r))
		l.m.emit(Event{Kind: Trouble, Err: errPanic})
	}
}

// signal wakes a goroutine that looks for work by itself.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// bareOf returns the canonical bare form of an address, or nothing.
func bareOf(address string) string {
	j, err := jid.Parse(address)
	// One dot at the end of a domain is cut off: what is left with one would be
	// another address when it is parsed again.
	if err != nil || strings.HasSuffix(j.Domainpart(), ".") {
		return ""
	}
	return j.Bare().String()
}

// isOwn reports whether a stanza comes from our own account: servers leave the
// address out, or give the bare JID.
func (l *link) isOwn(from string) bool {
	if from == "" {
		return true
	}
	j, err := jid.Parse(from)
	return err == nil && j.Equal(l.m.account)
}

// hasOurPrefix reports whether an id is one of a prefix.
func hasOurPrefix(id, prefix string) bool { return strings.HasPrefix(id, prefix) }
