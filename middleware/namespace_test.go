package middleware_test

import (
	"errors"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// A message of a namespace that is not the stream's neither leaves nor arrives:
// no rule for messages would hold for it.
func TestMessageOfAnotherNamespace(t *testing.T) {
	const inner = `<body>canary</body>` + forged
	for _, space := range []string{"jabber:component:accept", "jabber:component:connect", "urn:example"} {
		t.Run(space, func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a := connected(t, srv, romeo, chat(omemo.V2))
			a.flush()
			ok(t, a.session.Send(t.Context(), raw(`<message xmlns="`+space+`" id="out" type="chat" to="`+juliet+`">`+inner+`</message>`)))
			if e := a.awaitFailure("out"); !errors.Is(e.Err, middleware.ErrMessage) {
				t.Errorf("sent: %v", e.Err)
			}
			noLeak(t, srv, "canary")
			inject(t, srv, `<message xmlns="`+space+`" id="in" type="chat" to="`+romeo+`" from="`+juliet+`">`+inner+`</message>`)
			if e := a.awaitEvent(middleware.Refused); e.ID != "in" || !errors.Is(e.Err, stanza.ErrMalformed) {
				t.Errorf("event: %+v", e)
			}
			a.flush()
			for _, s := range a.bodies() {
				if strings.Contains(s, "canary") {
					t.Errorf("delivered: %s", s)
				}
			}
		})
	}
}
