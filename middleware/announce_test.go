package middleware_test

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"
)

// discoInfo is an answer to disco#info as a test reads it.
type discoInfo struct {
	XMLName    xml.Name        `xml:"http://jabber.org/protocol/disco#info query"`
	Node       string          `xml:"node,attr"`
	Identities []discoIdentity `xml:"identity"`
	Features   []discoFeature  `xml:"feature"`
	Forms      []discoForm     `xml:"jabber:x:data x"`
}

type discoIdentity struct {
	Category string `xml:"category,attr"`
	Type     string `xml:"type,attr"`
	Lang     string `xml:"http://www.w3.org/XML/1998/namespace lang,attr"`
	Name     string `xml:"name,attr"`
}

type discoFeature struct {
	Var string `xml:"var,attr"`
}

type discoForm struct {
	Fields []discoField `xml:"field"`
}

type discoField struct {
	Var    string   `xml:"var,attr"`
	Values []string `xml:"value"`
}

func (d discoInfo) has(feature string) bool {
	for _, f := range d.Features {
		if f.Var == feature {
			return true
		}
	}
	return false
}

// ver computes the verification string of XEP-0115, section 5.1.
func (d discoInfo) ver() string {
	var s strings.Builder
	slices.SortFunc(d.Identities, func(a, b discoIdentity) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Lang, b.Lang))
	})
	for _, i := range d.Identities {
		fmt.Fprintf(&s, "%s/%s/%s/%s<", i.Category, i.Type, i.Lang, i.Name)
	}
	slices.SortFunc(d.Features, func(a, b discoFeature) int { return cmp.Compare(a.Var, b.Var) })
	for _, f := range d.Features {
		s.WriteString(f.Var + "<")
	}
	typ := func(f discoForm) string {
		for _, field := range f.Fields {
			if field.Var == "FORM_TYPE" {
				return field.Values[0]
			}
		}
		return ""
	}
	slices.SortFunc(d.Forms, func(a, b discoForm) int { return cmp.Compare(typ(a), typ(b)) })
	for _, f := range d.Forms {
		s.WriteString(typ(f) + "<")
		slices.SortFunc(f.Fields, func(a, b discoField) int { return cmp.Compare(a.Var, b.Var) })
		for _, field := range f.Fields {
			if field.Var == "FORM_TYPE" {
				continue
			}
			s.WriteString(field.Var + "<")
			for _, v := range slices.Sorted(slices.Values(field.Values)) {
				s.WriteString(v + "<")
			}
		}
	}
	sum := sha1.Sum([]byte(s.String()))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// announcedCaps returns the caps of the last presence that a client has broadcast.
func announcedCaps(t *testing.T, srv *xmpptest.Server, account string) (node, ver string) {
	t.Helper()
	for _, s := range slices.Backward(srv.Wire()) {
		if !fromTo(account, "<presence")(s) || strings.Contains(string(s.XML), "unavailable") {
			continue
		}
		var p struct {
			Caps []struct {
				Node string `xml:"node,attr"`
				Ver  string `xml:"ver,attr"`
				Hash string `xml:"hash,attr"`
			} `xml:"http://jabber.org/protocol/caps c"`
		}
		if err := xml.Unmarshal(s.XML, &p); err != nil {
			t.Fatal(err)
		}
		if len(p.Caps) != 1 || p.Caps[0].Hash != "sha-1" {
			t.Fatalf("presence: %s", s.XML)
		}
		return p.Caps[0].Node, p.Caps[0].Ver
	}
	t.Fatal("no presence")
	return "", ""
}

