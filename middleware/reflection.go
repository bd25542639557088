package middleware

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// ciphertextHash names a ciphertext in a room. Its key is random: no other
// message has the same.
func ciphertextHash(room, namespace string, iv, payload []byte) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(room), []byte(namespace), iv, payload} {
		n := sha256.Sum256(part)
		h.Write(n[:])
	}
	return [32]byte(h.Sum(nil))
}

// echo returns what is kept of a message to a room until the room sends it back:
// there is no key in it for ourselves. Of two elements the first is looked for.
func echo(d *draft, first *omemo.Message) *omemo.Echo {
	return &omemo.Echo{
		Hash:    ciphertextHash(d.to, first.Version.Namespace(), first.IV, first.Payload),
		Content: d.plaintext.V2,
	}
}

// reflected deals with a message that a room shows as ours. If this very device
// has sent it, it is delivered with the text that was sent, once: that is so only
// if the room, the account behind the nick, our device id and the ciphertext are
// right. It reports whether it claims to be ours.
func (l *link) reflected(a *arrival, e *stanza.Encrypted, element *stanza.Element) bool {
	if a.room == "" || a.sender != l.m.own.JID || omemo.DeviceID(e.Sender) != l.m.own.Device() {
		return false
	}
	iv, payload, err := stanza.Ciphertext(element)
	if err != nil {
		l.refused(a.message, err)
		return true
	}
	hash := ciphertextHash(a.room, e.Namespace, iv, payload)
	version := omemo.Legacy
	if e.Namespace == stanza.NSV2 {
		version = omemo.V2
	}
	info, err := l.ownInfo(version)
	if err != nil {
		a.lost = true
		l.trouble(err)
		return true
	}
	info.Event = base64.RawURLEncoding.EncodeToString(hash[:16])
	var answers []omemo.OutboxRow
	d, found, err := l.m.manager.Echo(l.ctx, hash, a.journal, func(content []byte) (omemo.Delivery, error) {
		envelope, err := stanza.ParseEnvelope(content)
		if err != nil {
			return omemo.Delivery{}, fmt.Errorf("middleware: text of an own message: %w", err)
		}
		d := omemo.Delivery{Stanza: a.with(plain(a.message, envelope.Content, info))}
		if l.m.config.Receive != nil {
			d.Within = l.receive(info, d.Stanza, &answers)
		}
		return d, nil
	})
	switch {
	case err != nil:
		a.lost = true
		l.trouble(err)
		if a.live || a.asked || a.journal != 0 {
			break // the room's archive has it still, or the journal
		}
		if _, err := l.m.manager.Keep(l.ctx, l.m.own.Address(), err.Error(), a.outer.AppendXML(nil)); err != nil {
			l.trouble(err)
		} else {
			a.lost = false
		}
	case found:
		l.m.traces.note(attribute(a.message, "id"), "came back")
		if d.Seq != 0 {
			l.deliver(d.Seq, false)
		}
		l.push(answers)
	default:
		l.recallOwn(a, e, element)
		// It came back before; or a copy of this store has sent it.
		if whole, err := stanza.Find(a.message); err == nil {
			l.ownCopy(l.ctx, a, whole)
		}
	}
	return true
}
