package middleware

import (
	"crypto/sha256"
	"sync"

	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// maxOwnClear bounds the messages in clear that are known to have been sent here:
// of the newest, at least so many, and never twice as many.
const maxOwnClear = 1 << 15

// ownClear are messages that this program has sent without encryption, in this
// session or in an earlier one: an archive shows them like those of other devices
// of the account. What tells them apart is that this program's address, the
// recipient and the id are all the same; ids alone may be another program's, too.
type ownClear struct {
	mu          sync.Mutex
	now, before map[[sha256.Size]byte]bool
}

// note remembers a message that is about to leave through an address.
func (o *ownClear) note(from jid.JID, e *stanza.Element) {
	key := clearKey(from, e)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.now == nil || len(o.now) >= maxOwnClear {
		o.now, o.before = make(map[[sha256.Size]byte]bool), o.now
	}
	o.now[key] = true
}

// has reports whether a message is a copy of one that was noted.
func (o *ownClear) has(e *stanza.Element) bool {
	from, err := jid.Parse(attribute(e, "from"))
	if err != nil || attribute(e, "id") == "" {
		return false
	}
	key := clearKey(from, e)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now[key] || o.before[key]
}

// clearKey names a message of an address. None of the parts holds a zero byte.
func clearKey(from jid.JID, e *stanza.Element) [sha256.Size]byte {
	return sha256.Sum256([]byte(from.String() + "\x00" + bareOf(attribute(e, "to")) + "\x00" + attribute(e, "id")))
}

// isOwnClear reports whether what shows a message of our account, such as an
// archive, shows one in clear that this program has sent. The application may ask
// an archive for it nevertheless.
func (l *link) isOwnClear(a *arrival) bool {
	return a.sender == l.m.own.JID && a.outer != a.message && !a.asked && l.m.ownClear.has(a.message) && !a.encrypted()
}
