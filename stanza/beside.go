package stanza

// Encryption returns the element that tells clients which cannot decrypt a
// message how it is encrypted (XEP-0380). It is never evidence of encryption.
func Encryption(namespace string) *Element {
	return NewElement(NSEME, "encryption").SetAttribute("namespace", namespace).SetAttribute("name", "OMEMO")
}

// Store returns the hint that makes servers archive a message without a body
// (XEP-0334).
func Store() *Element { return NewElement(NSHints, "store") }

// OriginID returns the id that a sender gives its message for good (XEP-0359).
func OriginID(id string) *Element {
	return NewElement(NSSID, "origin-id").SetAttribute("id", id)
}

// Namespaces that only the tables below need.
const (
	nsAddress  = "http://jabber.org/protocol/address"
	nsCarbons  = "urn:xmpp:carbons:2"
	nsArchive  = "urn:xmpp:mam:2"
	nsEvent    = "http://jabber.org/protocol/pubsub#event"
	nsRoomUser = "http://jabber.org/protocol/muc#user"
	nsStreams  = "http://etherx.jabber.org/streams"
)

// Outside reports whether an element may stand beside <encrypted/>. Whatever
// else is found there in a received message is not part of it: anybody on the
// way could have added it. What may:
//
//	{urn:xmpp:hints}store, no-store, no-copy, no-permanent-store
//	                                  for servers, XEP-0334
//	{urn:xmpp:sid:0}origin-id         identity of the stanza, XEP-0359
//	{urn:xmpp:sid:0}stanza-id         set by servers, XEP-0359
//	{urn:xmpp:delay}delay             set by servers, XEP-0203
//	{urn:xmpp:eme:0}encryption        XEP-0380
//	{urn:xmpp:carbons:2}private       for servers, XEP-0280
//	<encrypted/> of either version    XEP-0384
//
// No other element of these namespaces may: a program that looks for a <body/> by
// its local name would take one of theirs for content.
func Outside(e *Element) bool {
	local := e.Name.Local
	switch e.Name.Space {
	case NSHints:
		return local == "store" || local == "no-store" || local == "no-copy" || local == "no-permanent-store"
	case NSSID:
		return local == "origin-id" || local == "stanza-id"
	case NSDelay:
		return local == "delay"
	case NSEME:
		return local == "encryption"
	case nsCarbons:
		return local == "private"
	case NSLegacy, NSV2:
		return local == "encrypted"
	}
	return false
}

// Forbidden reports whether an element must not stand in the content of an
// envelope: what a server has to process or is trusted to have set, what would
// be taken for another stanza or another envelope, and what would be decrypted
// again. In full:
//
//	{urn:xmpp:hints}*, {urn:xmpp:eme:0}*          XEP-0420, section 6
//	{urn:xmpp:sid:0}stanza-id                     XEP-0420, section 6
//	{http://jabber.org/protocol/address}*         XEP-0420, section 6
//	{urn:xmpp:sce:1}*                             parts of an envelope, or a sender that forgot a namespace
//	<encrypted/> of either version
//	message, iq, presence, error                  in jabber:client, jabber:server or none
//	{http://etherx.jabber.org/streams}*           stream errors and features
//	{urn:xmpp:delay}delay                         set by servers
//	{urn:xmpp:carbons:2}*, {urn:xmpp:mam:2}*      set by servers
//	{http://jabber.org/protocol/pubsub#event}*    set by servers
//	{http://jabber.org/protocol/muc#user}*        set by rooms
func Forbidden(e *Element) bool {
	local := e.Name.Local
	switch e.Name.Space {
	case NSHints, NSEME, NSSCE, nsAddress, nsCarbons, nsArchive, nsEvent, nsRoomUser, nsStreams:
		return true
	case NSSID:
		return local == "stanza-id"
	case NSDelay:
		return local == "delay"
	case NSLegacy, NSV2:
		return local == "encrypted"
	case NSClient, "jabber:server", "":
		return local == "message" || local == "iq" || local == "presence" || local == "error"
	}
	return false
}
