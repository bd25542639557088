package middleware

import (
	"cmp"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// Limits of what is remembered about rooms. Of more, nothing is: whoever is in
// one too many cannot be told from a stranger.
const (
	maxRooms     = 1024
	maxOccupants = 10000 // of one room
)

const nsRoom = "http://jabber.org/protocol/muc"

// Status codes of rooms (XEP-0045, section 15.6.2).
const (
	statusSelf    = "110"
	statusNewNick = "303"
)

// rooms are the rooms that the application is in, as their own presence shows
// it: nothing else says who is behind a nick.
//
// Nothing that holds mu waits for the core, because the core asks for members
// while it works.
type rooms struct {
	l *link

	mu     sync.Mutex
	joined map[string]*room // by bare JID
	rolls  map[string]*roll // by bare JID

	asked     broadcast                    // the application asks to join a room
	postponed map[string][]omemo.OutboxRow // by room: of earlier sessions, to be sent when it was joined

	unreachable pauses // members whose device lists could not be had
}

// room is a room that the application has asked to join (XEP-0045). Its fields
// are guarded by rooms.mu.
type room struct {
	bare      string
	asked     string              // the nick that was asked for
	nick      string              // our own; empty until the room has shown us to ourselves
	occupants map[string]occupant // by nick
	entered   chan struct{}       // closed when the nick is known
	gone      chan struct{}       // closed when we are not in it any more
	turn      chan struct{}       // holds one token: the right to ask for its members
	changes   uint64              // rises with each sign that what was asked for is outdated
	known     *membership         // what was asked for last, or nil
	heard     map[string]string   // affiliations shown by account while it is asked, or nil
	asking    bool                // refresh is at it
	anew      bool                // the application joins once more: the room may have lost us
}

// occupant is who is behind a nick.
type occupant struct {
	account     string // bare JID, empty if the room hides it
	affiliation string
}

// isMember reports whether an affiliation makes an account a recipient.
func isMember(affiliation string) bool {
	return affiliation == "owner" || affiliation == "admin" || affiliation == "member"
}

func (r *rooms) init(l *link) {
	r.l = l
	r.joined = make(map[string]*room)
	r.rolls = make(map[string]*roll)
	r.postponed = make(map[string][]omemo.OutboxRow)
}

// postpone keeps a stanza until its room was joined.
func (r *rooms) postpone(row omemo.OutboxRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.postponed[row.Chat] = append(r.postponed[row.Chat], row)
}

// due returns what was postponed until a room was joined, once.
func (r *rooms) due(bare string) []omemo.OutboxRow {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := r.postponed[bare]
	delete(r.postponed, bare)
	return rows
}

// find returns a room that the application is in, or wants to be in, or nil.
func (r *rooms) find(bare string) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joined[bare]
}

// outgoing notes that the application joins a room: presence to an occupant with
// a marker in it (XEP-0045, section 7.2.1).
func (r *rooms) outgoing(e *stanza.Element) {
	to, err := jid.Parse(attribute(e, "to"))
	if e.Name.Local != "presence" || err != nil || to.Resourcepart() == "" || attribute(e, "type") != "" || e.Child(nsRoom, "x") == nil {
		return
	}
	defer r.asked.send()
	r.mu.Lock()
	defer r.mu.Unlock()
	bare := to.Bare().String()
	switch m := r.joined[bare]; {
	case m != nil && m.nick == "":
		m.asked = to.Resourcepart()
	case m != nil:
		m.anew = true
		r.forget(m)
	case m == nil && len(r.joined) < maxRooms:
		r.joined[bare] = &room{
			bare: bare, asked: to.Resourcepart(), occupants: make(map[string]occupant),
			entered: make(chan struct{}), gone: make(chan struct{}), turn: make(chan struct{}, 1),
		}
	}
}

// forget has a room say anew what everybody is to it: one that had lost us has not
// shown who was banned. Who had which nick is kept, until the room shows another.
func (r *rooms) forget(m *room) {
	for nick, o := range m.occupants {
		m.occupants[nick] = occupant{account: o.account}
	}
	r.doubt(m)
}

// presence takes note of who comes, goes and changes in a room.
func (r *rooms) presence(e *stanza.Element) {
	from, err := jid.Parse(attribute(e, "from"))
	if err != nil || from.Resourcepart() == "" {
		return
	}
	bare, nick := from.Bare().String(), from.Resourcepart()
	if r.find(bare) == nil {
		return
	}
	r.open(bare)
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.joined[bare]
	if m == nil {
		return
	}
	x, ok := e.Only(nsRoomUser, "x")
	switch typ := attribute(e, "type"); {
	case typ == "error":
		if m.nick == "" && nick == m.asked { // it does not let us in
			r.leave(m)
		}
	case !ok || x == nil:
		delete(m.occupants, nick) // who else speaks here than the room?
	case typ == "":
		r.present(m, nick, x)
	case typ == "unavailable":
		r.absent(m, nick, x)
	}
}

