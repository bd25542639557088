package stanza

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"

	"mellium.im/xmpp/jid"
)

// Padding of an envelope (XEP-0420, section 4.2): it is filled up to a minimum,
// so that short texts cannot be told apart, and a random length is added.
const (
	minEnvelope = 256 // bytes, before the random part
	maxRandom   = 200 // characters
)

// ErrAffix is what the errors of Verify unwrap to.
var ErrAffix = errors.New("stanza: envelope does not belong to this message")

// Errors of Verify.
var (
	ErrFrom = fmt.Errorf("%w: sender", ErrAffix)
	ErrTo   = fmt.Errorf("%w: recipient", ErrAffix)
	// ErrTime is returned only if everything else was right.
	ErrTime = fmt.Errorf("%w: time", ErrAffix)
)

// Envelope is what omemo:2 encrypts (XEP-0420): content, and affixes that bind
// it to its sender, recipient and time.
type Envelope struct {
	// Content holds the elements of the message: at most one body, and none of
	// those that Forbidden names. It may be empty.
	Content []*Element
	// From and To are bare JIDs. Empty means that the affix is absent.
	From, To string
	// Time is when the message was written, in UTC, zero if the affix is absent.
	// It is sent with a precision of seconds.
	Time time.Time
	// Padded tells whether a received envelope had padding. Marshal always pads.
	Padded bool
	// Dropped counts the children of a received content that were not wanted
	// there and are not in Content.
	Dropped int
}

// Marshal returns the envelope as it is encrypted, with fresh random padding.
// Content elements without namespace are taken for elements of jabber:client, as
// they would be in a message. The error is ErrMalformed if Content holds what
// Parse would not let through.
func (e *Envelope) Marshal() ([]byte, error) {
	content := NewElement(NSSCE, "content")
	bodies := 0
	for _, c := range e.Content {
		c = c.Clone()
		qualify(c)
		if Forbidden(c) {
			return nil, fmt.Errorf("%w: <%s/> cannot stand in an envelope", ErrMalformed, c.Name.Local)
		}
		if c.Is(NSClient, "body") {
			bodies++
		}
		content.Append(c)
	}
	if bodies > 1 {
		return nil, fmt.Errorf("%w: two bodies", ErrMalformed)
	}
	padding := NewElement(NSSCE, "rpad")
	envelope := NewElement(NSSCE, "envelope", content, padding)
	if e.From != "" {
		envelope.Append(NewElement(NSSCE, "from").SetAttribute("jid", e.From))
	}
	if e.To != "" {
		envelope.Append(NewElement(NSSCE, "to").SetAttribute("jid", e.To))
	}
	if !e.Time.IsZero() {
		stamp := e.Time.UTC().Format(time.RFC3339) // XEP-0082 DateTime
		envelope.Append(NewElement(NSSCE, "time").SetAttribute("stamp", stamp))
	}

	random, err := rand.Int(rand.Reader, big.NewInt(maxRandom+1))
	if err != nil {
		return nil, fmt.Errorf("stanza: padding: %w", err)
	}
	unpadded := len(envelope.AppendXML(nil))
	if n := max(0, minEnvelope-unpadded) + int(random.Int64()); n > 0 {
		padding.Children = []Node{{Text: randomText(n)}}
	}
	return envelope.AppendXML(make([]byte, 0, unpadded+minEnvelope+maxRandom)), nil
}

// randomText returns n random characters that need no escaping.
func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.RawStdEncoding.EncodeToString(b)[:n]
}

// qualify gives an element without namespace, and its descendants as far as
// they have none either, the namespace of messages. Left alone, they would
// become elements of the envelope's namespace.
func qualify(e *Element) {
	if e.Name.Space != "" {
		return
	}
	e.Name.Space = NSClient
	for c := range e.Elements() {
		qualify(c)
	}
}

