package devicelist

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

// script answers one request after the other and notes what it was asked.
type script struct {
	t       *testing.T
	replies []string
	asked   []string
}

func (s *script) Request(_ context.Context, iq *stanza.Element) (*stanza.Element, error) {
	s.t.Helper()
	s.asked = append(s.asked, string(iq.AppendXML(nil)))
	if len(s.asked) > len(s.replies) {
		s.t.Fatalf("unexpected request %s", s.asked[len(s.asked)-1])
	}
	return element(s.t, s.replies[len(s.asked)-1]), nil
}

const (
	done      = `<iq xmlns='jabber:client' type='result'/>`
	notFound  = `<iq xmlns='jabber:client' type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`
	forbidden = `<iq xmlns='jabber:client' type='error'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`
	down      = `<iq xmlns='jabber:client' type='error'><error type='wait'><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`
)

func items(inner string) string {
	return `<iq xmlns='jabber:client' type='result'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items>` + inner + `</items></pubsub></iq>`
}

const (
	legacyList = `<list xmlns='eu.siacs.conversations.axolotl'><device id='1'/></list>`
	v2List     = `<devices xmlns='urn:xmpp:omemo:2'><device id='1'/></devices>`
)

func TestPublish(t *testing.T) {
	const options = `<publish-options><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/pubsub#publish-options</value></field>` +
		`<field var="pubsub#access_model"><value>open</value></field><field var="pubsub#persist_items"><value>true</value></field><field var="pubsub#max_items"><value>1</value></field></x></publish-options>`
	for _, c := range []struct {
		name, reply string
		in          List
		want        string // asked, inside of pubsub
		fails       bool
	}{
		{"legacy", done, List{omemo.Legacy, ids(1)},
			`<publish node="eu.siacs.conversations.axolotl.devicelist"><item id="current"><list xmlns="eu.siacs.conversations.axolotl"><device id="1"/></list></item></publish>` + options, false},
		{"omemo:2", done, List{omemo.V2, ids(1)},
			`<publish node="urn:xmpp:omemo:2:devices"><item id="current"><devices xmlns="urn:xmpp:omemo:2"><device id="1"/></devices></item></publish>` + options, false},
		{"empty", done, List{omemo.Legacy, nil}, `<retract node="eu.siacs.conversations.axolotl.devicelist" notify="true"><item id="current"/></retract>`, false},
		{"empty already", notFound, List{omemo.V2, nil}, `<retract node="urn:xmpp:omemo:2:devices" notify="true"><item id="current"/></retract>`, false},
		{"empty, refused", down, List{omemo.V2, nil}, `<retract node="urn:xmpp:omemo:2:devices" notify="true"><item id="current"/></retract>`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{t: t, replies: []string{c.reply}}
			if err := Publish(t.Context(), s, c.in); (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			if want := `<iq xmlns="jabber:client" type="set"><pubsub xmlns="http://jabber.org/protocol/pubsub">` + c.want + `</pubsub></iq>`; s.asked[0] != want {
				t.Errorf("asked\n%s\nnot\n%s", s.asked[0], want)
			}
		})
	}
	if err := Publish(t.Context(), &script{t: t}, List{Devices: ids(1)}); err == nil {
		t.Error("published without a version")
	}
}

func TestFetch(t *testing.T) {
	for _, c := range []struct {
		name    string
		version omemo.Version
		replies []string
		want    []Device
		err     error
	}{
		{"omemo:2", omemo.V2, []string{items(`<item id='current'>` + v2List + `</item>`)}, ids(1), nil},
		{"omemo:2, another id", omemo.V2, []string{items(`<item id='1'>` + v2List + `</item>`)}, nil, pep.ErrNone},
		{"omemo:2, none", omemo.V2, []string{notFound}, nil, pep.ErrNone},
		{"omemo:2, a legacy list", omemo.V2, []string{items(`<item id='current'>` + legacyList + `</item>`)}, nil, ErrMalformed},
		{"legacy", omemo.Legacy, []string{items(`<item id='current'>` + legacyList + `</item>`)}, ids(1), nil},
		{"legacy, another id", omemo.Legacy, []string{items(``), items(`<item id='1'>` + legacyList + `</item>`)}, ids(1), nil},
		{"legacy, none", omemo.Legacy, []string{notFound, notFound}, nil, pep.ErrNone},
		{"legacy, an omemo:2 list", omemo.Legacy, []string{items(`<item id='current'>` + v2List + `</item>`)}, nil, ErrMalformed},
		{"legacy, too large", omemo.Legacy, []string{items(`<item id='current'><list xmlns='eu.siacs.conversations.axolotl'>` + many(257) + `</list></item>`)}, nil, ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{t: t, replies: c.replies}
			l, err := Fetch(t.Context(), s, "a@x.org", c.version)
			if !errors.Is(err, c.err) || !reflect.DeepEqual(l.Devices, c.want) {
				t.Errorf("got %+v, %v", l, err)
			}
			if len(s.asked) != len(c.replies) || !strings.Contains(s.asked[0], `to="a@x.org"`) || !strings.Contains(s.asked[0], `<item id="current"/>`) {
				t.Errorf("asked %s", s.asked)
			}
		})
	}
}

