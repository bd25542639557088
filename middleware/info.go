package middleware

import (
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strconv"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// NSInfo is the namespace of Info. Elements of it exist only between the
// middleware and the application: they are removed from whatever comes from the
// network or goes there, at every depth.
const NSInfo = "urn:xmpp:omellium:info:0"

// Info says who has sent a decrypted message. It is the last child of every
// message that was decrypted, and of no other: a handler finds it with
//
//	<info xmlns='urn:xmpp:omellium:info:0' account='romeo@example.net' device='4223'
//	      version='omemo:2' fingerprint='…64 hexadecimal digits…' trust='trusted blindly'
//	      event='…' first='true' authenticated='true' bound='true' padded='true' skewed='false' own='false'/>
type Info struct {
	Account     string // bare JID, verified
	Device      omemo.DeviceID
	Version     omemo.Version
	Fingerprint omemo.Fingerprint
	Trust       omemo.Trust // when it was decrypted
	// Event names the message: whoever handles messages twice after a crash can
	// tell by it.
	Event string
	// First: the first message from this device.
	First bool
	// Authenticated is false if any recipient of the message could have written
	// the text (very old legacy clients, if they are read at all).
	Authenticated bool
	// Bound: what is encrypted says who sent it and to whom, and that is so. In
	// legacy it never does: a server, or a recipient, can have taken the message
	// from another chat of the same two devices.
	Bound bool
	// Padded: the envelope hid the length of the text. Never so in legacy.
	Padded bool
	// Skewed: the message says that it was written at another time than that at
	// which the server had it, by more than TimeWindow.
	Skewed bool
	// Own: this very device has sent the message to a room, which has sent it
	// back.
	Own bool
}

func (i Info) element() *stanza.Element {
	return stanza.NewElement(NSInfo, "info").
		SetAttribute("account", i.Account).
		SetAttribute("device", strconv.FormatUint(uint64(i.Device), 10)).
		SetAttribute("version", i.Version.String()).
		SetAttribute("fingerprint", hex.EncodeToString(i.Fingerprint[:])).
		SetAttribute("trust", i.Trust.String()).
		SetAttribute("event", i.Event).
		SetAttribute("first", strconv.FormatBool(i.First)).
		SetAttribute("authenticated", strconv.FormatBool(i.Authenticated)).
		SetAttribute("bound", strconv.FormatBool(i.Bound)).
		SetAttribute("padded", strconv.FormatBool(i.Padded)).
		SetAttribute("skewed", strconv.FormatBool(i.Skewed)).
		SetAttribute("own", strconv.FormatBool(i.Own))
}

// UnmarshalXML reads the element, so that Info can be a field of a message
// struct with the tag `xml:"urn:xmpp:omellium:info:0 info"`.
func (i *Info) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	if start.Name.Space != NSInfo || start.Name.Local != "info" {
		return fmt.Errorf("middleware: not an info element: %s", start.Name.Local)
	}
	var info Info
	for _, a := range start.Attr {
		var err error
		switch a.Name.Local {
		case "account":
			info.Account = a.Value
		case "device":
			var n uint64
			n, err = strconv.ParseUint(a.Value, 10, 32)
			info.Device = omemo.DeviceID(n)
		case "version":
			for _, v := range omemo.Versions() {
				if v.String() == a.Value {
					info.Version = v
				}
			}
		case "fingerprint":
			info.Fingerprint, err = omemo.ParseFingerprint(a.Value)
		case "trust":
			for t := omemo.Undecided; t <= omemo.Distrusted; t++ {
				if t.String() == a.Value {
					info.Trust = t
				}
			}
		case "event":
			info.Event = a.Value
		case "first":
			info.First = a.Value == "true"
		case "authenticated":
			info.Authenticated = a.Value == "true"
		case "padded":
			info.Padded = a.Value == "true"
		case "skewed":
			info.Skewed = a.Value == "true"
		case "own":
			info.Own = a.Value == "true"
		case "bound":
			info.Bound = a.Value == "true"
		}
		if err != nil {
			return fmt.Errorf("middleware: info element: %w", err)
		}
	}
	*i = info
	return d.Skip()
}

// stripInfo removes every trace of our namespace below e.
func stripInfo(e *stanza.Element) {
	e.Remove(func(c *stanza.Element) bool { return c.Name.Space == NSInfo })
	strip := func(attr []xml.Attr) []xml.Attr {
		kept := attr[:0]
		for _, a := range attr {
			if a.Name.Space != NSInfo {
				kept = append(kept, a)
			}
		}
		return kept
	}
	var walk func(*stanza.Element)
	walk = func(e *stanza.Element) {
		e.Attr = strip(e.Attr)
		for c := range e.Elements() {
			walk(c)
		}
	}
	walk(e)
}