// leave forgets a room.
func (r *rooms) leave(m *room) {
	delete(r.joined, m.bare)
	close(m.gone)
}

// doubt has the members of a room asked for again.
func (r *rooms) doubt(m *room) {
	m.changes++
	signal(r.l.wake)
}

// catchUp fetches what was said while we were not there.
func (r *rooms) catchUp(m *room) {
	if r.l.m.config.CatchUp {
		r.l.start(m.bare)
	}
}

func (r *rooms) present(m *room, nick string, x *stanza.Element) {
	var o occupant
	if item := x.Child(nsRoomUser, "item"); item != nil {
		o = occupant{account: bareOf(attribute(item, "jid")), affiliation: attribute(item, "affiliation")}
	}
	own := r.l.m.own.JID
	if hasStatus(x, statusSelf) && (o.account == "" || o.account == own) {
		o.account = own
		m.nick = nick
		if m.anew {
			m.anew = false
			r.doubt(m)
			r.catchUp(m)
		}
		select {
		case <-m.entered:
		default:
			close(m.entered)
			r.doubt(m)
			r.catchUp(m)
			if len(r.postponed[m.bare]) > 0 {
				r.l.queue.push(m.bare, &job{room: m.bare})
			}
		}
	}
	before, known := m.occupants[nick]
	if !known && len(m.occupants) >= maxOccupants {
		return
	}
	m.occupants[nick] = o
	r.note(m.bare, nick, o.account, time.Now())
	// A room may show members that it does not list (Prosody: the admins of the
	// service). Each presence of theirs is not news.
	if o != before || !isMember(o.affiliation) {
		r.shown(m, o.account, o.affiliation)
	}
}

// shown has the members asked for again if an affiliation is not what is known, or
// not what is just being asked for.
func (r *rooms) shown(m *room, account, affiliation string) {
	if account == "" || account == r.l.m.own.JID {
		return
	}
	switch {
	case m.heard != nil && len(m.heard) < maxOccupants:
		m.heard[account] = affiliation
	case m.heard != nil:
		r.doubt(m)
	}
	if m.known != nil && m.known.has(account) != isMember(affiliation) {
		r.doubt(m)
	}
}

func (r *rooms) absent(m *room, nick string, x *stanza.Element) {
	gone := m.occupants[nick]
	delete(m.occupants, nick)
	var next, account, affiliation string
	if item := x.Child(nsRoomUser, "item"); item != nil {
		next, account, affiliation = attribute(item, "nick"), bareOf(attribute(item, "jid")), attribute(item, "affiliation")
	}
	switch {
	case nick != m.nick:
		if !isMember(affiliation) {
			r.shown(m, cmp.Or(account, gone.account), affiliation)
		}
	case hasStatus(x, statusNewNick) && next != "":
		if j, err := jid.New("x", "x", next); err == nil { // prepared as addresses are
			m.nick = j.Resourcepart()
		}
	default:
		r.leave(m)
	}
}

// news takes note of what a room says itself: of its configuration, and of the
// affiliations of those who are not there.
func (r *rooms) news(e *stanza.Element) {
	from, err := jid.Parse(attribute(e, "from"))
	if err != nil || from.Resourcepart() != "" {
		return
	}
	x := e.Child(nsRoomUser, "x")
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.joined[from.String()]
	if m != nil && x != nil && (x.Child(nsRoomUser, "status") != nil || x.Child(nsRoomUser, "item") != nil) {
		r.doubt(m)
	}
}

// occupant returns the account behind a nick at this moment, empty if nobody
// knows it.
func (r *rooms) occupant(bare, nick string) (account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.joined[bare]
	if m == nil || nick == "" {
		return ""
	}
	return m.occupants[nick].account
}

// private reports whether an address is that of an occupant of a room that the
// application is in.
func (r *rooms) private(j jid.JID) bool {
	return j.Resourcepart() != "" && r.find(j.Bare().String()) != nil
}

func hasStatus(x *stanza.Element, code string) bool {
	for c := range x.Elements() {
		if c.Is(nsRoomUser, "status") && attribute(c, "code") == code {
			return true
		}
	}
	return false
}
