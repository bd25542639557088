package stanza

import "testing"

func TestElementsBeside(t *testing.T) {
	for want, e := range map[string]*Element{
		`<encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:omemo:2" name="OMEMO"/>`: Encryption(NSV2),
		`<store xmlns="urn:xmpp:hints"/>`:                                                Store(),
		`<origin-id xmlns="urn:xmpp:sid:0" id="&lt;1&gt;"/>`:                             OriginID("<1>"),
	} {
		if got := string(e.AppendXML(nil)); got != want {
			t.Errorf("wrote %s, not %s", got, want)
		}
		if !Outside(e) {
			t.Errorf("may not stand outside: %s", want)
		}
	}
}

// TestPlaces (attacks D8 and D12) says of each element whether it may stand beside <encrypted/>, and
// whether it may stand in an envelope.
func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		space, local    string
		outside, inside bool
	}{
		{NSHints, "store", true, false},
		{NSHints, "no-copy", true, false},
		{NSSID, "stanza-id", true, false},
		{NSSID, "origin-id", true, true},
		{NSSID, "other", false, true},
		{NSDelay, "delay", true, false},
		{NSEME, "encryption", true, false},
		{NSEME, "other", false, false},
		{nsCarbons, "private", true, false},
		{nsCarbons, "sent", false, false},
		{nsCarbons, "received", false, false},
		{nsArchive, "result", false, false},
		{NSLegacy, "encrypted", true, false},
		{NSV2, "encrypted", true, false},
		{NSV2, "opt-out", false, true},
		{NSSCE, "envelope", false, false},
		{NSSCE, "body", false, false},
		{nsAddress, "addresses", false, false},
		{nsEvent, "event", false, false},
		{nsRoomUser, "x", false, false},
		{nsStreams, "error", false, false},
		{NSClient, "message", false, false},
		{"jabber:server", "iq", false, false},
		{"", "presence", false, false},
		{NSClient, "error", false, false},
		{NSClient, "body", false, true},
		{NSClient, "subject", false, true},
		{NSClient, "thread", false, true},
		{"urn:x", "message", false, true},
		{"urn:xmpp:message-correct:0", "replace", false, true},
		{"urn:xmpp:message-retract:1", "retract", false, true},
		{"urn:xmpp:reactions:0", "reactions", false, true},
		{"urn:xmpp:receipts", "received", false, true},
		{"urn:xmpp:receipts", "request", false, true},
		{"urn:xmpp:chat-markers:0", "displayed", false, true},
		{"http://jabber.org/protocol/chatstates", "composing", false, true},
		{"jabber:x:oob", "x", false, true},
		{"jabber:x:conference", "x", false, true},
		{"urn:xmpp:reply:0", "reply", false, true},
		{"urn:xmpp:fallback:0", "fallback", false, true},
		{"urn:xmpp:forward:0", "forwarded", false, true},
		{"urn:xmpp:jingle-message:0", "propose", false, true},
		{"urn:xmpp:styling:0", "unstyled", false, true},
		{"http://jabber.org/protocol/xhtml-im", "html", false, true},
	} {
		e := NewElement(c.space, c.local)
		if Outside(e) != c.outside {
			t.Errorf("{%s}%s outside: %v", c.space, c.local, !c.outside)
		}
		if Forbidden(e) == c.inside {
			t.Errorf("{%s}%s inside: %v", c.space, c.local, !c.inside)
		}
	}
}
