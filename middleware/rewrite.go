package middleware

import (
	"encoding/xml"
	"fmt"
	"slices"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// draft is a message of the application, taken apart: what is encrypted, and
// what stays outside.
type draft struct {
	shell     *stanza.Element // the message without what is encrypted
	plaintext omemo.Plaintext
	id, to    string // stanza id; bare JID of the recipient
	transient bool
	group     bool // to is a room, which sends the message back
}

// takeApart splits a message into shell and content. For omemo:2 everything that
// need not stand outside goes into an envelope; for legacy only the text of the
// body can be encrypted, and what else there is is not sent in that version.
func takeApart(e *stanza.Element, own, to string, now time.Time) (*draft, error) {
	d := &draft{to: to, transient: isTransient(e)}
	d.id, _ = e.Attribute("id")
	d.shell = &stanza.Element{Name: xml.Name{Space: stanza.NSClient, Local: "message"}, Attr: attributes(e)}
	if hasText(e) {
		return nil, fmt.Errorf("%w: it holds text outside of any element", ErrMessage)
	}
	envelope := stanza.Envelope{From: own, To: to, Time: now}
	for c := range e.Elements() {
		switch {
		case c.Is(stanza.NSEME, "encryption"): // ours is written
		case outside(c):
			c, err := beside(c)
			if err != nil {
				return nil, err
			}
			d.shell.Append(c)
		case isPrivateMark(c):
			d.shell.Append(c)
		default:
			envelope.Content = append(envelope.Content, c)
		}
	}
	var err error
	if d.plaintext.V2, err = envelope.Marshal(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if body := child(e, "body"); body != nil {
		d.plaintext.Legacy = []byte(body.Text())
	}
	return d, nil
}

// encrypted returns the <encrypted/> element of a sealed message.
func encrypted(m *omemo.Message) *stanza.Element {
	e := stanza.Encrypted{
		Namespace: m.Version.Namespace(), Sender: uint32(m.Sender.Device), IV: m.IV, Payload: m.Payload,
	}
	for _, k := range m.Keys {
		e.Keys = append(e.Keys, stanza.Key{JID: k.JID, Device: uint32(k.Device), Exchange: k.Exchange, Data: k.Data})
	}
	return e.Element()
}

// assemble makes the stanzas of a sealed message: one with an element of each
// version, or one for each version.
func (m *Middleware) assemble(d *draft, sealed *omemo.Sealed, split bool) ([]omemo.Outgoing, error) {
	groups := [][]*omemo.Message{sealed.Messages}
	if split {
		groups = nil
		for _, message := range sealed.Messages {
			groups = append(groups, []*omemo.Message{message})
		}
	}
	var out []omemo.Outgoing
	for i, group := range groups {
		e := d.shell.Clone()
		id := d.id
		if i > 0 {
			id = newID()
		}
		e.SetAttribute("id", id)
		legacy := false
		for _, message := range group {
			e.Append(encrypted(message))
			legacy = legacy || message.Version == omemo.Legacy && message.Payload != nil
		}
		// One hint is for one version; the first is the newest.
		e.Append(stanza.Encryption(group[0].Version.Namespace()))
		if !d.transient {
			ensure(e, stanza.Store())
		}
		if e.Child(stanza.NSSID, "origin-id") == nil {
			e.Append(stanza.OriginID(id))
		}
		if legacy {
			e.Append(stanza.NewText(stanza.NSClient, "body", m.config.Fallback))
		}
		raw := e.AppendXML(nil)
		if len(raw) > m.config.MaxStanza {
			exchanges := 0
			for _, message := range group {
				for _, key := range message.Keys {
					if key.Exchange {
						exchanges++
					}
				}
			}
			return nil, &sizeError{len(raw), len(raw) - exchanges*exchangeSize}
		}
		o := omemo.Outgoing{ID: id, Chat: d.to, Stanza: raw, Transient: d.transient}
		if d.group && i == 0 {
			o.Echo = echo(d, group[0])
		}
		out = append(out, o)
	}
	return out, nil
}

// ensure adds a hint unless the application has decided about storing itself.
func ensure(e *stanza.Element, hint *stanza.Element) {
	for c := range e.Elements() {
		if c.Name.Space == stanza.NSHints {
			switch c.Name.Local {
			case "store", "no-store", "no-permanent-store":
				return
			}
		}
	}
	e.Append(hint)
}

// plain returns a received message with its decrypted content: the attributes
// of the stanza and what may stand outside, the content from inside, and Info as
// the last child. Nothing else of what came is kept: anybody could have added it.
func plain(e *stanza.Element, content []*stanza.Element, info Info) *stanza.Element {
	out := &stanza.Element{Name: e.Name, Attr: attributes(e)}
	for c := range e.Elements() {
		if outside(c) && c.Name.Space != stanza.NSEME {
			out.Append(leaf(c))
		}
	}
	for _, c := range content {
		stripInfo(c)
		if c.Name.Space != NSInfo {
			out.Append(c)
		}
	}
	stripInfo(out)
	out.Append(info.element())
	return out
}

// leaf returns an element without those in it: none that may stand outside has
// any.
func leaf(e *stanza.Element) *stanza.Element {
	out := &stanza.Element{Name: e.Name, Attr: e.Attr}
	if text := e.Text(); text != "" {
		out.Children = []stanza.Node{{Text: text}}
	}
	return out
}

// attributes returns the attributes of a message that RFC 6120 (section 8.1)
// knows. Others could hold content.
func attributes(e *stanza.Element) []xml.Attr {
	var known []xml.Attr
	for _, a := range e.Attr {
		switch {
		case a.Name.Space == "" && slices.Contains([]string{"to", "from", "id", "type"}, a.Name.Local),
			a.Name.Local == "lang" && a.Name.Space != "":
			known = append(known, a)
		}
	}
	return known
}

// failureOf returns the error stanza that tells the application that its message
// was not sent (RFC 6120, section 8.3). It never leaves the front session.
func failureOf(e *stanza.Element, own string, err error) *stanza.Element {
	condition, typ := condition(err)
	reply := stanza.NewElement(stanza.NSClient, "message").SetAttribute("type", "error")
	if id, ok := e.Attribute("id"); ok {
		reply.SetAttribute("id", id)
	}
	if to, ok := e.Attribute("to"); ok {
		reply.SetAttribute("from", to)
	}
	reply.SetAttribute("to", own)
	const ns = "urn:ietf:params:xml:ns:xmpp-stanzas"
	reply.Append(stanza.NewElement(stanza.NSClient, "error",
		stanza.NewElement(ns, condition),
		stanza.NewText(ns, "text", err.Error()),
	).SetAttribute("type", typ))
	return reply
}
