package middleware

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"strconv"
	"sync"

	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

// requests are the IQs of our own that wait for a reply. Their ids start with a
// prefix that is random for each connection, so that no id of the application's
// is taken for one of ours, and nobody else can guess one.
type requests struct {
	l      *link
	prefix string

	mu      sync.Mutex
	last    uint64
	waiting map[string]waiting
}

type waiting struct {
	to      string
	reply   chan *stanza.Element
	refused chan error // the reply broke a limit
}

func (r *requests) init(l *link) {
	r.l = l
	r.prefix = rand.Text() + "-"
	r.waiting = make(map[string]waiting)
}

// Request sends an IQ and returns the reply from the address that was asked. It
// is what makes a link a pep.Requester.
func (l *link) Request(ctx context.Context, iq *stanza.Element) (*stanza.Element, error) {
	r := &l.requests
	to, _ := iq.Attribute("to")
	w := waiting{to: to, reply: make(chan *stanza.Element, 1), refused: make(chan error, 1)}
	r.mu.Lock()
	r.last++
	id := r.prefix + strconv.FormatUint(r.last, 36)
	r.waiting[id] = w
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, id)
		r.mu.Unlock()
	}()
	if err := l.front.SendElement(ctx, iq.Clone().SetAttribute("id", id)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOffline, err)
	}
	select {
	case reply := <-w.reply:
		return reply, nil
	case err := <-w.refused:
		return nil, fmt.Errorf("middleware: reply refused: %w", err)
	case <-ctx.Done():
		return nil, fmt.Errorf("middleware: waiting for a reply: %w", ctx.Err())
	case <-l.ctx.Done():
		return nil, ErrOffline
	}
}

// answered takes a reply to one of our requests. A reply from another address
// than the one asked is dropped, and the real one still waited for.
func (r *requests) answered(e *stanza.Element) bool {
	w, ours := r.asked(e)
	if w != nil {
		select {
		case w.reply <- e:
		default:
		}
	}
	return ours
}

// refused takes a reply that was not read, because it broke a limit. Of e there
// is only the start tag.
func (r *requests) refused(e *stanza.Element, err error) {
	if w, _ := r.asked(e); w != nil {
		select {
		case w.refused <- err:
		default:
		}
	}
}

// asked returns the request that an element answers, nil if it does not come from
// where that went, and whether it is a reply to one of ours at all.
func (r *requests) asked(e *stanza.Element) (w *waiting, ours bool) {
	id, _ := e.Attribute("id")
	typ, _ := e.Attribute("type")
	if e.Name.Local != "iq" || !hasOurPrefix(id, r.prefix) || typ != "result" && typ != "error" {
		return nil, false
	}
	r.mu.Lock()
	asked, ok := r.waiting[id]
	r.mu.Unlock()
	from, _ := e.Attribute("from")
	if !ok || !pep.Answers(r.l.full, asked.to, from) {
		return nil, true
	}
	return &asked, true
}

// limited reports whether an element is a reply to one of our requests: those
// are read under limits, others are the application's business.
func (r *requests) limited(start xml.StartElement) bool {
	if start.Name.Local != "iq" {
		return false
	}
	for _, a := range start.Attr {
		if a.Name.Local == "id" && a.Name.Space == "" {
			return hasOurPrefix(a.Value, r.prefix)
		}
	}
	return false
}
