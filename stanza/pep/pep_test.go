package pep

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Replies of the tables.
const (
	ok = `<iq xmlns='jabber:client' type='result'/>`

	precondition = `<iq xmlns='jabber:client' type='error'><error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
		`<precondition-not-met xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>`
)

func failed(typ, condition string, app ...string) string {
	s := `<iq xmlns='jabber:client' type='error'><error type='` + typ + `'><` + condition + ` xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
		`<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>secret</text>`
	for _, a := range app {
		s += `<` + a + ` xmlns='http://jabber.org/protocol/pubsub#errors'/>`
	}
	return s + `</error></iq>`
}

func result(pubsub string) string {
	return `<iq xmlns='jabber:client' type='result'><pubsub xmlns='http://jabber.org/protocol/pubsub'>` + pubsub + `</pubsub></iq>`
}

func element(t testing.TB, s string) *stanza.Element {
	t.Helper()
	e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return e
}

// script is a server that answers one request after the other and notes what
// it was asked. A reply that is not XML is an error of the Requester.
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
	reply := s.replies[len(s.asked)-1]
	if !strings.HasPrefix(reply, "<") {
		return nil, errors.New(reply)
	}
	return element(s.t, reply), nil
}

// Requests as they are expected.
func set(payload string) string {
	return `<iq xmlns="jabber:client" type="set">` + payload + `</iq>`
}

func form(kind string, fields ...string) string {
	s := `<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/pubsub#` + kind + `</value></field>`
	for i := 0; i < len(fields); i += 2 {
		s += `<field var="pubsub#` + fields[i] + `"><value>` + fields[i+1] + `</value></field>`
	}
	return s + `</x>`
}

func publish(fields ...string) string {
	return set(`<pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="n"><item id="i"><p xmlns="urn:p"/></item></publish>` +
		`<publish-options>` + form("publish-options", fields...) + `</publish-options></pubsub>`)
}

func configure(fields ...string) string {
	return set(`<pubsub xmlns="http://jabber.org/protocol/pubsub#owner"><configure node="n">` + form("node_config", fields...) + `</configure></pubsub>`)
}

