package bundle

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

// answer gives the same reply to every request and notes what it was asked.
type answer struct {
	t     *testing.T
	reply string
	asked []string
}

func (a *answer) Request(_ context.Context, iq *stanza.Element) (*stanza.Element, error) {
	a.t.Helper()
	a.asked = append(a.asked, string(iq.AppendXML(nil)))
	return element(a.t, a.reply), nil
}

const (
	done     = `<iq xmlns='jabber:client' type='result'/>`
	notFound = `<iq xmlns='jabber:client' type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`
	refused  = `<iq xmlns='jabber:client' type='error'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`
)

func items(inner string) string {
	return `<iq xmlns='jabber:client' type='result'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items>` + inner + `</items></pubsub></iq>`
}

func TestPublish(t *testing.T) {
	for v, want := range map[omemo.Version][]string{
		omemo.Legacy: {`<publish node="eu.siacs.conversations.axolotl.bundles:5"><item id="current"><bundle`, `<field var="pubsub#max_items"><value>1</value>`},
		omemo.V2:     {`<publish node="urn:xmpp:omemo:2:bundles"><item id="5"><bundle`, `<field var="pubsub#max_items"><value>max</value>`},
	} {
		a := &answer{t: t, reply: done}
		b := good(v)
		if err := Publish(t.Context(), a, &b); err != nil {
			t.Fatal(err)
		}
		want = append(want, `<field var="pubsub#access_model"><value>open</value>`, `<field var="pubsub#persist_items"><value>true</value>`)
		for _, w := range want {
			if len(a.asked) != 1 || !strings.Contains(a.asked[0], w) {
				t.Errorf("%s: asked %s, without %s", v, a.asked, w)
			}
		}
		a.reply = refused
		if err := Publish(t.Context(), a, &b); err == nil {
			t.Errorf("%s: no error", v)
		}
	}
	if err := Publish(t.Context(), &answer{t: t, reply: done}, &omemo.Bundle{}); err == nil {
		t.Error("published without a version")
	}
}

// Attack B12.
func TestFetch(t *testing.T) {
	legacy, v2 := sample{}.xml(omemo.Legacy), sample{}.xml(omemo.V2)
	for _, c := range []struct {
		name    string
		version omemo.Version
		reply   string
		err     error
	}{
		{"legacy", omemo.Legacy, items(`<item id='current'>` + legacy + `</item>`), nil},
		{"legacy, Dino", omemo.Legacy, items(`<item id='1'>` + legacy + `</item>`), nil},
		{"legacy, none", omemo.Legacy, notFound, pep.ErrNone},
		{"legacy, not visible", omemo.Legacy, refused, pep.ErrNone},
		{"legacy, another version", omemo.Legacy, items(`<item id='current'>` + v2 + `</item>`), ErrMalformed},
		{"omemo:2", omemo.V2, items(`<item id='5'>` + v2 + `</item>`), nil},
		{"omemo:2, among others", omemo.V2, items(`<item id='4'>` + legacy + `</item><item id='5'>` + v2 + `</item>`), nil},
		{"omemo:2, of another device", omemo.V2, items(`<item id='4'>` + v2 + `</item>`), pep.ErrNone},
		{"omemo:2, not the id's form", omemo.V2, items(`<item id='05'>` + v2 + `</item>`), pep.ErrNone},
		{"omemo:2, none", omemo.V2, notFound, pep.ErrNone},
		{"omemo:2, another version", omemo.V2, items(`<item id='5'>` + legacy + `</item>`), ErrMalformed},
		{"omemo:2, not a bundle", omemo.V2, items(`<item id='5'><x/></item>`), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &answer{t: t, reply: c.reply}
			b, err := Fetch(t.Context(), a, owner, c.version)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v", err)
			}
			if err == nil && !reflect.DeepEqual(b, good(c.version)) {
				t.Errorf("got %+v", b)
			}
			want := `<items node="urn:xmpp:omemo:2:bundles"><item id="5"/></items>`
			if c.version == omemo.Legacy {
				want = `<items max_items="1" node="eu.siacs.conversations.axolotl.bundles:5"/>`
			}
			if len(a.asked) != 1 || !strings.Contains(a.asked[0], want) && !strings.Contains(a.asked[0], `<items node="urn:xmpp:omemo:2:bundles">`) || !strings.Contains(a.asked[0], `to="a@x.org"`) {
				t.Errorf("asked %s", a.asked)
			}
		})
	}
}

func TestRetract(t *testing.T) {
	for v, want := range map[omemo.Version]string{
		omemo.Legacy: `<delete node="eu.siacs.conversations.axolotl.bundles:5"/>`,
		omemo.V2:     `<retract node="urn:xmpp:omemo:2:bundles" notify="true"><item id="5"/></retract>`,
	} {
		for reply, fails := range map[string]bool{done: false, notFound: false, refused: true} {
			a := &answer{t: t, reply: reply}
			if err := Retract(t.Context(), a, v, 5); (err != nil) != fails {
				t.Errorf("%s: error %v", v, err)
			}
			if !strings.Contains(a.asked[0], want) {
				t.Errorf("%s: asked %s", v, a.asked)
			}
		}
	}
}
