package middleware_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// shelf is an Archive in memory.
type shelf struct {
	mu    sync.Mutex
	texts map[string][]byte
	fail  error
}

func (s *shelf) Keep(_ context.Context, name string, text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(name) != 43 {
		return errors.New("a name of another length")
	}
	if s.fail == nil {
		s.texts[name] = text
	}
	return s.fail
}

func (s *shelf) Recall(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.texts[name], s.fail
}

// askArchive has a program ask its archive for everything.
func (p *program) askArchive(id string) {
	p.t.Helper()
	query := raw(`<query xmlns="urn:xmpp:mam:2" queryid="` + id + `"/>`)
	iq := xmppstanza.IQ{ID: id, Type: xmppstanza.SetIQ}
	ok(p.t, p.session.Send(p.t.Context(), iq.Wrap(query)))
}

// archivedText returns the text of the message in a result of an archive.
func archivedText(e *stanza.Element, query string) (m *stanza.Element, text string) {
	result := e.Child("urn:xmpp:mam:2", "result")
	if result == nil {
		return nil, ""
	}
	if id, _ := result.Attribute("queryid"); id != query {
		return nil, ""
	}
	m = result.Child(nsForward, "forwarded").Child(stanza.NSClient, "message")
	return m, shown(m)
}

// A page of the archive that was read before is filled in from what the
// application has kept: what was received, and what this device has sent.
func TestRecall(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			c := chat(v)
			books := &shelf{texts: make(map[string][]byte)}
			c.Archive = books
			r := newReader()
			b := load(t, juliet, c).attach(login(t, srv, juliet+"/x"), r)
			a := connected(t, srv, romeo, chat(v))
			ids := []string{a.tell(juliet, "one")}
			r.await(t, "one", func(e *stanza.Element) bool { return shown(e) == "one" })
			b.tell(romeo, "two")
			a.awaitText("two")
			ids = append(ids, a.tell(juliet, "three"))
			live := r.await(t, "three", func(e *stanza.Element) bool { return shown(e) == "three" })
			b.flush()
			for _, query := range []string{"first", "second"} {
				b.askArchive(query)
				for text, from := range map[string]string{"one": romeo, "two": juliet, "three": romeo} {
					got := r.await(t, query+" "+text, func(e *stanza.Element) bool { _, s := archivedText(e, query); return s == text })
					m, _ := archivedText(got, query)
					info := infoOf(t, m)
					if info.Account != from || info.Own != (from == juliet) {
						t.Errorf("%s: %+v", text, info)
					}
					if text == "three" && info != infoOf(t, live) {
						t.Errorf("info %+v, was %+v", info, infoOf(t, live))
					}
				}
			}
			for _, e := range b.all() {
				if e.Kind == middleware.Duplicate && slices.Contains(ids, e.ID) {
					t.Errorf("%v of %s", e.Kind, e.ID)
				}
			}
			noLeak(t, srv, "three")
		})
	}
}

// Nothing is recalled for a message that was put together from parts of another,
// or that comes from or goes to somebody else; nor what was not asked for.
func TestRecallForged(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			c := chat(v)
			c.Archive = &shelf{texts: make(map[string][]byte)}
			r := newReader()
			b := load(t, juliet, c).attach(login(t, srv, juliet+"/x"), r)
			a := connected(t, srv, romeo, chat(v))
			a.tell(juliet, "hello")
			r.await(t, "hello", func(e *stanza.Element) bool { return shown(e) == "hello" })
			b.tell(romeo, "back")
			a.awaitText("back") // from now on without key exchange
			id := a.tell(juliet, "the secret")
			r.await(t, "the text", func(e *stanza.Element) bool { return shown(e) == "the secret" })
			sent, err := srv.Await(t.Context(), fromTo(romeo, id))
			ok(t, err)
			genuine, err := stanza.ParseElement(declared(sent.XML), stanza.DefaultLimits)
			ok(t, err)
			genuine.SetAttribute("from", romeo+"/x")
			// Both list omemo:2, and may have come to speak it by now.
			found, err := stanza.Find(genuine)
			ok(t, err)
			ns := found[0].Name.Space
			change := func(f func(e *stanza.Element)) string {
				e := genuine.Clone()
				f(e)
				return string(e.AppendXML(nil))
			}
			forged := []string{
				change(func(e *stanza.Element) { e.SetAttribute("from", "mallory@example.net/x") }),
				change(func(e *stanza.Element) { e.SetAttribute("to", "mallory@example.net") }),
				change(func(e *stanza.Element) { e.SetAttribute("type", "groupchat") }),
				change(func(e *stanza.Element) {
					payload := e.Child(ns, "encrypted").Child(ns, "payload")
					payload.Children = []stanza.Node{{Text: "AAAA" + payload.Text()}}
				}),
				change(func(e *stanza.Element) {
					e.Child(ns, "encrypted").Child(ns, "header").SetAttribute("sid", "77")
				}),
			}
			// The question is never answered: it stays open.
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.FromClient && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
					return nil
				}
				return [][]byte{s.XML}
			})
			b.askArchive("page")
			b.flush()
			result := func(m string) {
				ok(t, srv.Inject(juliet+"/x", "<message xmlns='jabber:client' from='"+juliet+"'><result xmlns='urn:xmpp:mam:2' queryid='page' id='f'><forwarded xmlns='urn:xmpp:forward:0'>"+m+"</forwarded></result></message>"))
			}
			result(string(genuine.AppendXML(nil)))
			r.await(t, "the page", func(e *stanza.Element) bool { _, s := archivedText(e, "page"); return s == "the secret" })
			r.mu.Lock()
			before := len(r.messages)
			r.mu.Unlock()
			for _, f := range forged {
				result(f)
			}
			ok(t, srv.Inject(juliet+"/x", string(genuine.AppendXML(nil)))) // live: a replay
			b.flush()
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.messages[before:] {
				if strings.Contains(string(e.AppendXML(nil)), "the secret") {
					t.Errorf("recalled: %s", e.AppendXML(nil))
				}
			}
		})
	}
}

// A shelf that fails keeps no message from being delivered.
func TestRecallFails(t *testing.T) {
	srv := archiving(t)
	c := chat(omemo.V2)
	c.Archive = &shelf{fail: errors.New("full")}
	b := connected(t, srv, juliet, c)
	a := connected(t, srv, romeo, chat(omemo.V2))
	a.tell(juliet, "one")
	b.awaitText("one")
	b.awaitEvent(middleware.Trouble)
	b.askArchive("page")
	b.awaitEvent(middleware.Duplicate)
	if got := b.bodies(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("received %q", got)
	}
}