// ParseEnvelope reads a decrypted envelope, strictly: one complete element
// within DefaultLimits, exactly one content, each affix at most once, nothing
// but elements in both, addresses and time well-formed. Unknown affixes are
// ignored. Children of the content that Forbidden names are left out and
// counted. More than one body is ErrMalformed, as is everything else that is not
// as it should be, unless it is ErrMarkup or ErrLimit.
func ParseEnvelope(b []byte) (*Envelope, error) {
	root, err := ParseElement(b, DefaultLimits)
	if err != nil {
		return nil, err
	}
	if !root.Is(NSSCE, "envelope") || root.hasText() {
		return nil, fmt.Errorf("%w: not an <envelope/>", ErrMalformed)
	}
	parts := make(map[string]*Element, 5)
	for _, name := range []string{"content", "rpad", "from", "to", "time"} {
		part, ok := root.Only(NSSCE, name)
		if !ok {
			return nil, fmt.Errorf("%w: two <%s/> in an envelope", ErrMalformed, name)
		}
		parts[name] = part
	}
	content := parts["content"]
	if content == nil || content.hasText() {
		return nil, fmt.Errorf("%w: an envelope needs a <content/> of elements", ErrMalformed)
	}
	e := &Envelope{Padded: parts["rpad"] != nil}
	bodies := 0
	for c := range content.Elements() {
		switch {
		case Forbidden(c):
			e.Dropped++
			continue
		case c.Is(NSClient, "body"):
			bodies++
		}
		e.Content = append(e.Content, c)
	}
	if bodies > 1 {
		return nil, fmt.Errorf("%w: two bodies", ErrMalformed)
	}
	if e.From, err = address(parts["from"]); err != nil {
		return nil, err
	}
	if e.To, err = address(parts["to"]); err != nil {
		return nil, err
	}
	if stamp := parts["time"]; stamp != nil {
		value, _ := stamp.Attribute("stamp")
		at, err := time.Parse(time.RFC3339, value)
		if e.Time = at.UTC(); err != nil || e.Time.Year() < 1970 || e.Time.Year() > 9999 {
			return nil, fmt.Errorf("%w: time of an envelope", ErrMalformed)
		}
	}
	return e, nil
}

// address returns the canonical bare form of an affix's JID, or nothing if the
// affix is absent.
func address(affix *Element) (string, error) {
	if affix == nil {
		return "", nil
	}
	value, _ := affix.Attribute("jid")
	j, err := jid.Parse(value)
	if err != nil {
		return "", fmt.Errorf("%w: address of an envelope", ErrMalformed)
	}
	// One such as "romeo@example.net.." would be read as another next time: each
	// time it loses a dot.
	bare := j.Bare()
	if again, err := jid.Parse(bare.String()); err != nil || !again.Equal(bare) {
		return "", fmt.Errorf("%w: address of an envelope", ErrMalformed)
	}
	return bare.String(), nil
}

// Expect is what is known about a message from outside its envelope.
type Expect struct {
	// From is the sender's bare JID; in a room, that of the real account.
	From string
	// To is the bare JID that the message was sent to: ours, the room's or, for
	// the carbon of a message sent by another device of ours, its recipient's.
	To string
	// Group: the message came through a room. The envelope must then say so.
	Group bool
	// Time is when the message was sent, as far as the server tells: the stamp
	// of a delayed message, else now. Window is how far the envelope's time may
	// be away from it. The time is checked if both are set.
	Time   time.Time
	Window time.Duration
}

// Verify compares the affixes with what is known about the message. An affix
// that is absent proves nothing and is no error, except the recipient in a room.
// The error is ErrFrom or ErrTo, or else ErrTime, all of which unwrap to
// ErrAffix.
func (e *Envelope) Verify(x Expect) error {
	if e.From != "" && !sameAccount(e.From, x.From) {
		return ErrFrom
	}
	if e.To != "" && !sameAccount(e.To, x.To) || e.To == "" && x.Group {
		return ErrTo
	}
	if e.Time.IsZero() || x.Time.IsZero() || x.Window == 0 {
		return nil
	}
	if e.Time.Sub(x.Time).Abs() > x.Window {
		return ErrTime
	}
	return nil
}

// sameAccount compares two addresses without their resources.
func sameAccount(a, b string) bool {
	ja, err := jid.Parse(a)
	if err != nil {
		return false
	}
	jb, err := jid.Parse(b)
	return err == nil && ja.Bare().Equal(jb.Bare())
}

// Body returns the text of the body, and whether there is one.
func (e *Envelope) Body() (string, bool) {
	for _, c := range e.Content {
		if c.Is(NSClient, "body") {
			return c.Text(), true
		}
	}
	return "", false
}

// OptOut returns the sender's wish to go on in plain text, with the reason,
// which may be empty (XEP-0384, section 5.9).
func (e *Envelope) OptOut() (reason string, ok bool) {
	for _, c := range e.Content {
		if !c.Is(NSV2, "opt-out") {
			continue
		}
		if r := c.Child(NSV2, "reason"); r != nil {
			reason = r.Text()
		}
		return reason, true
	}
	return "", false
}

// OptOut returns the element by which a sender asks to go on in plain text. It
// stands in an envelope only. The reason may be empty.
func OptOut(reason string) *Element {
	e := NewElement(NSV2, "opt-out")
	if reason != "" {
		e.Append(NewText(NSV2, "reason", reason))
	}
	return e
}
