package attack

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// catchUpLimit is how many messages the victim fetches in one connection.
const catchUpLimit = 300

// archiveQuestion is what the victim asks its archive.
type archiveQuestion struct {
	n     int    // from 0
	ID    string `xml:"id,attr"`
	Query struct {
		ID    string `xml:"queryid,attr"`
		After string `xml:"set>after"`
	} `xml:"urn:xmpp:mam:2 query"`
}

// results returns n results with ids from the given number on.
func (s *stage) results(q archiveQuestion, from, n int) string {
	var b strings.Builder
	for i := range n {
		raw := "<message xmlns='jabber:client' from='" + romeo + "/phone' to='" + juliet + "' type='chat'><body>" + canary + "</body></message>"
		b.WriteString(strings.Replace(archived(juliet, q.Query.ID, raw), "id='1'", fmt.Sprintf("id='result-%d'", from+i), 1))
	}
	return b.String()
}

func fin(q archiveQuestion, set, attributes string) string {
	return fmt.Sprintf("<iq xmlns='jabber:client' type='result' id='%s'><fin xmlns='urn:xmpp:mam:2' %s><set xmlns='http://jabber.org/protocol/rsm'>%s</set></fin></iq>",
		q.ID, attributes, set)
}

// e5 has the archive go on for ever, repeat itself, and be answered for by
// others, while the victim catches up with it.
func e5(t *testing.T, v omemo.Version) {
	s := newStage(t, v, func(c *middleware.Config) { c.CatchUp, c.CatchUpLimit = true, catchUpLimit })
	for _, c := range []struct {
		name   string
		answer func(q archiveQuestion) string
		most   int   // questions
		err    error // of the end; nil: it ends in order
	}{
		{"one page for ever", func(q archiveQuestion) string { return s.results(q, 0, 50) + fin(q, "", "") }, 2, middleware.ErrArchiveLoop},
		{"an empty page for ever", func(q archiveQuestion) string { return fin(q, "", "") }, 1, middleware.ErrArchiveLoop},
		{"an empty page that promises more", func(q archiveQuestion) string {
			return fin(q, "<first index='0'>a</first><last>b</last><count>100000</count>", "complete='false'")
		}, 1, middleware.ErrArchiveLoop},
		{"one message twice", func(q archiveQuestion) string { return s.results(q, 0, 1) + s.results(q, 0, 1) + fin(q, "", "") }, 1, middleware.ErrArchiveLoop},
		{"a circle", func(q archiveQuestion) string { return s.results(q, q.n%2*50, 50) + fin(q, "", "") }, 3, middleware.ErrArchiveLoop},
		{"no end", func(q archiveQuestion) string { return s.results(q, 50*q.n, 50) + fin(q, "", "") }, catchUpLimit / 50, middleware.ErrArchiveTruncated},
		{"no end, in drops", func(q archiveQuestion) string { return s.results(q, q.n, 1) + fin(q, "", "") }, catchUpLimit, middleware.ErrArchiveTruncated},
		{"impossible counts", func(q archiveQuestion) string {
			return s.results(q, 0, 1) + fin(q, "<first index='-5'>x</first><count>99999999999999999999</count>", "complete='true'")
		}, 1, nil},
		{"results of others", func(q archiveQuestion) string {
			forged := s.results(q, 0, 3)
			for _, from := range []string{mallory, romeo, server, juliet + "/balcony"} {
				forged += strings.ReplaceAll(s.results(q, 10, 2), "from='"+juliet+"' to", "from='"+from+"' to")
			}
			return forged + fin(q, "", "complete='true'")
		}, 1, nil},
		{"an end by others", func(q archiveQuestion) string {
			spoofed := ""
			for _, from := range []string{mallory, romeo, "evil.example"} {
				spoofed += strings.Replace(fin(q, "", "complete='true'"), "<iq ", "<iq from='"+from+"' ", 1)
			}
			return spoofed + s.results(q, 0, 2) + fin(q, "", "complete='true'")
		}, 1, nil},
		{"a result of no question", func(q archiveQuestion) string {
			other := q
			other.Query.ID += "x"
			return s.results(other, 0, 2) + s.results(q, 0, 1) + fin(q, "", "complete='true'")
		}, 1, nil},
	} {
		s.in(t, c.name, func() {
			ok(t, s.om.Manager().SetCursor(t.Context(), omemo.Cursor{Archive: juliet, Position: "here", When: time.Now()}))
			asked := s.playArchive(c.answer)
			w := s.watch()
			s.reconnect(t)
			s.awaitEvent(w, middleware.CaughtUp)
			s.srv.SetFilter(nil)
			events, delivered := s.since(w)
			var end error
			for _, e := range events {
				if e.Kind == middleware.ArchiveTruncated {
					end = e.Err
				}
			}
			if !errors.Is(end, c.err) || c.err == nil && end != nil {
				s.t.Errorf("ended with %v, want %v", end, c.err)
			}
			if n := int(asked.Load()); n < 1 || n > c.most {
				s.t.Errorf("%d questions, at most %d were to be asked", n, c.most)
			}
			for _, e := range delivered {
				if bytes.Contains(e.AppendXML(nil), []byte(canary)) {
					s.t.Errorf("delivered: %s", e.AppendXML(nil))
				}
			}
			s.honest(s.romeo)
		})
	}
	s.brokenPages(t)
}

