package middleware

import (
	"errors"
	"sync"
	"time"

	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp/jid"
)

// Namespaces of what carries another message.
const (
	nsCarbons = "urn:xmpp:carbons:2"
	nsForward = "urn:xmpp:forward:0"
	nsArchive = "urn:xmpp:mam:2"
)

// errOrigin: a message that claims to carry another one, from somebody who has
// no business with it.
var errOrigin = errors.New("middleware: forwarded message from a wrong address")

// arrival is a message that has come, by whichever way.
type arrival struct {
	outer     *stanza.Element // what the application gets in the end
	message   *stanza.Element // the message in it, or outer itself
	sender    string          // bare JID; empty if nobody knows: see rooms.bind
	recipient string          // bare JID; of a message to a room, the room
	room      string          // bare JID of the room that it was sent to, or empty
	private   bool            // sent to one occupant of a room
	past      bool            // of a time when others may have had the nicks
	sent      time.Time       // as far as the server tells
	optOut    bool            // a trusted device's wish to go on in plain text
	live      bool            // neither from an archive nor from the journal
	asked     bool            // a result that the application has asked an archive for
	word      bool            // of our server or of a room, without content: passed on as it is
	lost      bool            // could neither be dealt with nor be kept
	events    []Event         // to be told when it is committed
	text      []byte          // what the application is to keep of it: see Archive
	journal   uint64          // row of the journal that it comes from, or 0
}

// with returns the whole with the plain form of the message in its place. What
// arrived stays as it was: if it cannot be committed, it is tried again.
func (a *arrival) with(plain *stanza.Element) []byte {
	if a.outer == a.message {
		return plain.AppendXML(nil)
	}
	arrived := *a.message
	defer func() { *a.message = arrived }()
	*a.message = *plain
	return a.outer.AppendXML(nil)
}

// arrive finds out what a message is and checks where it is from: a carbon may
// come from our own account only and must be about it, a result of an archive
// only from the archive that was asked, within a query that is open. bound is who
// has sent it, if it comes from the journal; that was found out when it came.
func (l *link) arrive(e *stanza.Element, bound string) (*arrival, error) {
	return l.examine(e, bound, true)
}

// arrivePast is arrive for what stood in an archive.
func (l *link) arrivePast(e *stanza.Element) (*arrival, error) { return l.examine(e, "", false) }

func (l *link) examine(e *stanza.Element, bound string, live bool) (*arrival, error) {
	a := &arrival{outer: e, message: e, live: live, sent: time.Now()}
	from, _ := e.Attribute("from")
	sent, received := e.Child(nsCarbons, "sent"), e.Child(nsCarbons, "received")
	result := e.Child(nsArchive, "result")
	var err error
	switch {
	case sent == nil && received == nil && result == nil:
	case sent != nil && received == nil && result == nil:
		a.message, err = l.carbon(e, sent, from)
		if err == nil && bareOf(attribute(a.message, "from")) != l.m.own.JID {
			err = errOrigin
		}
	case received != nil && sent == nil && result == nil:
		a.message, err = l.carbon(e, received, from)
		if err == nil && bareOf(attribute(a.message, "to")) != l.m.own.JID {
			err = errOrigin
		}
	case result != nil && sent == nil && received == nil:
		a.live, a.asked = false, true
		a.message, err = forwarded(result)
		if err == nil && !onlyBeside(e, nsArchive) {
			err = errOrigin
		}
		if err == nil && !l.archives.open(attribute(result, "queryid"), from, l) {
			err = errOrigin
		}
		if err == nil && !l.isOwn(from) && bareOf(attribute(a.message, "from")) != bareOf(from) {
			err = errOrigin // the archive of a room knows what was said there, and nothing else
		}
	default:
		err = errOrigin
	}
	if err != nil {
		return nil, err
	}
	a.sender = l.account(attribute(a.message, "from"))
	a.recipient = l.account(attribute(a.message, "to"))
	if a.sender == "" || a.recipient == "" {
		return nil, errOrigin
	}
	delay := a.message.Child(stanza.NSDelay, "delay")
	for _, wrapper := range []*stanza.Element{result, sent, received} {
		if wrapper == nil {
			continue
		}
		if outer := wrapper.Child(nsForward, "forwarded").Child(stanza.NSDelay, "delay"); outer != nil {
			delay = outer
		}
	}
	if delay != nil {
		if stamp, err := time.Parse(time.RFC3339, attribute(delay, "stamp")); err == nil {
			a.sent = stamp
		}
	}
	l.rooms.bind(a, bound)
	return a, nil
}