func TestPublish(t *testing.T) {
	options := func(max string) []string {
		return []string{"access_model", "open", "persist_items", "true", "max_items", max}
	}
	full, one := options("max"), options("1")
	access := []string{"access_model", "open"}
	constraint := failed("wait", "resource-constraint")
	for _, c := range []struct {
		name      string
		max       string
		exchanges []string // request, reply, …
		err       string   // part of the error
	}{
		{"at once", "max", []string{publish(full...), ok}, ""},
		{"another configuration is repaired", "1", []string{
			publish(one...), precondition,
			configure(one...), ok,
			publish(one...), ok}, ""},
		{"ejabberd 23.01, max", "max", []string{
			publish(full...), constraint,
			publish(access...), ok,
			configure(full...), ok}, ""},
		{"ejabberd 23.01, one", "1", []string{
			publish(one...), constraint,
			publish(access...), ok,
			configure(one...), ok}, ""},
		{"ejabberd 23.01, node not open", "max", []string{
			publish(full...), constraint,
			publish(access...), precondition,
			configure(access...), ok,
			publish(access...), ok,
			configure(full...), ok}, ""},
		{"max unknown altogether", "max", []string{
			publish(full...), failed("modify", "bad-request"),
			publish(access...), ok,
			configure(full...), failed("modify", "not-acceptable"),
			configure(options("256")...), ok}, ""},
		{"one item only", "max", []string{
			publish(full...), failed("modify", "bad-request"),
			publish(access...), ok,
			configure(full...), failed("modify", "not-acceptable"),
			configure(options("256")...), failed("modify", "not-acceptable")}, ""},
		{"no configuration", "1", []string{
			publish(one...), constraint,
			publish(access...), ok,
			configure(one...), failed("cancel", "feature-not-implemented")}, ""},
		{"configuration refuses max", "max", []string{
			publish(full...), precondition,
			configure(full...), failed("modify", "not-acceptable"),
			publish(access...), ok,
			configure(full...), failed("modify", "not-acceptable"),
			configure(options("256")...), ok}, ""},
		{"never met", "1", []string{
			publish(one...), precondition,
			configure(one...), ok,
			publish(one...), precondition,
			publish(access...), precondition,
			configure(access...), ok,
			publish(access...), precondition}, "precondition-not-met"},
		{"not ours", "max", []string{publish(full...), failed("auth", "forbidden")}, "forbidden"},
		{"no service", "max", []string{publish(full...), failed("cancel", "service-unavailable")}, "service-unavailable"},
		{"not ours after all", "max", []string{publish(full...), constraint, publish(access...), failed("auth", "forbidden")}, "forbidden"},
		{"connection lost", "max", []string{publish(full...), "lost"}, "lost"},
		{"connection lost on the way", "max", []string{publish(full...), constraint, publish(access...), ok, configure(full...), "lost"}, "lost"},
		{"no IQ type", "max", []string{publish(full...), `<iq xmlns='jabber:client' type='set'/>`}, `type "set"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{t: t}
			var want []string
			for i := 0; i < len(c.exchanges); i += 2 {
				want, s.replies = append(want, c.exchanges[i]), append(s.replies, c.exchanges[i+1])
			}
			err := Publish(t.Context(), s, "n", "i", element(t, `<p xmlns='urn:p'/>`), Options{"open", true, c.max})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v", err)
			}
			if !reflect.DeepEqual(s.asked, want) {
				t.Errorf("asked\n%s\nnot\n%s", strings.Join(s.asked, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestPublishWithoutOptions(t *testing.T) {
	s := &script{t: t, replies: []string{ok}}
	if err := Publish(t.Context(), s, "n", "", element(t, `<p/>`), Options{}); err != nil {
		t.Fatal(err)
	}
	want := set(`<pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="n"><item><p xmlns=""/></item></publish>` +
		`<publish-options>` + form("publish-options") + `</publish-options></pubsub>`)
	if s.asked[0] != want {
		t.Errorf("asked %s", s.asked[0])
	}
}

func TestRetractAndDelete(t *testing.T) {
	for _, c := range []struct {
		name, reply string
		none, fails bool
	}{
		{"done", ok, false, false},
		{"absent", failed("cancel", "item-not-found"), true, true},
		{"not ours", failed("auth", "forbidden"), false, true},
		{"lost", "lost", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{t: t, replies: []string{c.reply, c.reply}}
			for _, err := range []error{Retract(t.Context(), s, "n", "i"), Delete(t.Context(), s, "n")} {
				if (err != nil) != c.fails || errors.Is(err, ErrNone) != c.none {
					t.Errorf("error %v", err)
				}
			}
			want := []string{
				set(`<pubsub xmlns="http://jabber.org/protocol/pubsub"><retract node="n" notify="true"><item id="i"/></retract></pubsub>`),
				set(`<pubsub xmlns="http://jabber.org/protocol/pubsub#owner"><delete node="n"/></pubsub>`),
			}
			if !reflect.DeepEqual(s.asked, want) {
				t.Errorf("asked %s", s.asked)
			}
		})
	}
}

// unsupported is an error that names a feature of XEP-0060.
func unsupported(feature string) string {
	return strings.Replace(failed("cancel", "feature-not-implemented", "unsupported"), "<unsupported ", "<unsupported feature='"+feature+"' ", 1)
}

// Attacks B4 and B12: nothing that we may see, and items that were not asked for.
// Of the own account, which newest asks, nothing that we may see is not nothing.
func TestFetch(t *testing.T) {
	fetch := func(ctx context.Context, r Requester) (Item, error) { return Fetch(ctx, r, "a@x.org", "n", "i") }
	newest := func(ctx context.Context, r Requester) (Item, error) { return Newest(ctx, r, "", "n") }
	for _, c := range []struct {
		name, reply string
		fetch, new  string // id and payload, "none" or "error"
	}{
		{"one", result(`<items node='n'><item id='i'><p xmlns='urn:p'/></item></items>`), "i p", "i p"},
		{"node left out", result(`<items><item id='i'><p xmlns='urn:p'/></item></items>`), "i p", "i p"},
		{"another node", result(`<items node='m'><item id='i'><p xmlns='urn:p'/></item></items>`), "error", "error"},
		{"another id", result(`<items node='n'><item id='1'><p xmlns='urn:p'/></item></items>`), "none", "1 p"},
		{"no id", result(`<items node='n'><item><p xmlns='urn:p'/></item></items>`), "none", " p"},
		{"several", result(`<items node='n'><item id='1'><p/></item><item id='i'><q/></item><item id='2'><r/></item></items>`), "i q", "2 r"},
		{"several with current", result(`<items node='n'><item id='current'><p/></item><item id='i'><q/></item></items>`), "i q", "current p"},
		{"without payload", result(`<items node='n'><item id='i'/></items>`), "none", "none"},
		{"white space", result("\n<items node='n'>\n<item id='i'>\n<p/>\n</item>\n</items>\n"), "i p", "i p"},
		{"no items", result(`<items node='n'/>`), "none", "none"},
		{"no pubsub items", result(``), "none", "none"},
		{"no pubsub", ok, "none", "none"},
		{"items of another namespace", result(`<items node='n'><item xmlns='urn:x' id='i'><p/></item></items>`), "none", "none"},
		{"item-not-found", failed("cancel", "item-not-found"), "none", "none"},
		{"forbidden, prosody 0.12", failed("auth", "forbidden"), "none", "error"},
		{"presence needed, ejabberd", failed("auth", "not-authorized", "presence-subscription-required"), "none", "error"},
		{"whitelist", failed("cancel", "not-allowed", "closed-node"), "none", "error"},
		{"no account", failed("cancel", "service-unavailable"), "none", "error"},
		{"no pubsub at all", failed("cancel", "feature-not-implemented"), "none", "error"},
		{"items are not kept", unsupported("persistent-items"), "none", "none"},
		{"items cannot be asked for", unsupported("retrieve-items"), "none", "error"},
		{"not allowed otherwise", failed("cancel", "not-allowed"), "error", "error"},
		{"server down", failed("wait", "remote-server-timeout"), "error", "error"},
		{"server unknown", failed("cancel", "remote-server-not-found"), "error", "error"},
		{"error without condition", `<iq xmlns='jabber:client' type='error'/>`, "error", "error"},
		{"lost", "lost", "error", "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range []struct {
				do   func(context.Context, Requester) (Item, error)
				want string
				ask  string
			}{
				{fetch, c.fetch, `<iq xmlns="jabber:client" type="get" to="a@x.org"><pubsub xmlns="http://jabber.org/protocol/pubsub"><items node="n"><item id="i"/></items></pubsub></iq>`},
				{newest, c.new, `<iq xmlns="jabber:client" type="get"><pubsub xmlns="http://jabber.org/protocol/pubsub"><items max_items="1" node="n"/></pubsub></iq>`},
			} {
				s := &script{t: t, replies: []string{c.reply}}
				item, err := v.do(t.Context(), s)
				got := "error"
				switch {
				case err == nil:
					got = item.ID + " " + item.Payload.Name.Local
				case errors.Is(err, ErrNone):
					got = "none"
				}
				if got != v.want {
					t.Errorf("got %q, not %q: %v", got, v.want, err)
				}
				if s.asked[0] != v.ask {
					t.Errorf("asked %s", s.asked[0])
				}
			}
		})
	}
}

func TestError(t *testing.T) {
	for _, c := range []struct {
		in, message string
		want        Error
	}{
		{precondition, "pep: conflict (precondition-not-met)", Error{"cancel", "conflict", []string{"precondition-not-met"}, ""}},
		{failed("auth", "forbidden"), "pep: forbidden", Error{"auth", "forbidden", nil, ""}},
		{failed("wait", "x", "a", "b"), "pep: x (a, b)", Error{"wait", "x", []string{"a", "b"}, ""}},
		{unsupported("persistent-items"), "pep: feature-not-implemented (unsupported)", Error{"cancel", "feature-not-implemented", []string{"unsupported"}, "persistent-items"}},
		{`<iq xmlns='jabber:client'/>`, "pep: undefined-condition", Error{"", xmppstanza.UndefinedCondition, nil, ""}},
		{`<iq xmlns='jabber:client'><error type='wait'><forbidden xmlns='urn:x'/></error></iq>`, "pep: undefined-condition", Error{"wait", xmppstanza.UndefinedCondition, nil, ""}},
	} {
		got := parseError(element(t, c.in))
		if !reflect.DeepEqual(*got, c.want) || got.Error() != c.message {
			t.Errorf("%s\nread %+v, %q", c.in, got, got)
		}
	}
}

// Attacks A4 and B14.
func TestParseEvent(t *testing.T) {
	message := func(attributes, event string) string {
		return `<message xmlns='jabber:client' ` + attributes + `>` + event + `</message>`
	}
	event := func(inner string) string {
		return message(`type='headline' from='a@x.org'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'>`+inner+`</event>`)
	}
	for _, c := range []struct {
		name, in string
		want     string // as printed below, "nothing" or "refused"
	}{
		{"item", event(`<items node='n'><item id='i'><p/></item></items>`), "a@x.org n [i:p] [] false"},
		{"items", event(`<items node='n'><item id='i'><p/></item><item id='j'/><retract id='k'/></items>`), "a@x.org n [i:p j:] [k] false"},
		{"retracted", event(`<items node='n'><retract id='k'/></items>`), "a@x.org n [] [k] false"},
		{"purged", event(`<purge node='n'/>`), "a@x.org n [] [] true"},
		{"deleted", event(`<delete node='n'><redirect uri='xmpp:evil@x.org'/></delete>`), "a@x.org n [] [] true"},
		{"configured", event(`<configuration node='n'/>`), "nothing"},
		{"empty", event(``), "nothing"},
		{"unknown", event(`<items xmlns='urn:x' node='n'/>`), "nothing"},
		{"no node", event(`<items><item id='i'/></items>`), "refused"},
		{"two nodes", event(`<items node='n'/><items node='m'/>`), "refused"},
		{"own account", message(`type='headline'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event>`), " n [] [] true"},
		{"without type", message(`from='A@X.org'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event>`), "a@x.org n [] [] true"},
		{"account in the payload", event(`<items node='n' jid='b@x.org'><item id='i' publisher='b@x.org'><p from='b@x.org'/></item></items>`), "a@x.org n [i:p] [] false"},
		{"full address", message(`from='a@x.org/1'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event>`), "refused"},
		{"no address", message(`from='@'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event>`), "refused"},
		{"error", message(`type='error' from='a@x.org'`, `<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event>`), "nothing"},
		{"no event", message(``, `<body>hi</body>`), "nothing"},
		{"inside something", message(``, `<x><event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='n'/></event></x>`), "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := ParseEvent(element(t, c.in))
			got := "nothing"
			switch {
			case err != nil:
				if got = "refused"; !errors.Is(err, ErrEvent) {
					t.Errorf("error %v", err)
				}
			case e != nil:
				var items []string
				for _, i := range e.Items {
					id := i.ID + ":"
					if i.Payload != nil {
						id += i.Payload.Name.Local
					}
					items = append(items, id)
				}
				got = fmt.Sprintf("%s %s %v %v %v", e.Account, e.Node, items, e.Retracted, e.Cleared)
			}
			if got != c.want {
				t.Errorf("got %q, not %q", got, c.want)
			}
		})
	}
}
