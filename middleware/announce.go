package middleware

import (
	"context"
	"crypto/sha1" // #nosec: what entity capabilities are defined with (XEP-0115)
	"encoding/base64"
	"slices"
	"strings"
	"sync"

	"example.org/omellium/devicelist"
	"example.org/omellium/stanza"
)

const (
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
	nsCaps      = "http://jabber.org/protocol/caps"
	capsNode    = "https://example.org/omellium"
	// maxQuestions bounds the questions that wait for the application.
	maxQuestions = 256
)

// announcer tells the server that we want to be sent device lists: servers learn
// it from the capabilities in our presence (XEP-0115, XEP-0163). The
// application's own features are asked for, and announced with ours.
type announcer struct {
	l     *link
	probe string // id of our question to the application

	mu        sync.Mutex
	presence  *stanza.Element            // the application's last broadcast, while it is available
	info      *stanza.Element            // the application's features and ours; nil until a presence was seen
	asked     bool                       // the application was asked
	known     map[string]*stanza.Element // what was announced, by its hash
	questions map[string]bool            // questions about features that wait for the application
}

func (a *announcer) init(l *link) {
	a.l = l
	a.probe = l.requests.prefix + "features"
	a.known = make(map[string]*stanza.Element)
	a.questions = make(map[string]bool)
}

// outgoing looks at an IQ or presence of the application. It reports whether it
// has dealt with it.
func (a *announcer) outgoing(e *stanza.Element) bool {
	switch e.Name.Local {
	case "presence":
		return a.outgoingPresence(e)
	case "iq":
		return a.outgoingIQ(e)
	}
	return false
}

func (a *announcer) outgoingPresence(e *stanza.Element) bool {
	if attribute(e, "to") != "" {
		return false
	}
	written := a.l.present(e)
	a.mu.Lock()
	switch attribute(e, "type") {
	case "":
	case "unavailable":
		a.presence = nil
		fallthrough
	default:
		a.mu.Unlock()
		return false
	}
	a.presence = e
	if a.info == nil {
		a.info = stanza.NewElement(nsDiscoInfo, "query")
		addFeatures(a.info)
	}
	ask := !a.asked
	a.asked = true
	out := a.announced()
	a.mu.Unlock()
	a.write(out)
	written()
	if a.l.unheard.available() {
		signal(a.l.wake)
	}
	if ask {
		question := stanza.NewElement(stanza.NSClient, "iq", stanza.NewElement(nsDiscoInfo, "query")).
			SetAttribute("type", "get").SetAttribute("id", a.probe).
			SetAttribute("from", a.l.m.account.Domainpart()).SetAttribute("to", a.l.full.String())
		a.l.pass(question)
	}
	return true
}

// announced returns the presence with our capabilities in it.
func (a *announcer) announced() *stanza.Element {
	ver := hash(a.info)
	a.known[ver] = a.info
	out := a.presence.Clone()
	out.Remove(func(c *stanza.Element) bool { return c.Is(nsCaps, "c") })
	out.Append(stanza.NewElement(nsCaps, "c").
		SetAttribute("hash", "sha-1").SetAttribute("node", capsNode).SetAttribute("ver", ver))
	return out
}

// outgoingIQ takes the application's answers about its features.
func (a *announcer) outgoingIQ(e *stanza.Element) bool {
	typ, id := attribute(e, "type"), attribute(e, "id")
	if typ != "result" && typ != "error" {
		return false
	}
	query := e.Child(nsDiscoInfo, "query")
	if id == a.probe {
		a.learn(query)
		return true
	}
	a.mu.Lock()
	key := a.questionKey(attribute(e, "to"), id)
	asked := a.questions[key]
	delete(a.questions, key)
	a.mu.Unlock()
	switch {
	case !asked:
		return false
	case typ == "result" && query != nil:
		addFeatures(query)
		a.write(e)
	default: // it does not answer such questions: we do
		query := stanza.NewElement(nsDiscoInfo, "query")
		addFeatures(query)
		answer := stanza.NewElement(stanza.NSClient, "iq", query).SetAttribute("type", "result").SetAttribute("id", id)
		if to, ok := e.Attribute("to"); ok {
			answer.SetAttribute("to", to)
		}
		a.write(answer)
	}
	return true
}

// learn takes over what the application has answered, and announces it if it is
// more than what was announced.
func (a *announcer) learn(query *stanza.Element) {
	if query == nil {
		return
	}
	info := query.Clone()
	info.Attr = nil
	addFeatures(info)
	a.mu.Lock()
	if hash(info) == hash(a.info) || a.presence == nil {
		a.info = info
		a.mu.Unlock()
		return
	}
	a.info = info
	out := a.announced()
	a.mu.Unlock()
	a.write(out)
}