// account returns the account of an address; none means our own.
func (l *link) account(address string) string {
	if address == "" {
		return l.m.own.JID
	}
	return bareOf(address)
}

func (l *link) carbon(e, wrapper *stanza.Element, from string) (*stanza.Element, error) {
	if !l.isOwn(from) || !onlyBeside(e, nsCarbons) {
		return nil, errOrigin
	}
	return forwarded(wrapper)
}

// forwarded returns the message in a wrapper: exactly one, which carries no
// other, and beside it nothing but its delay: whatever else looked like a message
// would not be verified.
func forwarded(wrapper *stanza.Element) (*stanza.Element, error) {
	f, ok := wrapper.Only(nsForward, "forwarded")
	if !ok || f == nil || !holdsOnly(wrapper, f, nil) {
		return nil, errOrigin
	}
	message, ok := f.Only(stanza.NSClient, "message")
	if !ok || message == nil || !holdsOnly(f, message, f.Child(stanza.NSDelay, "delay")) {
		return nil, errOrigin
	}
	for c := range message.Elements() {
		if c.Name.Space == nsCarbons && c.Name.Local != "private" || c.Name.Space == nsArchive || c.Name.Space == nsForward {
			return nil, errOrigin
		}
	}
	return message, nil
}

// holdsOnly reports whether an element has no other children than those.
func holdsOnly(e, one, other *stanza.Element) bool {
	for c := range e.Elements() {
		if c != one && c != other {
			return false
		}
	}
	return !hasText(e)
}

func attribute(e *stanza.Element, name string) string {
	value, _ := e.Attribute(name)
	return value
}

// archives are the queries of archives that the application has made and that
// are not answered yet.
type archives struct {
	mu      sync.Mutex
	queries map[string]archiveQuery
	last    time.Time // last sign of an archive
}

// TimeWindow is how far the time that a message tells may be from the time at
// which the server had it, without being marked: see Info.Skewed.
const TimeWindow = time.Hour

// maxQueries bounds the queries that are open at once; the oldest are forgotten.
const maxQueries = 64

type archiveQuery struct {
	archive string // bare JID
	iq, to  string // id and address of the question
}

// query notes a query that goes out.
func (a *archives) query(own string, iq *stanza.Element) {
	q := iq.Child(nsArchive, "query")
	if q == nil || attribute(iq, "type") != "set" {
		return
	}
	archive := own
	if to := attribute(iq, "to"); to != "" {
		archive = bareOf(to)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queries == nil || len(a.queries) >= maxQueries {
		a.queries = make(map[string]archiveQuery)
	}
	a.last = time.Now()
	a.queries[attribute(q, "queryid")] = archiveQuery{archive, attribute(iq, "id"), attribute(iq, "to")}
}

// open reports whether a query is open and its results come from that address.
func (a *archives) open(id, from string, l *link) bool {
	a.mu.Lock()
	q, ok := a.queries[id]
	if ok {
		a.last = time.Now()
	}
	a.mu.Unlock()
	if !ok {
		return false
	}
	if q.archive == l.m.own.JID {
		return l.isOwn(from)
	}
	j, err := jid.Parse(from)
	return err == nil && j.Resourcepart() == "" && j.String() == q.archive
}

// answered closes the query that an IQ answers, if it comes from where the query
// went, and reports whether there was one.
func (a *archives) answered(iq *stanza.Element, own jid.JID) (closed bool) {
	if t := attribute(iq, "type"); t != "result" && t != "error" {
		return false
	}
	id := attribute(iq, "id")
	a.mu.Lock()
	defer a.mu.Unlock()
	for query, q := range a.queries {
		if q.iq == id && pep.Answers(own, q.to, attribute(iq, "from")) {
			delete(a.queries, query)
			closed = true
		}
	}
	return closed
}