// That our own account has no list is said for certain, or not at all.
func TestFetchOwn(t *testing.T) {
	for _, c := range []struct {
		name    string
		version omemo.Version
		replies []string
		want    []Device
		none    bool
	}{
		{"omemo:2", omemo.V2, []string{items(`<item id='current'>` + v2List + `</item>`)}, ids(1), false},
		{"omemo:2, none", omemo.V2, []string{notFound, notFound}, nil, true},
		{"omemo:2, empty node", omemo.V2, []string{items(``), items(``)}, nil, true},
		{"omemo:2, another id", omemo.V2, []string{items(``), items(`<item id='1'>` + v2List + `</item>`)}, nil, true},
		{"omemo:2, published just now", omemo.V2, []string{notFound, items(`<item id='current'>` + v2List + `</item>`)}, ids(1), false},
		{"omemo:2, cannot be read", omemo.V2, []string{notFound, down}, nil, false},
		{"omemo:2, not visible", omemo.V2, []string{forbidden}, nil, false},
		{"omemo:2, down", omemo.V2, []string{down}, nil, false},
		{"legacy", omemo.Legacy, []string{items(`<item id='current'>` + legacyList + `</item>`)}, ids(1), false},
		{"legacy, none", omemo.Legacy, []string{notFound, notFound}, nil, true},
		{"legacy, cannot be read", omemo.Legacy, []string{notFound, down}, nil, false},
		{"legacy, not visible", omemo.Legacy, []string{forbidden}, nil, false},
		{"legacy, down", omemo.Legacy, []string{down}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{t: t, replies: c.replies}
			l, err := Fetch(t.Context(), s, "", c.version)
			if (err == nil) != (c.want != nil) || errors.Is(err, pep.ErrNone) != c.none || !reflect.DeepEqual(l.Devices, c.want) {
				t.Errorf("got %+v, %v", l, err)
			}
			if len(s.asked) != len(c.replies) {
				t.Errorf("asked %s", s.asked)
			}
		})
	}
}

// Attacks A4 and B14.
func TestParseEvent(t *testing.T) {
	event := func(inner string) string {
		return `<message xmlns='jabber:client' type='headline' from='a@x.org'><event xmlns='http://jabber.org/protocol/pubsub#event'>` + inner + `</event></message>`
	}
	legacyItems := func(inner string) string {
		return event(`<items node='eu.siacs.conversations.axolotl.devicelist'>` + inner + `</items>`)
	}
	v2Items := func(inner string) string {
		return event(`<items node='urn:xmpp:omemo:2:devices'>` + inner + `</items>`)
	}
	news := func(v omemo.Version, devices []Device) *Event {
		return &Event{Account: "a@x.org", List: List{v, devices}}
	}
	refetch := func(v omemo.Version) *Event {
		return &Event{Account: "a@x.org", List: List{Version: v}, Refetch: true}
	}
	for _, c := range []struct {
		name, in string
		want     *Event
		err      error
	}{
		{"legacy", legacyItems(`<item id='current'>` + legacyList + `</item>`), news(omemo.Legacy, ids(1)), nil},
		{"legacy, another id", legacyItems(`<item id='1'>` + legacyList + `</item>`), news(omemo.Legacy, ids(1)), nil},
		{"omemo:2", v2Items(`<item id='current'>` + v2List + `</item>`), news(omemo.V2, ids(1)), nil},
		{"omemo:2, another id", v2Items(`<item id='1'>` + v2List + `</item>`), refetch(omemo.V2), nil},
		{"empty list", v2Items(`<item id='current'><devices xmlns='urn:xmpp:omemo:2'/></item>`), news(omemo.V2, nil), nil},
		{"two items", v2Items(`<item id='current'>` + v2List + `</item><item id='current'>` + v2List + `</item>`), refetch(omemo.V2), nil},
		{"item and retraction", legacyItems(`<item id='current'>` + legacyList + `</item><retract id='1'/>`), refetch(omemo.Legacy), nil},
		{"no payload", v2Items(`<item id='current'/>`), refetch(omemo.V2), nil},
		{"no item", v2Items(``), refetch(omemo.V2), nil},
		{"omemo:2 retracted", v2Items(`<retract id='current'/>`), news(omemo.V2, nil), nil},
		{"omemo:2, another retracted", v2Items(`<retract id='1'/>`), refetch(omemo.V2), nil},
		{"legacy retracted", legacyItems(`<retract id='current'/>`), refetch(omemo.Legacy), nil},
		{"deleted", event(`<delete node='eu.siacs.conversations.axolotl.devicelist'/>`), news(omemo.Legacy, nil), nil},
		{"purged", event(`<purge node='urn:xmpp:omemo:2:devices'/>`), news(omemo.V2, nil), nil},
		{"version of another node", v2Items(`<item id='current'>` + legacyList + `</item>`), nil, ErrMalformed},
		{"too large", legacyItems(`<item id='current'><list xmlns='eu.siacs.conversations.axolotl'>` + many(257) + `</list></item>`), nil, ErrTooLarge},
		{"another node", event(`<items node='urn:xmpp:omemo:2:bundles'><item id='1'/></items>`), nil, nil},
		{"no event", `<message xmlns='jabber:client'/>`, nil, nil},
		{"from a room", strings.Replace(v2Items(`<item id='current'>`+v2List+`</item>`), "a@x.org", "room@x.org/nick", 1), nil, pep.ErrEvent},
		{"own", strings.Replace(v2Items(`<item id='current'>`+v2List+`</item>`), "from='a@x.org'", "", 1), &Event{List: List{omemo.V2, ids(1)}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := ParseEvent(element(t, c.in))
			if !errors.Is(err, c.err) || !reflect.DeepEqual(e, c.want) {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
}
