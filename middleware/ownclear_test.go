package middleware_test

import (
	"slices"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// carbons returns the texts of the carbons so far of what our account has sent, in
// their order.
func (r *reader) carbons() (texts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.messages {
		if m := inCarbon(e, "sent"); m != nil {
			texts = append(texts, shown(m))
		}
	}
	return texts
}

// clearing returns who sends in clear and catches up with the archive.
func clearing(t *testing.T, p middleware.Policy) (*xmpptest.Server, *program, *reader) {
	srv := archiving(t)
	c := catching(omemo.V2)
	c.Policy = p
	b, r := load(t, juliet, c), newReader()
	b.enters(srv, juliet+"/x", r)
	return srv, b, r
}

// enters is back with a reader.
func (p *program) enters(srv *xmpptest.Server, address string, r *reader) {
	p.t.Helper()
	caught := p.count(middleware.CaughtUp)
	p.attach(login(p.t, srv, address), r)
	p.await("caught up", func() bool { return countOf(p.events, middleware.CaughtUp) > caught })
	p.flush()
}

// TestOwnTextInClearIsNoCarbon: what this program has sent in clear is in the
// archive of its account, and the application has it.
func TestOwnTextInClearIsNoCarbon(t *testing.T) {
	for _, policy := range []middleware.Policy{middleware.Off, middleware.Opportunistic} {
		t.Run(policy.String(), func(t *testing.T) {
			srv, b, r := clearing(t, policy)
			phone := plain(t).attach(login(t, srv, juliet+"/phone"), nil)
			id := b.tell(romeo, "mine")
			b.tell(romeo+"/garden", "mine, to a resource")
			_, err := b.om.Send(t.Context(), to(romeo), children("<body>mine, an invitation</body><x xmlns='jabber:x:conference' jid='"+hall+"'/>"))
			ok(t, err)
			b.flush()
			b.leave(srv)
			// Programs that count their messages have the same ids.
			phone.sendRaw(id, `type="chat" to="`+romeo+`"`, "<body>the phone's</body>")
			phone.flush()
			// The server gives another address, or the same.
			for _, resource := range []string{"/y", "/x"} {
				b.enters(srv, juliet+resource, r)
				b.tell(romeo, "mine, through "+resource)
				b.flush()
				b.leave(srv)
			}
			b.enters(srv, juliet+"/z", r)
			// The server may deal with what a connection has left when there is the next.
			for _, from := range []string{"/x", "/phone"} {
				ok(t, srv.Inject(juliet+"/z", `<message xmlns="jabber:client" type="chat" from="`+juliet+`" to="`+juliet+`/z"><sent xmlns="`+nsCarbons+
					`"><forwarded xmlns="`+nsForward+`"><message xmlns="jabber:client" type="chat" from="`+juliet+from+`" to="`+romeo+`" id="`+id+
					`"><body>live, from `+from+`</body></message></forwarded></sent></message>`))
			}
			b.flush()
			if got := r.carbons(); !slices.Equal(got, []string{"the phone's", "live, from /phone"}) {
				t.Errorf("carbons: %q", got)
			}
			if n := b.count(middleware.PlaintextReceived); n != 0 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// TestOwnTextInClearThatIsAskedFor: an application that reads an archive itself
// gets all that is in it.
func TestOwnTextInClearThatIsAskedFor(t *testing.T) {
	srv, b, r := clearing(t, middleware.Off)
	b.tell(romeo, "mine")
	b.flush()
	b.leave(srv)
	b.enters(srv, juliet+"/x", r)
	b.askArchive("all")
	r.await(t, "the result", func(e *stanza.Element) bool {
		_, text := archivedText(e, "all")
		return text == "mine"
	})
}

// TestOwnTextInClearOfAnEarlierProgram: nothing tells a program that was started
// anew what it has sent, and nothing is lost for that.
func TestOwnTextInClearOfAnEarlierProgram(t *testing.T) {
	srv, b, _ := clearing(t, middleware.Off)
	b.tell(romeo, "mine, before")
	b.flush()
	b.leave(srv)
	c := catching(omemo.V2)
	c.Policy, c.Store = middleware.Off, reopened(b.store)
	ok(t, b.om.Close())
	r := newReader()
	load(t, juliet, c).enters(srv, juliet+"/x", r)
	if got := r.carbons(); !slices.Equal(got, []string{"mine, before"}) {
		t.Errorf("carbons: %q", got)
	}
}