// ask asks for disco#info.
func (p *program) ask(of jid.JID, node string) discoInfo {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	var answer discoInfo
	iq := stanza.IQ{Type: stanza.GetIQ, To: of}
	if err := p.session.UnmarshalIQElement(ctx, disco.InfoQuery{Node: node}.TokenReader(), iq, &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer
}

var ourFeatures = []string{
	"http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/caps",
	nsV2Devices + "+notify", nsLegacyDevices + "+notify",
}

// own is an answer of an application that describes itself in full.
const own = `<query xmlns="http://jabber.org/protocol/disco#info">` +
	`<identity category="client" type="pc" name="Psi &lt;1&gt;" xml:lang="en"/><identity category="client" type="pc" name="&#936;" xml:lang="el"/>` +
	`<identity category="automation" type="command-list"/>` +
	`<feature var="urn:z"/><feature var="http://jabber.org/protocol/caps"/><feature var="urn:a"/><feature var="urn:a:b"/>` +
	`<x xmlns="jabber:x:data" type="result"><field var="FORM_TYPE" type="hidden"><value>urn:z:form</value></field>` +
	`<field var="b"><value>2</value><value>1</value></field><field var="a"><value>x &amp; y</value></field></x>` +
	`<x xmlns="jabber:x:data" type="result"><field var="FORM_TYPE" type="hidden"><value>urn:a:form</value></field>` +
	`<field var="os"><value>Mac</value></field></x></query>`

func TestAnnounce(t *testing.T) {
	answerAll := func(e xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local != "iq" {
			return nil
		}
		iq, err := stanza.NewIQ(*start)
		if err != nil || iq.Type != stanza.GetIQ {
			return err
		}
		_, err = xmlstream.Copy(e, iq.Result(raw(own)))
		if err == io.EOF {
			err = nil
		}
		return err
	}
	for name, tc := range map[string]struct {
		handler  xmpp.Handler
		features []string
	}{
		"without a handler for features": {newRecorder(), nil},
		"mellium's handler":              {mux.New(stanza.NSClient, disco.Handle()), nil},
		"own handler":                    {xmpp.HandlerFunc(answerAll), []string{"urn:z", "urn:a"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a := load(t, romeo, chat(omemo.V2)).attach(login(t, srv, romeo), tc.handler)
			b := plain(t).attach(login(t, srv, juliet), nil)
			features := append(slices.Clone(ourFeatures), tc.features...)
			check := func(what string, d discoInfo) {
				t.Helper()
				for _, f := range features {
					if !d.has(f) {
						t.Errorf("%s lacks %s: %+v", what, f, d.Features)
					}
				}
				seen := make(map[string]bool)
				for _, f := range d.Features {
					if seen[f.Var] {
						t.Errorf("%s names %s twice", what, f.Var)
					}
					seen[f.Var] = true
				}
				if len(d.Identities) == 0 {
					t.Errorf("%s has no identity", what)
				}
			}
			full := a.session.LocalAddr()
			// The application is asked when the first presence leaves.
			var node, ver string
			until(t, "features announced", func() bool {
				node, ver = announcedCaps(t, srv, romeo)
				d := b.ask(full, node+"#"+ver)
				for _, f := range tc.features {
					if !d.has(f) {
						return false
					}
				}
				return true
			})
			d := b.ask(full, node+"#"+ver)
			check("node", d)
			if d.Node != node+"#"+ver {
				t.Errorf("node %q", d.Node)
			}
			if got := d.ver(); got != ver {
				t.Errorf("hash %s, announced %s: %+v", got, ver, d)
			}
			direct := b.ask(full, "")
			check("answer", direct)
			if got := direct.ver(); got != ver {
				t.Errorf("what is answered without a node is something else: %+v", direct)
			}
			// The question to the application is nobody else's business.
			for _, s := range srv.Wire() {
				if strings.Contains(string(s.XML), "-features") {
					t.Errorf("on the wire: %s", s.XML)
				}
			}
			// What was announced first is still answered.
			for _, s := range srv.Wire() {
				var p struct {
					XMLName xml.Name
					Caps    struct {
						Ver string `xml:"ver,attr"`
					} `xml:"http://jabber.org/protocol/caps c"`
				}
				if fromTo(romeo, "<presence")(s) && xml.Unmarshal(s.XML, &p) == nil && p.Caps.Ver != "" {
					if d := b.ask(full, node+"#"+p.Caps.Ver); d.ver() != p.Caps.Ver {
						t.Errorf("hash %s, announced %s", d.ver(), p.Caps.Ver)
					}
				}
			}
		})
	}
}

// Only broadcast presence is touched, and holds one caps element: ours.
func TestAnnouncePresence(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, chat(omemo.V2))
	const theirs = `<c xmlns="http://jabber.org/protocol/caps" hash="sha-1" node="urn:theirs" ver="QgayPKawpkPSDYmwT/WM94uAlu0="/>`
	for i, tc := range []struct {
		presence string
		caps     int
		theirs   bool
	}{
		{`<presence id="%s"/>`, 1, false},
		{`<presence id="%s"><status>busy</status><priority>5</priority></presence>`, 1, false},
		{`<presence id="%s">` + theirs + `</presence>`, 1, false},
		{`<presence id="%s" to="juliet@example.net">` + theirs + `</presence>`, 1, true},
		{`<presence id="%s" to="juliet@example.net"/>`, 0, false},
		{`<presence id="%s" to="juliet@example.net" type="subscribe"/>`, 0, false},
		{`<presence id="%s" type="unavailable"/>`, 0, false},
	} {
		id := fmt.Sprintf("p%d", i)
		if err := a.session.Send(t.Context(), raw(fmt.Sprintf(tc.presence, id))); err != nil {
			t.Fatal(err)
		}
		a.flush()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		s, err := srv.Await(ctx, fromTo(romeo, `id="`+id+`"`))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		got := string(s.XML)
		if strings.Count(got, "protocol/caps") != tc.caps || strings.Contains(got, "urn:theirs") != tc.theirs {
			t.Errorf("%s became %s", tc.presence, got)
		}
		if strings.Contains(tc.presence, "busy") && !(strings.Contains(got, "busy") && strings.Contains(got, "<priority>5</priority>")) {
			t.Errorf("%s became %s", tc.presence, got)
		}
	}
}

// Servers send device lists to those who have announced that they want them:
// a device that a contact adds gets the next message.
func TestNotifications(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			if err := srv.Befriend(romeo, juliet); err != nil {
				t.Fatal(err)
			}
			a := connected(t, srv, romeo, chat(v))
			b := connected(t, srv, juliet+"/one", chat(v))
			a.say(juliet, "to one device")
			b.awaitText("to one device")
			later := connected(t, srv, juliet+"/two", chat(v))
			device, err := later.om.Manager().Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			a.await("the list with the new device", func() bool {
				_, devices, err := a.om.Manager().Account(t.Context(), juliet)
				if err != nil {
					t.Fatal(err)
				}
				return slices.ContainsFunc(devices, func(d omemo.Device) bool { return d.Address == device && d.Active && d.Version == v })
			})
			a.say(juliet, "to both devices")
			b.awaitText("to both devices")
			later.awaitText("to both devices")
			noLeak(t, srv, "to one", "to both")
			if n := a.count(middleware.SendFailed); n != 0 {
				t.Errorf("%d failures", n)
			}
		})
	}
}
