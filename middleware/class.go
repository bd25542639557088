package middleware

import (
	"slices"
	"strings"

	"example.org/omellium/middleware/internal/front"
	"example.org/omellium/stanza"
)

// class is what the middleware does with a stanza. The rules are applied in the
// order of the constants: the first that fits decides.
type class int

const (
	other       class = iota // no message: passes
	failure                  // type='error'
	event                    // a notification of a node, or word from our own server
	roomSignal               // about a room, without content
	roomContent              // in a room
	signalling               // receipts, markers, chat states, without body
	empty                    // nothing in it that anybody could read
	content                  // everything else
)

// Namespaces that decide about the class of a message.
const (
	nsPubsubEvent = "http://jabber.org/protocol/pubsub#event"
	nsRoomUser    = "http://jabber.org/protocol/muc#user"
	nsConference  = "jabber:x:conference"
	nsData        = "jabber:x:data"
	nsReceipts    = "urn:xmpp:receipts"
	nsMarkers     = "urn:xmpp:chat-markers:0"
	nsChatStates  = "http://jabber.org/protocol/chatstates"
	nsVoice       = "http://jabber.org/protocol/muc#request"
	nsAddress     = "http://jabber.org/protocol/address"
	nsHeaders     = "http://jabber.org/protocol/shim"
)

// elements are those that the namespaces have which decide about a class. What
// else stands in them is content: encoding/xml finds a <body/> by its local name
// in whatever namespace, if it is told none.
var elements = map[string][]string{
	nsPubsubEvent: {"event"},
	nsAddress:     {"addresses"},
	nsHeaders:     {"headers"},
	nsRoomUser:    {"x"},
	nsConference:  {"x"},
	nsData:        {"x"},
	nsCarbons:     {"sent", "received"},
	nsArchive:     {"result"},
	nsReceipts:    {"request", "received"},
	nsMarkers:     {"markable", "received", "displayed", "acknowledged"},
	nsChatStates:  {"active", "inactive", "composing", "paused", "gone"},
}

// isOf reports whether an element is one of those that some namespaces have.
func isOf(e *stanza.Element, spaces ...string) bool {
	return slices.Contains(spaces, e.Name.Space) && slices.Contains(elements[e.Name.Space], e.Name.Local)
}

// classify says what a stanza is. server is the domain of our own account: what
// it says itself needs no encryption.
func classify(e *stanza.Element, fromServer bool) class {
	if !front.IsMessage(e.Name) {
		return other
	}
	typ, _ := e.Attribute("type")
	if typ == "error" {
		return failure
	}
	body := child(e, "body") != nil
	// Servers name the publisher or the subscription beside an event (XEP-0033,
	// XEP-0131).
	if fromServer || !body && e.Child(nsPubsubEvent, "event") != nil && onlyBeside(e, nsPubsubEvent, nsAddress, nsHeaders) {
		return event
	}
	if !body && isRoomSignal(e) {
		return roomSignal
	}
	signal, thread, more := false, child(e, "thread"), hasText(e)
	for c := range e.Elements() {
		switch {
		case outside(c), isPrivateMark(c):
		case c == thread: // clients name the thread of a chat state, too
		case !body && isOf(c, nsReceipts, nsMarkers, nsChatStates):
			signal = true
		default:
			more = true
		}
	}
	switch {
	case !more && signal:
		return signalling
	case !more && thread == nil:
		return empty
	case typ == "groupchat":
		return roomContent
	}
	return content
}

// isOther reports whether a top-level element, not being a message, is one that
// exists: what the stream's own namespace does not know could be a message gone
// wrong, and no server would take it; neither does one take a message of another
// namespace, such as that of components.
func isOther(e *stanza.Element) bool {
	switch e.Name.Space {
	case "", stanza.NSClient, "jabber:server":
		return e.Name.Local == "iq" || e.Name.Local == "presence"
	}
	return e.Name.Local != "message"
}

// outside reports whether an element may stand in clear in any message.
func outside(e *stanza.Element) bool { return stanza.Outside(e) && e.Name.Local != "encrypted" }

// hasText reports whether there is text directly in an element.
func hasText(e *stanza.Element) bool { return strings.TrimSpace(e.Text()) != "" }

// child returns the first child with a local name in a namespace of stanzas. A
// hand-built <body/> has none.
func child(e *stanza.Element, local string) *stanza.Element {
	for c := range e.Elements() {
		if c.Name.Local == local && (c.Name.Space == "" || c.Name.Space == stanza.NSClient || c.Name.Space == "jabber:server") {
			return c
		}
	}
	return nil
}

// onlyBeside reports whether a message holds nothing but the elements of some
// namespaces and what may stand outside an encrypted message: so nobody smuggles
// content in beside a notification.
func onlyBeside(e *stanza.Element, spaces ...string) bool {
	for c := range e.Elements() {
		if !isOf(c, spaces...) && !outside(c) {
			return false
		}
	}
	return !hasText(e)
}

// isRoomSignal: a subject, an invitation, a request for voice, or news of a
// room, and nothing else.
func isRoomSignal(e *stanza.Element) bool {
	if subject := child(e, "subject"); subject != nil {
		typ, _ := e.Attribute("type")
		for c := range e.Elements() {
			if c.Name != subject.Name && !outside(c) {
				return false
			}
		}
		return typ == "groupchat" && !hasText(e)
	}
	if e.Child(nsRoomUser, "x") != nil || e.Child(nsConference, "x") != nil {
		return onlyBeside(e, nsRoomUser, nsConference)
	}
	if form := e.Child(nsData, "x"); form != nil && onlyBeside(e, nsData) {
		for f := range form.Elements() {
			name, _ := f.Attribute("var")
			if value := f.Child(nsData, "value"); name == "FORM_TYPE" && value != nil {
				return value.Text() == nsVoice
			}
		}
	}
	return false
}

// isTransient: chat states are not worth sending again.
func isTransient(e *stanza.Element) bool {
	found := false
	for c := range e.Elements() {
		switch {
		case isOf(c, nsChatStates):
			found = true
		case !outside(c) && c.Name.Local != "thread":
			return false
		}
	}
	return found
}