// brokenPages are pages that are no pages: nothing is delivered of them, and the
// victim goes on without its archive.
func (s *stage) brokenPages(t *testing.T) {
	for name, answer := range map[string]func(q archiveQuestion) string{
		"more than was asked for": func(q archiveQuestion) string { return s.results(q, 0, 2000) + fin(q, "", "complete='true'") },
		"an id without end": func(q archiveQuestion) string {
			return strings.Replace(s.results(q, 0, 1), "result-0", strings.Repeat("x", 5000), 1) + fin(q, "", "complete='true'")
		},
		"no id": func(q archiveQuestion) string {
			return strings.Replace(s.results(q, 0, 1), "result-0", "", 1) + fin(q, "", "complete='true'")
		},
		"no end": func(q archiveQuestion) string { return "<iq xmlns='jabber:client' type='result' id='" + q.ID + "'/>" },
	} {
		s.in(t, name, func() {
			ok(t, s.om.Manager().SetCursor(t.Context(), omemo.Cursor{Archive: juliet, Position: "here", When: time.Now()}))
			s.playArchive(answer)
			w := s.watch()
			s.reconnect(t)
			s.awaitEvent(w, middleware.Trouble)
			s.srv.SetFilter(nil)
			_, delivered := s.since(w)
			for _, e := range delivered {
				if bytes.Contains(e.AppendXML(nil), []byte(canary)) {
					s.t.Errorf("delivered: %s", e.AppendXML(nil))
				}
			}
			c, _, err := s.om.Manager().Cursor(t.Context(), juliet)
			ok(t, err)
			if c.Position != "here" {
				s.t.Errorf("the position has moved to %q", c.Position)
			}
			s.honest(s.romeo)
		})
	}
}

// playArchive answers the victim's questions to its archive.
func (s *stage) playArchive(answer func(q archiveQuestion) string) *atomic.Int64 {
	asked := new(atomic.Int64)
	s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
		if st.Direction != xmpptest.FromClient || !strings.HasPrefix(st.Session, juliet) || !bytes.Contains(st.XML, []byte("urn:xmpp:mam:2")) {
			return [][]byte{st.XML}
		}
		var q archiveQuestion
		if err := xml.Unmarshal(st.XML, &q); err != nil {
			return nil
		}
		q.n = int(asked.Add(1)) - 1
		_ = s.srv.Inject(st.Session, answer(q)) // the session may be gone
		return nil
	})
	return asked
}

// reconnect replaces the victim's session; it lasts as long as t.
func (s *stage) reconnect(t *testing.T) {
	s.t.Helper()
	inner := s.t
	s.t = t
	err := s.connect()
	s.t = inner
	ok(inner, err)
}

// awaitEvent waits for an event of a kind after w.
func (s *stage) awaitEvent(w watch, kind middleware.EventKind) {
	s.t.Helper()
	s.await(kind.String(), func() bool {
		for _, e := range s.events[w.events:] {
			if e.Kind == kind {
				return true
			}
		}
		return false
	})
}
