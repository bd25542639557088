package xmpptest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	nsMUC      = "http://jabber.org/protocol/muc"
	nsMUCAdmin = nsMUC + "#admin"
	nsMUCOwner = nsMUC + "#owner"

	formRoomConfig = nsMUC + "#roomconfig"
)

// Affiliations of accounts with a room (XEP-0045 §5.2).
const (
	affiliationOwner   = "owner"
	affiliationAdmin   = "admin"
	affiliationMember  = "member"
	affiliationOutcast = "outcast"
	affiliationNone    = "none"
)

// RoomConfig is the configuration of a room, as far as it makes a difference here.
type RoomConfig struct {
	MembersOnly  bool
	NonAnonymous bool // everybody sees the occupants' real JIDs, not only moderators
	History      int  // messages that are sent to whoever joins
}

// room is a chat room (XEP-0045). It is guarded by Server.mu.
type room struct {
	jid          jid.JID
	bare         string // jid as a string
	config       RoomConfig
	affiliations map[string]string    // by bare JID; not those with none
	occupants    map[string]*occupant // by nick
	history      []*element
	subject      *element
	archive      archive
}

// occupant is a session in a room.
type occupant struct {
	nick     string
	full     string // real JID
	bare     string
	presence *element
}

// AddRooms serves rooms at a domain. A room is created by whoever joins it first, who is then its
// owner, or by [Server.AddRoom]; those that are joined get the given configuration.
func (s *Server) AddRooms(domain string, standard RoomConfig) error {
	j, err := jid.Parse(domain)
	if err != nil || j.Localpart() != "" || j.Resourcepart() != "" {
		return fmt.Errorf("xmpptest: %q is no domain for rooms", domain)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roomDomains == nil {
		s.roomDomains = make(map[string]RoomConfig)
		s.rooms = make(map[string]*room)
	}
	s.roomDomains[j.Domainpart()] = standard
	return nil
}

// AddRoom creates a room. Affiliations are given by bare JID: owner, admin, member or outcast.
func (s *Server) AddRoom(address string, config RoomConfig, affiliations map[string]string) error {
	j, err := jid.Parse(address)
	if err != nil {
		return fmt.Errorf("xmpptest: room %q: %w", address, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, served := s.roomDomains[j.Domainpart()]; !served || j.Localpart() == "" || s.rooms[j.Bare().String()] != nil {
		return fmt.Errorf("xmpptest: room %s cannot be created", j)
	}
	r := s.newRoom(j.Bare(), config)
	maps.Copy(r.affiliations, affiliations)
	return nil
}

// Affiliate changes an account's affiliation with a room, as an owner could, and announces it. Who
// may not be there any more has to leave.
func (s *Server) Affiliate(address, account, affiliation string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.room(address)
	if err != nil {
		return err
	}
	s.affiliate(r, account, affiliation)
	return nil
}

// ConfigureRoom changes the configuration of a room, as an owner could, and announces it.
func (s *Server) ConfigureRoom(address string, config RoomConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.room(address)
	if err != nil {
		return err
	}
	s.configureRoom(r, config)
	return nil
}

// room finds a room. The caller holds s.mu.
func (s *Server) room(address string) (*room, error) {
	j, err := jid.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("xmpptest: room %q: %w", address, err)
	}
	r := s.rooms[j.Bare().String()]
	if r == nil {
		return nil, fmt.Errorf("xmpptest: no room %s", j)
	}
	return r, nil
}

func (s *Server) newRoom(j jid.JID, config RoomConfig) *room {
	r := &room{
		jid: j, bare: j.String(), config: config,
		affiliations: make(map[string]string), occupants: make(map[string]*occupant),
	}
	s.rooms[r.bare] = r
	return r
}

// servesRooms reports whether an address is that of a room or of a service for rooms.
func (s *Server) servesRooms(j jid.JID) bool {
	_, served := s.roomDomains[j.Domainpart()]
	return served
}

func (r *room) affiliation(bare string) string {
	if a := r.affiliations[bare]; a != "" {
		return a
	}
	return affiliationNone
}

// moderates reports whether an account may see and change what others may not.
func (r *room) moderates(bare string) bool {
	a := r.affiliation(bare)
	return a == affiliationOwner || a == affiliationAdmin
}

// admits reports whether an account may be in the room.
func (r *room) admits(bare string) *stanzaError {
	switch a := r.affiliation(bare); {
	case a == affiliationOutcast:
		return &forbidden
	case a == affiliationNone && r.config.MembersOnly:
		return &stanzaError{kind: "auth", condition: "registration-required"}
	}
	return nil
}

// ordered returns the occupants in the order of their nicks.
func (r *room) ordered() []*occupant {
	var found []*occupant
	for _, nick := range slices.Sorted(maps.Keys(r.occupants)) {
		found = append(found, r.occupants[nick])
	}
	return found
}

// find returns the occupant with a real full JID, or nil.
func (r *room) find(full string) *occupant {
	for _, o := range r.occupants {
		if o.full == full {
			return o
		}
	}
	return nil
}

// toOccupant sends a stanza to an occupant, if its session is still there.
func (s *Server) toOccupant(o *occupant, e *element) {
	j, err := jid.Parse(o.full)
	if err != nil {
		return
	}
	if a := s.accounts[o.bare]; a != nil && a.sessions[j.Resourcepart()] != nil {
		a.sessions[j.Resourcepart()].sendElement(e.with("to", o.full))
	}
}

// status adds status codes to an <x/>.
func status(x *element, codes ...int) *element {
	for _, code := range codes {
		x.add(el(nsMUCUser, "status", "code", strconv.Itoa(code)))
	}
	return x
}

// show sends an occupant's presence to another one.
func (s *Server) show(r *room, of, to *occupant, kind, newNick string, codes ...int) {
	affiliation, role := r.affiliation(of.bare), "participant"
	if r.moderates(of.bare) {
		role = "moderator"
	}
	if kind == "unavailable" && newNick == "" {
		role = "none"
	}
	item := el(nsMUCUser, "item", "affiliation", affiliation, "role", role, "nick", newNick)
	if r.config.NonAnonymous || r.moderates(to.bare) {
		item.set("jid", of.full)
	}
	if of == to {
		codes = append(slices.Clone(codes), 110)
		if r.config.NonAnonymous && kind == "" {
			codes = append(codes, 100)
		}
	}
	p := el(nsClient, "presence", "from", r.bare+"/"+of.nick, "type", kind)
	if kind == "" {
		for _, c := range of.presence.elements() {
			if c.name.Space != nsMUC && c.name.Space != nsMUCUser {
				p.add(c)
			}
		}
	}
	s.toOccupant(to, p.add(status(el(nsMUCUser, "x").add(item), codes...)))
}

// roomPresence acts on presence for a room (XEP-0045 §7).
func (s *Server) roomPresence(p *element, to jid.JID) {
	full := p.get("from")
	from, err := jid.Parse(full)
	if err != nil || to.Localpart() == "" {
		return
	}
	r := s.rooms[to.Bare().String()]
	if r != nil {
		if o := r.find(full); o != nil {
			switch {
			case p.get("type") == "unavailable":
				s.leaveRoom(r, o)
			case p.get("type") == "" && to.Resourcepart() != "":
				s.changePresence(r, o, p, to.Resourcepart())
			}
			return
		}
	}
	if p.get("type") != "" || p.child(nsMUC, "x") == nil {
		return
	}
	refuse := func(e stanzaError) {
		if a := s.accounts[from.Bare().String()]; a != nil && a.sessions[from.Resourcepart()] != nil {
			s.refuse(a.sessions[from.Resourcepart()], p, e)
		}
	}
	created := r == nil
	if to.Resourcepart() == "" {
		refuse(stanzaError{kind: "modify", condition: "jid-malformed"})
		return
	}
	if created {
		r = s.newRoom(to.Bare(), s.roomDomains[to.Domainpart()])
		r.affiliations[from.Bare().String()] = affiliationOwner
	}
	if refusal := r.admits(from.Bare().String()); refusal != nil {
		refuse(*refusal)
		return
	}
	if r.occupants[to.Resourcepart()] != nil {
		refuse(stanzaError{kind: "cancel", condition: "conflict"})
		return
	}
	s.joinRoom(r, &occupant{nick: to.Resourcepart(), full: full, bare: from.Bare().String(), presence: p}, created)
}

// joinRoom shows a new occupant everybody else, itself last, then the history and the subject.
func (s *Server) joinRoom(r *room, o *occupant, created bool) {
	for _, other := range r.ordered() {
		s.show(r, other, o, "", "")
	}
	r.occupants[o.nick] = o
	for _, other := range r.ordered() {
		if other != o {
			s.show(r, o, other, "", "")
		}
	}
	if created {
		s.show(r, o, o, "", "", 201)
	} else {
		s.show(r, o, o, "", "")
	}
	for _, m := range r.history {
		s.toOccupant(o, m)
	}
	subject := r.subject
	if subject == nil {
		subject = el(nsClient, "message", "from", r.bare, "type", "groupchat").add(el(nsClient, "subject"))
	}
	s.toOccupant(o, subject)
}

func (s *Server) leaveRoom(r *room, o *occupant, codes ...int) {
	for _, other := range r.ordered() {
		s.show(r, o, other, "unavailable", "", codes...)
	}
	delete(r.occupants, o.nick)
}

// changePresence is a new nick (XEP-0045 §7.6), or only new presence.
func (s *Server) changePresence(r *room, o *occupant, p *element, nick string) {
	o.presence = p
	if nick != o.nick {
		if r.occupants[nick] != nil {
			s.toOccupant(o, el(nsClient, "presence", "type", "error", "from", r.bare+"/"+nick).
				add(el(nsClient, "error", "type", "cancel").add(el(nsStanzas, "conflict"))))
			return
		}
		for _, other := range r.ordered() {
			s.show(r, o, other, "unavailable", nick, 303)
		}
		delete(r.occupants, o.nick)
		o.nick = nick
		r.occupants[nick] = o
	}
	for _, other := range r.ordered() {
		s.show(r, o, other, "", "")
	}
}

// roomMessage acts on a message for a room: to all, to one occupant, or a subject.
func (s *Server) roomMessage(c *session, m *element, to jid.JID) {
	r := s.rooms[to.Bare().String()]
	if r == nil {
		s.refuse(c, m, itemNotFound)
		return
	}
	o := r.find(c.full)
	if o == nil {
		s.refuse(c, m, stanzaError{kind: "modify", condition: "not-acceptable"})
		return
	}
	sent := m.with("from", r.bare+"/"+o.nick)
	sent.children = slices.DeleteFunc(slices.Clone(m.children), func(e *element) bool {
		return e.name.Space == nsMUCUser && len(e.children) > 0 // only the room says who is who
	})
	if to.Resourcepart() != "" {
		other := r.occupants[to.Resourcepart()]
		switch {
		case m.get("type") == "groupchat":
			s.refuse(c, m, badRequest)
		case other == nil:
			s.refuse(c, m, itemNotFound)
		default:
			s.toOccupant(other, sent)
		}
		return
	}
	if m.get("type") != "groupchat" {
		s.refuse(c, m, badRequest)
		return
	}
	sent = s.keep(&r.archive, r.bare, sent)
	for _, other := range r.ordered() {
		s.toOccupant(other, sent)
	}
	past := sent.with("to", "")
	past.children = append(slices.Clone(sent.children),
		el(nsDelay, "delay", "from", r.bare, "stamp", time.Now().UTC().Format("2006-01-02T15:04:05.000Z")))
	if m.child(nsClient, "subject") != nil && m.child(nsClient, "body") == nil {
		r.subject = past
		return
	}
	r.history = append(r.history, past)
	r.history = r.history[max(0, len(r.history)-r.config.History):]
}
