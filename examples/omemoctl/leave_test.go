package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"encoding/xml"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// online runs a program until a condition on its store holds, and stops it. Its
// handlers, if it is served, get what it has decrypted.
func (s *site) online(c middleware.Config, handler xmpp.Handler, until func(m *omemo.Manager) bool) {
	s.t.Helper()
	store, err := sqlite.Open(s.t.Context(), s.db, romeo)
	ok(s.t, err)
	defer store.Close()
	c.Store = store
	om, err := middleware.New(s.t.Context(), c)
	ok(s.t, err)
	session, err := s.srv.Client(s.t.Context(), romeo, "secret")
	ok(s.t, err)
	session, err = om.Wrap(s.t.Context(), session)
	ok(s.t, err)
	served := make(chan struct{})
	close(served)
	if handler != nil {
		served = make(chan struct{})
		go func() {
			defer close(served)
			_ = session.Serve(handler)
		}()
	}
	since := len(s.srv.Wire())
	ok(s.t, session.Send(s.t.Context(), xmppstanza.Presence{}.Wrap(nil)))
	// The server has it when it asks what we can do: what is said before is lost.
	s.await(func() bool {
		return slices.ContainsFunc(s.srv.Wire()[since:], func(x xmpptest.Stanza) bool {
			return x.Session == session.LocalAddr().String() && x.Direction == xmpptest.ToClient && bytes.Contains(x.XML, []byte("disco#info"))
		})
	})
	s.await(func() bool { return until(om.Manager()) })
	om.Close()
	<-served
}

// await waits for a condition.
func (s *site) await(condition func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	for tick := time.Tick(10 * time.Millisecond); !condition(); {
		select {
		case <-tick:
		case <-ctx.Done():
			s.t.Fatal("waited in vain")
		}
	}
}

// rows returns how many messages wait in the inbox and in the journal.
func rows(t *testing.T, m *omemo.Manager) (inbox []omemo.InboxRow, journal int) {
	t.Helper()
	inbox, err := m.Inbox(t.Context(), 0, 10)
	ok(t, err)
	kept, err := m.Kept(t.Context(), omemo.Address{})
	ok(t, err)
	return inbox, len(kept)
}

// Messages that the program has not handled yet wait for it, whatever is done to its
// account meanwhile.
func TestMessagesAreLeftToTheProgram(t *testing.T) {
	failing := func(context.Context, *sql.Tx, middleware.Delivery) error { return errors.New("not now") }
	for _, c := range []struct {
		name           string
		config         middleware.Config
		inbox, journal int
	}{
		{"decrypted", middleware.Config{}, 1, 0},
		{"not opened", middleware.Config{Receive: failing}, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.program(c.config)
			contact := s.contact()
			said := false
			holds := func(m *omemo.Manager) bool {
				inbox, journal := rows(t, m)
				return len(inbox) == c.inbox && journal == c.journal
			}
			s.online(c.config, nil, func(m *omemo.Manager) bool {
				if !said {
					body := xmlstream.Wrap(xmlstream.Token(xml.CharData("canary")), xml.StartElement{Name: xml.Name{Local: "body"}})
					_, err := contact.Send(t.Context(), xmppstanza.Message{To: jid.MustParse(romeo), Type: xmppstanza.ChatMessage}, body)
					ok(t, err)
					said = true
				}
				return holds(m)
			})
			for _, command := range [][]string{{"rotate"}, {"send", juliet, "bird"}, {"replace", juliet}, {"prune", "-dry"}, {"doctor", "-fix"}, {"purge", "version", "legacy"}} {
				if code, _ := s.run(command...); code != exitOK {
					t.Errorf("%q: exit code %d", command, code)
				}
				s.between(func(m *omemo.Manager) {
					inbox, journal := rows(t, m)
					if len(inbox) != c.inbox || journal != c.journal || len(inbox) > 0 && (inbox[0].Attempts > 0 || inbox[0].Dead) {
						t.Errorf("%q: %d in the inbox, %d in the journal", command, len(inbox), journal)
					}
				})
			}
			// At last it is handled, once.
			read := make(chan string, 10)
			config := c.config
			if config.Receive != nil {
				config.Receive = func(_ context.Context, _ *sql.Tx, d middleware.Delivery) error {
					if strings.Contains(string(d.Stanza), "canary") {
						read <- "canary"
					}
					return nil
				}
			}
			handler := xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, _ *xml.StartElement) error {
				for {
					tok, err := r.Token()
					if text, is := tok.(xml.CharData); is && string(text) == "canary" && c.config.Receive == nil {
						read <- "canary"
					}
					if err != nil {
						return nil
					}
				}
			})
			s.online(config, handler, func(m *omemo.Manager) bool {
				inbox, journal := rows(t, m)
				return len(read) > 0 && journal == 0 && len(inbox) == 0
			})
			if len(read) != 1 {
				t.Errorf("handled %d times", len(read))
			}
		})
	}
}
