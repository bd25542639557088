package middleware_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmlstream"
	"mellium.im/xmpp/carbons"
)

const (
	nsCarbons = "urn:xmpp:carbons:2"
	nsForward = "urn:xmpp:forward:0"
)

// reader is a handler that keeps every message as a tree.
type reader struct {
	mu       sync.Mutex
	changed  *sync.Cond
	messages []*stanza.Element
}

func newReader() *reader {
	r := &reader{}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// HandleXMPP implements xmpp.Handler.
func (r *reader) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	e, err := stanza.ReadElement(t, *start, stanza.DefaultLimits)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, e)
	r.changed.Broadcast()
	return nil
}

// await waits for a message that fits, and returns it.
func (r *reader) await(t *testing.T, what string, fits func(*stanza.Element) bool) *stanza.Element {
	t.Helper()
	deadline := time.Now().Add(patience)
	defer time.AfterFunc(patience, r.changed.Broadcast).Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for _, e := range r.messages {
			if fits(e) {
				return e
			}
		}
		if !time.Now().Before(deadline) {
			var all []string
			for _, e := range r.messages {
				all = append(all, string(e.AppendXML(nil)))
			}
			t.Fatalf("timeout: %s; there were %q", what, all)
		}
		r.changed.Wait()
	}
}

// find returns the first message so far that holds a text anywhere, or nil.
func (r *reader) find(text string) *stanza.Element {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.messages {
		if strings.Contains(string(e.AppendXML(nil)), text) {
			return e
		}
	}
	return nil
}

// shown returns the text of a message's body, or nothing.
func shown(m *stanza.Element) string {
	if body := m.Child(stanza.NSClient, "body"); body != nil {
		return body.Text()
	}
	return ""
}

// inCarbon returns the message in a carbon of one direction, or nil.
func inCarbon(e *stanza.Element, direction string) *stanza.Element {
	w := e.Child(nsCarbons, direction)
	if w == nil || w.Child(nsForward, "forwarded") == nil {
		return nil
	}
	return w.Child(nsForward, "forwarded").Child(stanza.NSClient, "message")
}

// infoOf reads the Info of a message, which must be its last child and the only
// one.
func infoOf(t *testing.T, m *stanza.Element) middleware.Info {
	t.Helper()
	info, ok := m.Only(middleware.NSInfo, "info")
	if !ok || info == nil || m.Children[len(m.Children)-1].Element != info {
		t.Fatalf("info: %s", m.AppendXML(nil))
	}
	var i middleware.Info
	if err := xml.Unmarshal(info.AppendXML(nil), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// second connects another device of an account, which asks for carbons.
func second(t *testing.T, srv *xmpptest.Server, full string, c middleware.Config) (*program, *reader) {
	t.Helper()
	account, _, _ := strings.Cut(full, "/")
	c.Store = memstore.New(account)
	r := newReader()
	p := load(t, full, c).attach(login(t, srv, full), r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := carbons.Enable(ctx, p.session); err != nil {
		t.Fatal(err)
	}
	return p, r
}

// deviceOf returns the device id of a program.
func deviceOf(t *testing.T, p *program) omemo.DeviceID {
	t.Helper()
	a, err := p.om.Manager().Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a.Device
}

// Two devices of one account: each sees what the other receives and sends, as a
// carbon, decrypted in its place.
func TestCarbons(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a, ra := second(t, srv, romeo+"/a", chat(v))
			b, rb := second(t, srv, romeo+"/b", chat(v))
			c := connected(t, srv, juliet, chat(v))
			from := map[string]omemo.DeviceID{"a": deviceOf(t, a), "b": deviceOf(t, b), "c": deviceOf(t, c)}

			c.say(romeo+"/a", "canary for a")
			ra.await(t, "direct", func(e *stanza.Element) bool { return shown(e) == "canary for a" })
			got := rb.await(t, "received", func(e *stanza.Element) bool {
				m := inCarbon(e, "received")
				return m != nil && shown(m) == "canary for a"
			})
			if outer, _ := got.Attribute("from"); outer != romeo && outer != "" {
				t.Errorf("carbon from %q", outer)
			}
			if shown(got) != "" || got.Child(middleware.NSInfo, "info") != nil {
				t.Errorf("content beside the carbon: %s", got.AppendXML(nil))
			}
			m := inCarbon(got, "received")
			if i := infoOf(t, m); i.Account != juliet || i.Device != from["c"] || i.Version != v || i.Bound != (v == omemo.V2) {
				t.Errorf("info %+v", i)
			}

			for name, s := range map[string]struct {
				from *program
				to   *reader
			}{"a": {a, rb}, "b": {b, ra}} {
				text := "canary from " + name
				s.from.say(juliet, text)
				c.awaitText(text)
				got := s.to.await(t, "sent", func(e *stanza.Element) bool {
					m := inCarbon(e, "sent")
					return m != nil && shown(m) == text
				})
				m := inCarbon(got, "sent")
				if to, _ := m.Attribute("to"); to != juliet {
					t.Errorf("carbon of a message to %q", to)
				}
				if i := infoOf(t, m); i.Account != romeo || i.Device != from[name] || i.Bound != (v == omemo.V2) {
					t.Errorf("info %+v", i)
				}
			}
			noLeak(t, srv, "canary")
		})
	}
}

