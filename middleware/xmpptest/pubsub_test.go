package xmpptest

import (
	"fmt"
	"strings"
	"testing"
)

func form(formType string, fields ...string) string {
	b := "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>" + formType + "</value></field>"
	for i := 0; i+1 < len(fields); i += 2 {
		b += "<field var='pubsub#" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
	}
	return b + "</x>"
}

func pubsub(inner string) string { return "<pubsub xmlns='" + nsPubsub + "'>" + inner + "</pubsub>" }

func owner(inner string) string {
	return "<pubsub xmlns='" + nsPubsubOwner + "'>" + inner + "</pubsub>"
}

// publish makes a request that publishes text, with options.
func publish(node, id, text string, options ...string) string {
	inner := fmt.Sprintf("<publish node='%s'><item id='%s'><t xmlns='urn:t'>%s</t></item></publish>", node, id, text)
	if len(options) > 0 {
		inner += "<publish-options>" + form(formPublishOptions, options...) + "</publish-options>"
	}
	return pubsub(inner)
}

func configure(node string, fields ...string) string {
	return owner("<configure node='" + node + "'>" + form(formNodeConfig, fields...) + "</configure>")
}

func fetch(node, attrs, inner string) string {
	return pubsub("<items node='" + node + "' " + attrs + ">" + inner + "</items>")
}

