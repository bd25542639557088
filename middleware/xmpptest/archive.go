package xmpptest

import (
	"slices"
	"strconv"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	nsMAM = "urn:xmpp:mam:2"
	nsRSM = "http://jabber.org/protocol/rsm"
	nsSID = "urn:xmpp:sid:0"

	// maxPage is how many results a query gets at most.
	maxPage = 100

	stampLayout = "2006-01-02T15:04:05.000Z"
)

// archive keeps messages (XEP-0313) of an account or a room, oldest first. It is guarded by
// Server.mu.
type archive struct {
	messages []archived
}

type archived struct {
	id      string
	at      time.Time
	message *element
}

// Archives has the server keep the messages of accounts and rooms, and answer queries for them
// (XEP-0313, XEP-0059): by time, by contact, forwards and backwards. What it keeps has a <stanza-id/>
// (XEP-0359) when it is delivered.
func Archives() Option { return func(s *Server) { s.archives = true } }

// TrimArchive drops all but the newest messages of the archive of an account or a room, as servers do
// when messages have become too old.
func (s *Server) TrimArchive(address string, newest int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.archiveOf(address)
	if err != nil {
		return err
	}
	a.messages = slices.Delete(a.messages, 0, max(0, len(a.messages)-newest))
	return nil
}

// Archived returns the ids of the messages in the archive of an account or a room, oldest first.
func (s *Server) Archived(address string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.archiveOf(address)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range a.messages {
		ids = append(ids, m.id)
	}
	return ids, nil
}

// archiveOf finds the archive of an account or a room. The caller holds s.mu.
func (s *Server) archiveOf(address string) (*archive, error) {
	if r, err := s.room(address); err == nil {
		return &r.archive, nil
	}
	a, err := s.account(address)
	if err != nil {
		return nil, err
	}
	return &a.archive, nil
}

// withArchive adds the features of an archive, if archives are kept.
func (s *Server) withArchive(features []string) []string {
	if s.archives {
		features = append(features, nsMAM, nsSID)
	}
	return features
}

// worthKeeping decides which messages are archived (XEP-0313 §5.1.1, XEP-0334).
func worthKeeping(m *element) bool {
	kind := m.get("type")
	if kind == "error" || kind == "headline" || m.child(nsHints, "no-store") != nil || m.child(nsHints, "no-permanent-store") != nil {
		return false
	}
	if m.child(nsClient, "body") != nil || m.child(nsHints, "store") != nil {
		return true
	}
	return slices.ContainsFunc(m.elements(), func(e *element) bool { return e.name.Local == "encrypted" })
}

// keep archives a message, if archives are kept and it is worth it, and returns it as it is to be
// delivered: with its id, which nobody else can set.
func (s *Server) keep(a *archive, by string, m *element) *element {
	if !s.archives {
		return m
	}
	kept := m.with("from", m.get("from"))
	kept.children = slices.DeleteFunc(slices.Clone(m.children), func(e *element) bool {
		return e.is(nsSID, "stanza-id") && e.get("by") == by
	})
	if worthKeeping(m) {
		id := newID()
		kept.add(el(nsSID, "stanza-id", "by", by, "id", id))
		a.messages = append(a.messages, archived{id, time.Now().Truncate(time.Millisecond), kept})
	}
	return kept
}

// archiveIQ answers a query of an archive.
func (s *Server) archiveIQ(c *session, a *archive, by string, iq, query *element) {
	page, fin, refusal := a.page(query)
	if refusal != nil {
		s.refuse(c, iq, *refusal)
		return
	}
	for _, m := range page {
		c.sendElement(el(nsClient, "message", "from", by, "to", c.full).add(
			el(nsMAM, "result", "queryid", query.get("queryid"), "id", m.id).add(
				el(nsForward, "forwarded").add(
					el(nsDelay, "delay", "from", by, "stamp", m.at.UTC().Format(stampLayout)), m.message))))
	}
	s.reply(c, iq, fin)
}

// page picks the results of a query, and says what they are.
func (a *archive) page(query *element) (page []archived, fin *element, refusal *stanzaError) {
	wanted, ok := filterOf(query)
	if !ok {
		return nil, nil, &badRequest
	}
	var all []archived
	for _, m := range a.messages {
		if wanted(m) {
			all = append(all, m)
		}
	}
	from, to, most, backwards := 0, len(all), maxPage, false
	index := func(id string) int { return slices.IndexFunc(all, func(m archived) bool { return m.id == id }) }
	set := query.child(nsRSM, "set")
	if set == nil {
		set = el(nsRSM, "set")
	}
	if e := set.child(nsRSM, "max"); e != nil {
		n, err := strconv.Atoi(e.content())
		if err != nil || n < 0 {
			return nil, nil, &badRequest
		}
		most = min(n, maxPage)
	}
	if e := set.child(nsRSM, "after"); e != nil {
		if from = index(e.content()) + 1; from == 0 {
			return nil, nil, &itemNotFound
		}
	}
	if e := set.child(nsRSM, "before"); e != nil {
		backwards = true
		if id := e.content(); id != "" {
			if to = index(id); to < 0 {
				return nil, nil, &itemNotFound
			}
		}
	}
	from = min(from, to)
	complete := to-from <= most
	switch {
	case complete:
	case backwards:
		from = to - most
	default:
		to = from + most
	}
	page = all[from:to]
	fin = el(nsMAM, "fin")
	if complete {
		fin.set("complete", "true")
	}
	result := el(nsRSM, "set")
	if len(page) > 0 {
		result.add(el(nsRSM, "first", "index", strconv.Itoa(from)).addText(page[0].id),
			el(nsRSM, "last").addText(page[len(page)-1].id))
	}
	return page, fin.add(result.add(el(nsRSM, "count").addText(strconv.Itoa(len(all))))), nil
}

// filterOf reads the form of a query (XEP-0313 §4.1).
func filterOf(query *element) (wanted func(archived) bool, ok bool) {
	var with string
	var start, end time.Time
	if form := query.child(nsForm, "x"); form != nil {
		for _, f := range form.elements() {
			value := f.child(nsForm, "value")
			if value == nil {
				continue
			}
			var err error
			switch f.get("var") {
			case "with":
				with = bareOf(value.content())
			case "start":
				start, err = time.Parse(time.RFC3339, value.content())
			case "end":
				end, err = time.Parse(time.RFC3339, value.content())
			}
			if err != nil {
				return nil, false
			}
		}
	}
	return func(m archived) bool {
		about := with == "" || bareOf(m.message.get("from")) == with || bareOf(m.message.get("to")) == with
		return about && !m.at.Before(start) && (end.IsZero() || !m.at.After(end))
	}, true
}

// bareOf returns the bare form of an address, or nothing.
func bareOf(address string) string {
	j, err := jid.Parse(address)
	if err != nil {
		return ""
	}
	return j.Bare().String()
}