// Attacks A1 and A9: a genuine ciphertext that comes by a wrong way is dropped,
// and can still be read when it comes by the right one.
func TestCarbonOrigin(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			store := memstore.New(juliet)
			c := chat(v)
			c.Store = store
			r := newReader()
			victim := load(t, juliet, c).attach(login(t, srv, juliet+"/x"), r)
			a := connected(t, srv, romeo, chat(v))
			a.say(juliet, "hello")
			r.await(t, "hello", func(e *stanza.Element) bool { return shown(e) == "hello" })

			// The one that the victim does not get is what the attacker has.
			captured := make(chan struct{})
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "captured") {
					close(captured)
					return nil
				}
				return [][]byte{s.XML}
			})
			m := to(juliet)
			m.ID = "captured"
			if err := a.session.Send(t.Context(), m.Wrap(text("the captured text"))); err != nil {
				t.Fatal(err)
			}
			sent, err := srv.Await(t.Context(), fromTo(romeo, "id=\"captured\""))
			if err != nil {
				t.Fatal(err)
			}
			<-captured
			srv.SetFilter(nil)
			ours, err := stanza.ParseElement(declared(sent.XML), stanza.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			genuine := string(ours.SetAttribute("from", romeo+"/y").AppendXML(nil))
			fromUs := string(ours.Clone().SetAttribute("from", juliet+"/y").AppendXML(nil))
			carbon := func(from, direction, inner string) string {
				if from != "" {
					from = fmt.Sprintf(" from='%s'", from)
				}
				return fmt.Sprintf("<message xmlns='jabber:client'%s to='%s/x' type='chat'><%s xmlns='%s'><forwarded xmlns='%s'>%s</forwarded></%s></message>",
					from, juliet, direction, nsCarbons, nsForward, inner, direction)
			}
			var cases []string
			for _, from := range []string{
				romeo, romeo + "/y", "mallory@evil.example", "mallory@evil.example/x", "example.net", juliet + "/x", juliet + "/other",
				"juliet@evil.example", "juliet@example.net.evil.example", "example.net/" + juliet, "@", "juliet@",
			} {
				cases = append(cases, carbon(from, "received", genuine), carbon(from, "sent", fromUs))
			}
			deep := carbon(juliet, "received", genuine)
			for range 3 {
				deep = carbon(juliet, "received", deep)
				cases = append(cases, deep)
			}
			cases = append(cases,
				carbon(juliet, "sent", genuine),
				carbon(juliet, "received", strings.Replace(genuine, "to=\""+juliet, "to=\"mallory@evil.example", 1)),
				carbon(juliet, "received", genuine+genuine),
				strings.Replace(carbon(juliet, "received", genuine), "</received></message>", "</received><body>beside</body></message>", 1),
			)
			for i, attack := range cases {
				before := victim.count(middleware.Refused)
				if err := srv.Inject(juliet+"/x", attack); err != nil {
					t.Fatal(err)
				}
				victim.await("refusal", func() bool { return countOf(victim.events, middleware.Refused) > before })
				victim.flush()
				if got := r.find("captured"); got != nil {
					t.Fatalf("case %d was delivered: %s", i, got.AppendXML(nil))
				}
			}
			if err := srv.Inject(juliet+"/x", carbon(juliet, "received", genuine)); err != nil {
				t.Fatal(err)
			}
			r.await(t, "the right way", func(e *stanza.Element) bool {
				m := inCarbon(e, "received")
				return m != nil && shown(m) == "the captured text"
			})
		})
	}
}

// countOf returns how many of the events are of a kind.
func countOf(events []middleware.Event, kind middleware.EventKind) int {
	n := 0
	for _, e := range events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// declared returns a stanza of a client's stream with its namespace declared.
func declared(raw []byte) []byte {
	name, rest, _ := strings.Cut(string(raw), " ")
	if head, _, _ := strings.Cut(rest, ">"); strings.Contains(head, "xmlns=\"jabber:client\"") || strings.Contains(head, "xmlns='jabber:client'") {
		return raw
	}
	return []byte(name + " xmlns='jabber:client' " + rest)
}