// TestPubsub runs requests of the owner, a contact and a stranger, one after the other.
func TestPubsub(t *testing.T) {
	type step struct{ who, kind, request, want string } // condition of the error, or items as id=text
	for _, test := range []struct {
		name    string
		options []Option
		steps   []step
	}{
		{"defaults of a node", nil, []step{
			{"owner", "set", publish("n", "1", "one"), "1="},
			{"owner", "set", publish("n", "2", "two"), "2="},
			{"owner", "get", fetch("n", "", ""), "2=two"},
			{"contact", "get", fetch("n", "", ""), "2=two"},
			{"stranger", "get", fetch("n", "", ""), "auth not-authorized presence-subscription-required"},
		}},
		{"access models", nil, []step{
			{"owner", "set", publish("open", "1", "x", "access_model", "open"), "1="},
			{"stranger", "get", fetch("open", "", ""), "1=x"},
			{"owner", "set", publish("closed", "1", "x", "access_model", "whitelist"), "1="},
			{"owner", "get", fetch("closed", "", ""), "1=x"},
			{"contact", "get", fetch("closed", "", ""), "cancel not-allowed closed-node"},
			{"owner", "set", publish("other", "1", "x", "access_model", "roster"), "modify not-acceptable"},
			{"owner", "get", fetch("other", "", ""), "cancel item-not-found"},
		}},
		{"options are conditions of an existing node", nil, []step{
			{"owner", "set", publish("n", "1", "x", "access_model", "open"), "1="},
			{"owner", "set", publish("n", "2", "y", "access_model", "presence"), "cancel conflict precondition-not-met"},
			{"owner", "set", publish("n", "2", "y", "access_model", "open", "max_items", "2"), "cancel conflict precondition-not-met"},
			{"owner", "get", fetch("n", "", ""), "1=x"},
			{"owner", "set", configure("n", "max_items", "2"), ""},
			{"owner", "set", publish("n", "2", "y", "access_model", "open", "max_items", "2", "persist_items", "true"), "2="},
			{"owner", "get", fetch("n", "", ""), "1=x 2=y"},
			{"owner", "set", publish("n", "3", "z", "unknown", "1"), "3="},
		}},
		{"max_items", nil, []step{
			{"owner", "set", publish("n", "1", "a", "max_items", "max"), "1="},
			{"owner", "set", publish("n", "2", "b", "max_items", "max"), "2="},
			{"owner", "set", publish("n", "3", "c"), "3="},
			{"owner", "set", publish("n", "1", "d"), "1="},
			{"owner", "get", fetch("n", "", ""), "2=b 3=c 1=d"},
			{"owner", "get", fetch("n", "max_items='2'", ""), "3=c 1=d"},
			{"owner", "get", fetch("n", "max_items='9'", ""), "2=b 3=c 1=d"},
			{"owner", "get", fetch("n", "max_items='0'", ""), "modify bad-request"},
			{"owner", "get", fetch("n", "", "<item id='1'/><item id='2'/><item id='9'/>"), "1=d 2=b"},
			{"owner", "set", configure("n", "max_items", "2"), ""},
			{"owner", "get", fetch("n", "", ""), "3=c 1=d"},
			{"owner", "set", configure("n", "max_items", "1001"), "modify not-acceptable"},
			{"owner", "set", configure("n", "max_items", "0"), "modify not-acceptable"},
			{"owner", "set", configure("n", "persist_items", "maybe"), "modify not-acceptable"},
		}},
		{"persist_items", nil, []step{
			{"owner", "set", publish("n", "1", "a", "persist_items", "false"), "1="},
			{"owner", "get", fetch("n", "", ""), ""},
		}},
		{"retract", nil, []step{
			{"owner", "set", pubsub("<retract node='n'><item id='1'/></retract>"), "cancel item-not-found"},
			{"owner", "set", publish("n", "1", "a"), "1="},
			{"contact", "set", pubsub("<retract node='n'><item id='1'/></retract>"), "auth forbidden"},
			{"owner", "set", pubsub("<retract node='n'/>"), "modify bad-request item-required"},
			{"owner", "set", pubsub("<retract node='n'><item id='2'/></retract>"), "cancel item-not-found"},
			{"owner", "set", pubsub("<retract node='n'><item id='1'/></retract>"), ""},
			{"owner", "get", fetch("n", "", ""), ""},
		}},
		{"owner requests", nil, []step{
			{"owner", "set", owner("<delete node='n'/>"), "cancel item-not-found"},
			{"owner", "set", publish("n", "1", "a"), "1="},
			{"contact", "set", owner("<delete node='n'/>"), "auth forbidden"},
			{"contact", "set", configure("n", "access_model", "open"), "auth forbidden"},
			{"contact", "get", owner("<configure node='n'/>"), "auth forbidden"},
			{"owner", "set", configure("n"), ""},
			{"owner", "set", owner("<configure node='n'/>"), "modify bad-request"},
			{"owner", "set", owner("<configure node='n'>" + form("urn:x") + "</configure>"), "modify bad-request"},
			{"owner", "set", owner("<configure node='n'><x xmlns='jabber:x:data' type='cancel'/></configure>"), ""},
			{"owner", "set", owner("<purge node='n'/>"), ""},
			{"owner", "get", fetch("n", "", ""), ""},
			{"owner", "set", owner("<delete node='n'/>"), ""},
			{"owner", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"owner", "get", owner("<affiliations node='n'/>"), "cancel feature-not-implemented"},
		}},
		{"create", nil, []step{
			{"owner", "set", pubsub("<create node='n'/><configure>" + form(formNodeConfig, "access_model", "open", "max_items", "max") + "</configure>"), ""},
			{"stranger", "get", fetch("n", "", ""), ""},
			{"owner", "set", pubsub("<create node='n'/>"), "cancel conflict"},
			{"owner", "set", pubsub("<create/>"), "modify not-acceptable nodeid-required"},
			{"owner", "set", pubsub("<create node='m'/><configure>" + form("urn:x") + "</configure>"), "modify bad-request"},
			{"owner", "set", pubsub("<create node='m'/><configure/>"), ""},
		}},
		{"malformed", nil, []step{
			{"owner", "set", pubsub(""), "modify bad-request"},
			{"owner", "set", pubsub("<publish node='n'/>"), "modify bad-request item-required"},
			{"owner", "set", pubsub("<publish node='n'><item/></publish>"), "modify bad-request invalid-payload"},
			{"owner", "set", pubsub("<publish node='n'><item><a/><b/></item></publish>"), "modify bad-request invalid-payload"},
			{"owner", "set", pubsub("<publish><item><a/></item></publish>"), "modify bad-request nodeid-required"},
			{"owner", "set", pubsub("<publish node='n'><item><a/></item></publish><publish-options/>"), "modify bad-request"},
			{"owner", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"owner", "set", pubsub("<subscribe node='n' jid='romeo@example.net'/>"), "cancel feature-not-implemented"},
		}},
		{"somebody else's node", nil, []step{
			{"contact", "set", publish("n", "1", "a"), "auth forbidden"},
			{"owner", "set", publish("n", "1", "a"), "1="},
			{"contact", "set", publish("n", "2", "b"), "auth forbidden"},
			{"owner", "set", configure("n", "publish_model", "open", "max_items", "2"), ""},
			{"contact", "set", publish("n", "2", "b"), "2="},
			{"owner", "get", fetch("n", "", ""), "1=a 2=b"},
		}},
		{"refuse max_items", []Option{RefuseMaxItems()}, []step{
			{"owner", "set", publish("n", "1", "a", "access_model", "open", "max_items", "max"), "wait resource-constraint"},
			{"owner", "set", publish("n", "1", "a", "access_model", "open", "max_items", "1"), "wait resource-constraint"},
			{"owner", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"owner", "set", publish("n", "1", "a", "access_model", "open"), "1="},
			{"owner", "set", configure("n", "max_items", "max"), ""},
			{"owner", "set", publish("n", "2", "b", "access_model", "open"), "2="},
			{"stranger", "get", fetch("n", "", ""), "1=a 2=b"},
		}},
		{"strangers", nil, []step{
			{"stranger", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"contact", "get", fetch("n", "", ""), "cancel item-not-found"},
		}},
		{"forbid strangers", []Option{ForbidStrangers()}, []step{
			{"stranger", "get", fetch("n", "", ""), "auth forbidden"},
			{"contact", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"owner", "get", fetch("n", "", ""), "cancel item-not-found"},
			{"owner", "set", publish("n", "1", "x"), "1="},
			{"stranger", "get", fetch("n", "", ""), "auth forbidden"},
			{"contact", "get", fetch("n", "", ""), "1=x"},
			{"owner", "set", publish("o", "1", "x", "access_model", "open"), "1="},
			{"stranger", "get", fetch("o", "", ""), "1=x"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := newServer(t, test.options...)
			if err := srv.Befriend("romeo@example.net", "juliet@example.net"); err != nil {
				t.Fatal(err)
			}
			peers := map[string]*peer{
				"owner":    login(t, srv, "romeo@example.net/a"),
				"contact":  login(t, srv, "juliet@example.net/a"),
				"stranger": login(t, srv, "tybalt@example.net/a"),
			}
			for i, step := range test.steps {
				e := peers[step.who].iq(step.kind, "romeo@example.net", step.request)
				got := condition(e)
				if got == "" {
					got = listed(e)
				}
				if got != step.want {
					t.Errorf("step %d, %s %s: got %q, want %q", i, step.who, step.request, got, step.want)
				}
			}
		})
	}
}

// listed names the items in an answer.
func listed(answer *element) string {
	var found []string
	for _, p := range answer.elements() {
		for _, list := range p.elements() {
			for _, it := range list.elements() {
				if it.name.Local == "item" {
					found = append(found, it.get("id")+"="+allText(it))
				}
			}
		}
	}
	return strings.Join(found, " ")
}

func TestPubsubOfNobody(t *testing.T) {
	for want, options := range map[string][]Option{"cancel item-not-found": nil, "auth forbidden": {ForbidStrangers()}} {
		p := login(t, newServer(t, options...), "romeo@example.net/a")
		if got := condition(p.iq("get", "nobody@example.net", fetch("n", "", ""))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPubsubForms(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/a")
	p.iq("set", "", publish("n", "", "x", "access_model", "open", "max_items", "max", "title", "T"))
	for request, child := range map[string]string{
		owner("<configure node='n'/>"): "configure",
		owner("<default/>"):            "default",
	} {
		e := p.iq("get", "", request)
		fields := map[string]string{}
		for _, f := range e.child(nsPubsubOwner, "pubsub").child(nsPubsubOwner, child).child(nsForm, "x").elements() {
			fields[f.get("var")] = allText(f)
		}
		want := map[string]string{"FORM_TYPE": formNodeConfig, "pubsub#access_model": "open", "pubsub#max_items": "max",
			"pubsub#title": "T", "pubsub#persist_items": "1"}
		if child == "default" {
			want = map[string]string{"pubsub#access_model": "presence", "pubsub#max_items": "1"}
		}
		for name, value := range want {
			if fields[name] != value {
				t.Errorf("%s: %s is %q, want %q", child, name, fields[name], value)
			}
		}
	}
	if items, err := srv.Items(p.bare, "n"); err != nil || len(items) != 1 || items[0].ID == "" || string(items[0].Payload) != "<t xmlns='urn:t'>x</t>" {
		t.Errorf("items %q, %v", items, err)
	}
	if e := p.iq("get", "", "<query xmlns='"+nsItems+"'/>"); len(e.elements()[0].elements()) != 1 {
		t.Errorf("disco#items: %s", e.xml())
	}
	if e := p.iq("get", "", "<query xmlns='"+nsInfo+"' node='n'/>"); e.elements()[0].get("node") != "n" {
		t.Errorf("disco#info of the node: %s", e.xml())
	}
}

func TestPayloadKeepsItsNamespaces(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/a")
	p.iq("set", "", pubsub("<publish node='n'><item id='1' xmlns:p='urn:p'><p:list><p:device p:id='1'/><e xmlns=''/></p:list></item></publish>"))
	e := p.iq("get", "", fetch("n", "", ""))
	list := e.child(nsPubsub, "pubsub").child(nsPubsub, "items").child(nsPubsub, "item").child("urn:p", "list")
	if list == nil || list.child("urn:p", "device").attr[0].Name.Space != "urn:p" || list.child("", "e") == nil {
		t.Errorf("got %s", e.xml())
	}
}
