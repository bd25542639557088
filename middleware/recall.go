package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// Archive keeps what messages say, so that a program can ask the server's archive
// for pages that it has read before: a message is decrypted once. It is the
// application's, and holds secrets.
type Archive interface {
	// Keep stores what a message says, sent or received, under a name of 43
	// characters. It is called once the message is committed, and before it is
	// handed over; it may be called twice for a name. A program that dies in
	// between gets the message all the same, but cannot read it again.
	Keep(ctx context.Context, name string, text []byte) error
	// Recall returns what was kept under a name, or nil.
	Recall(ctx context.Context, name string) (text []byte, err error)
}

// nameOf names a message by everything that it is made of: who has sent it to
// whom, the ciphertext, and its keys for us. Whoever puts another message together
// from parts of it gets another name. What was kept under it was authenticated.
func nameOf(a *arrival, device omemo.DeviceID, namespace string, iv, payload []byte, keys []omemo.Key) string {
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	part([]byte(a.sender))
	part([]byte(a.recipient))
	part(fmt.Append(nil, device, a.room != ""))
	part([]byte(namespace))
	part(iv)
	part(payload)
	for _, k := range keys {
		part(fmt.Append(nil, k.Exchange))
		part(k.Data)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// keptForm is the form in which the content of a message is kept: a message
// without attributes, with Info as last child.
func keptForm(content []*stanza.Element, info Info) []byte {
	return plain(stanza.NewElement(stanza.NSClient, "message"), content, info).AppendXML(nil)
}

// keepReceived has the application keep a message that was decrypted.
func (l *link) keepReceived(a *arrival, msg *omemo.Message) {
	if l.m.config.Archive == nil || a.text == nil {
		return
	}
	name := nameOf(a, msg.Sender.Device, msg.Version.Namespace(), msg.IV, msg.Payload, msg.Keys)
	if err := l.m.config.Archive.Keep(l.life, name, a.text); err != nil {
		l.trouble(fmt.Errorf("middleware: keeping a message: %w", err))
	}
}

// keepSent has the application keep a message that this device has sent.
func (l *link) keepSent(d *draft, sealed *omemo.Sealed) {
	if l.m.config.Archive == nil || d.transient {
		return
	}
	envelope, err := stanza.ParseEnvelope(d.plaintext.V2)
	if err == nil {
		for _, m := range sealed.Messages {
			a := &arrival{sender: l.m.own.JID, recipient: d.to}
			if attribute(d.shell, "type") == "groupchat" {
				a.room = d.to
			}
			var info Info
			if info, err = l.ownInfo(m.Version); err != nil {
				break
			}
			name := nameOf(a, l.m.own.Device(), m.Version.Namespace(), m.IV, m.Payload, nil)
			info.Event = name
			if err = l.m.config.Archive.Keep(l.life, name, keptForm(envelope.Content, info)); err != nil {
				break
			}
		}
	}
	if err != nil {
		l.trouble(fmt.Errorf("middleware: keeping a message: %w", err))
	}
}

// ownInfo is the Info of a message that this device has sent.
func (l *link) ownInfo(v omemo.Version) (Info, error) {
	fingerprint, err := l.m.manager.Fingerprint(l.life)
	return Info{
		Account: l.m.own.JID, Device: l.m.own.Device(), Version: v, Fingerprint: fingerprint, Trust: omemo.Verified,
		Authenticated: true, Bound: v == omemo.V2, Padded: v == omemo.V2, Own: true,
	}, err
}

// recall delivers a result of an archive that was decrypted before, if the
// application has kept it, and reports whether it has.
func (l *link) recall(a *arrival, name string) bool {
	if l.m.config.Archive == nil || !a.asked {
		return false
	}
	text, err := l.m.config.Archive.Recall(l.life, name)
	if err != nil {
		l.trouble(fmt.Errorf("middleware: recalling a message: %w", err))
	}
	if err != nil || text == nil {
		return false
	}
	kept, err := stanza.ParseElement(text, l.m.config.Limits)
	if err != nil {
		l.trouble(fmt.Errorf("middleware: recalling a message: %w", err))
		return false
	}
	// Both are ours: Info was stripped from what has come.
	out := plain(a.message, nil, Info{})
	out.Children = out.Children[:len(out.Children)-1]
	out.Children = append(out.Children, kept.Children...)
	l.front.Deliver(a.with(out), nil)
	return true
}

// recallOwn is recall for a message that this device has sent.
func (l *link) recallOwn(a *arrival, e *stanza.Encrypted, element *stanza.Element) bool {
	if l.m.config.Archive == nil || !a.asked || a.sender != l.m.own.JID || omemo.DeviceID(e.Sender) != l.m.own.Device() {
		return false
	}
	iv, payload, err := stanza.Ciphertext(element)
	return err == nil && l.recall(a, nameOf(a, l.m.own.Device(), e.Namespace, iv, payload, nil))
}