// incoming answers questions about what we have announced, and notes those that
// the application answers itself.
func (a *announcer) incoming(e *stanza.Element) bool {
	query := e.Child(nsDiscoInfo, "query")
	if e.Name.Local != "iq" || attribute(e, "type") != "get" || query == nil {
		return false
	}
	node, from, id := attribute(query, "node"), attribute(e, "from"), attribute(e, "id")
	a.mu.Lock()
	defer a.mu.Unlock()
	if node == "" {
		if len(a.questions) >= maxQuestions {
			clear(a.questions)
		}
		a.questions[a.questionKey(from, id)] = true
		return false
	}
	if len(node) <= len(capsNode)+1 || node[:len(capsNode)+1] != capsNode+"#" {
		return false
	}
	info, ok := a.known[node[len(capsNode)+1:]]
	if !ok {
		return false
	}
	answer := stanza.NewElement(stanza.NSClient, "iq", info.Clone().SetAttribute("node", node)).
		SetAttribute("type", "result").SetAttribute("id", id)
	if from != "" {
		answer.SetAttribute("to", from)
	}
	a.l.reply(answer)
	return true
}

func (a *announcer) write(e *stanza.Element) {
	if err := a.l.front.SendElement(context.WithoutCancel(a.l.ctx), e); err != nil {
		a.l.m.config.Logger.Info("omemo: not written", "error", err)
	}
}

// questionKey names a question. mellium leaves the address of our own account
// out when it hands a stanza over.
func (a *announcer) questionKey(peer, id string) string {
	if a.l.isOwn(peer) {
		peer = ""
	}
	return peer + "\x00" + id
}

// addFeatures adds our features, and an identity if there is none: each answer
// must have one (XEP-0030, section 3.1).
func addFeatures(query *stanza.Element) {
	has := make(map[string]bool)
	identity := false
	for c := range query.Elements() {
		switch c.Name.Local {
		case "feature":
			has[attribute(c, "var")] = true
		case "identity":
			identity = true
		}
	}
	if !identity {
		query.Append(stanza.NewElement(nsDiscoInfo, "identity").
			SetAttribute("category", "client").SetAttribute("type", "bot"))
	}
	for _, feature := range []string{nsDiscoInfo, nsCaps, devicelist.FeatureNotifyLegacy, devicelist.FeatureNotifyV2} {
		if !has[feature] {
			query.Append(stanza.NewElement(nsDiscoInfo, "feature").SetAttribute("var", feature))
		}
	}
}

// hash returns the verification string of our capabilities (XEP-0115, section
// 5.1). mellium's does not order forms.
func hash(query *stanza.Element) string {
	var identities [][4]string
	var features []string
	var forms [][]string
	for c := range query.Elements() {
		switch {
		case c.Is(nsDiscoInfo, "identity"):
			identities = append(identities, [4]string{attribute(c, "category"), attribute(c, "type"), lang(c), attribute(c, "name")})
		case c.Is(nsDiscoInfo, "feature"):
			features = append(features, attribute(c, "var"))
		case c.Is(nsData, "x"):
			forms = append(forms, formParts(c))
		}
	}
	// Sorted as they are, before anything is put between them.
	slices.SortFunc(identities, func(a, b [4]string) int { return slices.Compare(a[:], b[:]) })
	slices.Sort(features)
	slices.SortFunc(forms, slices.Compare)
	var parts []string
	for _, i := range identities {
		parts = append(parts, strings.Join(i[:], "/"))
	}
	parts = append(parts, features...)
	for _, form := range forms {
		parts = append(parts, form...)
	}
	sum := sha1.Sum([]byte(strings.Join(parts, "<") + "<")) // #nosec
	return base64.StdEncoding.EncodeToString(sum[:])
}

// formParts returns what is hashed of a form: its type, then each field's name
// and values in order.
func formParts(form *stanza.Element) []string {
	typ := ""
	var fields [][]string
	for field := range form.Elements() {
		var values []string
		for v := range field.Elements() {
			if v.Is(nsData, "value") {
				values = append(values, v.Text())
			}
		}
		slices.Sort(values)
		switch {
		case !field.Is(nsData, "field"):
		case attribute(field, "var") != "FORM_TYPE":
			fields = append(fields, append([]string{attribute(field, "var")}, values...))
		case len(values) > 0:
			typ = values[0]
		}
	}
	slices.SortFunc(fields, slices.Compare)
	return append([]string{typ}, slices.Concat(fields...)...)
}

// lang returns xml:lang.
func lang(e *stanza.Element) string {
	for _, a := range e.Attr {
		if a.Name.Local == "lang" && a.Name.Space != "" {
			return a.Value
		}
	}
	return ""
}
