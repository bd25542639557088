package middleware

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"sync"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// Limits of the messages to rooms that are kept until they come back. The oldest
// make room.
const (
	maxReflections     = 256
	maxReflectionBytes = 4 << 20
)

// reflections are our own messages to rooms, which rooms send back to everybody.
// There is no key in them for ourselves: the text is kept until then. It is kept
// in memory only, so that what comes back after a restart stays unread.
type reflections struct {
	mu    sync.Mutex
	kept  []*reflection // oldest first
	bytes int
}

type reflection struct {
	hashes  [][32]byte // of the ciphertexts: one of each version
	content []*stanza.Element
	size    int
}

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

// keep remembers what a message of ours says.
func (r *reflections) keep(room string, e *stanza.Element, sealed *omemo.Sealed) {
	kept := &reflection{}
	for _, m := range sealed.Messages {
		kept.hashes = append(kept.hashes, ciphertextHash(room, m.Version.Namespace(), m.IV, m.Payload))
	}
	for c := range e.Elements() {
		if stanza.Outside(c) && c.Name.Local != "encrypted" {
			continue
		}
		kept.content = append(kept.content, c.Clone())
		kept.size += len(c.AppendXML(nil))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, kept)
	r.bytes += kept.size
	for len(r.kept) > maxReflections || r.bytes > maxReflectionBytes && len(r.kept) > 1 {
		r.bytes -= r.kept[0].size
		r.kept = r.kept[1:]
	}
}

// take returns what a message of ours says that has come back, once.
func (r *reflections) take(hash [32]byte) []*stanza.Element {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, kept := range r.kept {
		if slices.Contains(kept.hashes, hash) {
			r.kept = slices.Delete(r.kept, i, i+1)
			r.bytes -= kept.size
			return kept.content
		}
	}
	return nil
}

// reflected deals with a message that a room shows as ours. If this very device
// has sent it, it is delivered with the text that was sent; that is so only if
// the room, our nick, our device id and the ciphertext are right. It reports
// whether it was ours.
func (l *link) reflected(a *arrival, e *stanza.Encrypted) bool {
	if !a.reflected || omemo.DeviceID(e.Sender) != l.m.own.Device {
		return false
	}
	hash := ciphertextHash(a.room, e.Namespace, e.IV, e.Payload)
	content := l.m.reflections.take(hash)
	if content == nil || l.m.config.Receive != nil {
		return true
	}
	fingerprint, err := l.m.manager.Fingerprint(l.ctx)
	if err != nil {
		l.trouble(err)
		return true
	}
	info := Info{
		Account: l.m.own.JID, Device: l.m.own.Device, Version: omemo.Legacy, Fingerprint: fingerprint, Trust: omemo.Verified,
		Event: base64.RawURLEncoding.EncodeToString(hash[:16]), Authenticated: true, Own: true,
	}
	if e.Namespace == stanza.NSV2 {
		info.Version, info.Bound, info.Padded = omemo.V2, true, true
	}
	l.front.Deliver(a.with(plain(a.message, content, info)), nil)
	return true
}
