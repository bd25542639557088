package omemo

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/omemo/internal/payload"
)

// Sealed is an encrypted message: one Message for each version that serves at
// least one device.
type Sealed struct {
	Messages []*Message
	// Devices says for each device of the recipients, and for our own others,
	// whether it was served.
	Devices []DeviceResult
	// Unserved are the members of a group of whom no device was served, for
	// EncryptGroup; the Render that it is given sees them already.
	Unserved []*RecipientError
	// Outbox is what Render made, as it was committed.
	Outbox []OutboxRow
	// Owed: work was written down; see Owed and Answer.
	Owed   bool
	Events []Event
}

// DeviceResult says what became of one device.
type DeviceResult struct {
	Peer        Peer
	Fingerprint Fingerprint
	Trust       Trust
	// Exchange: a key exchange was sent along.
	Exchange bool
	// Err is why the device was not served; nil if it was. It is one of
	// ErrNoBundle, ErrBundle, ErrUntrusted, ErrIdentityChanged, ErrDowngrade,
	// ErrVersion, ErrNoForm and ErrStale.
	Err error
}

// Outgoing is a finished stanza.
type Outgoing struct {
	ID     string // stanza id
	Chat   string // bare JID it is addressed to
	Stanza []byte
	// Transient: not worth sending again (chat states). It is not kept in the
	// outbox.
	Transient bool
	// Echo is kept until a room sends the message back, if it is for one: see
	// Manager.Echo.
	Echo *Echo
}

// Render makes the exact bytes that will leave from a sealed message. It runs
// before the commit; if it fails, nothing has happened.
type Render func(*Sealed) ([]Outgoing, error)

// RecipientError is the reason why a message was not sent at all: a recipient of
// whom no device could be served.
type RecipientError struct {
	JID string
	Err error // ErrNoDevices, ErrUntrusted or another reason of its devices
}

func (e *RecipientError) Error() string { return e.Err.Error() + ": " + e.JID }

// Unwrap returns the reason.
func (e *RecipientError) Unwrap() error { return e.Err }

// Encrypt seals a message for all devices of the recipients and our own others,
// renders it and commits everything at once: nothing may leave before Encrypt
// returned without an error.
//
// Devices without a session are served with their bundle, if it is among
// bundles; Missing says which are wanted. A device that cannot be served is
// skipped and reported; a recipient without any served device is an error, a
// *RecipientError. The result lists the devices in either case.
func (m *Manager) Encrypt(ctx context.Context, p Plaintext, to []string, r Render, bundles ...*Bundle) (*Sealed, error) {
	var out *Sealed
	err := m.work(ctx, func(u *unit) error {
		sealed, err := u.encrypt(ctx, p, to, bundles)
		out = sealed
		if err != nil {
			return err
		}
		sealed.Owed = len(u.changes.Owed) > 0
		return u.render(sealed, r)
	})
	return out.unless(err), err
}

// unless keeps back what must not leave because it was not committed. What is
// known about the devices stays.
func (s *Sealed) unless(err error) *Sealed {
	if s != nil && err != nil {
		s.Messages, s.Outbox = nil, nil
	}
	return s
}

func (u *unit) encrypt(ctx context.Context, p Plaintext, to []string, bundles []*Bundle) (*Sealed, error) {
	choices, err := u.choose(ctx, p, to)
	if err != nil {
		return nil, err
	}
	for _, jid := range to {
		if u.knows(jid).contact.OptOut == OptOutAsked {
			return nil, &RecipientError{jid, ErrOptedOut}
		}
	}
	sealed, ready, first := u.serveContent(ctx, choices, bundles)
	if refused := sealed.refusals(to); len(refused) > 0 {
		return sealed, refused[0]
	}
	return sealed, u.sealFor(sealed, p, to, ready, first)
}

// serveContent finds or builds the sessions with all devices that can be served.
// The first of them are those that no content was sent to before.
func (u *unit) serveContent(ctx context.Context, choices []choice, bundles []*Bundle) (sealed *Sealed, ready []*choice, first []Peer) {
	for i := range choices {
		if c := &choices[i]; c.err == ErrStale {
			u.setStale(c.peer, true)
		}
	}
	sealed = &Sealed{Devices: u.serve(ctx, choices, bundles, true)}
	ready = make([]*choice, 0, len(choices))
	for i := range choices {
		if c := &choices[i]; sealed.Devices[i].Err == nil {
			ready = append(ready, c)
			if !c.device.Sent {
				first = append(first, c.peer)
			}
		}
	}
	sealed.Events = u.events
	return sealed, ready, first
}

// sealFor seals a message and records to whom it was written.
func (u *unit) sealFor(sealed *Sealed, p Plaintext, to []string, ready []*choice, first []Peer) error {
	if err := u.seal(sealed, p, ready); err != nil {
		return err
	}
	for _, jid := range to {
		if c := u.knows(jid).contact; !c.Written {
			c.Written = true
			u.noteContact(c)
			u.befriend(jid)
		}
	}
	for _, peer := range first {
		d, _ := u.knows(peer.JID).device(peer)
		d.Sent = true
		u.note(d)
		u.invite(peer.Address)
	}
	return nil
}

// refusals says why recipients are not served, in their order: those are left out
// of whom at least one device is.
func (s *Sealed) refusals(to []string) []*RecipientError {
	if s.allServed(to) {
		return nil
	}
	reasons := make(map[string]error, len(to)) // nil: served
	for i := range s.Devices {
		d := &s.Devices[i]
		reason, other := reasons[d.Peer.JID]
		// What a person can decide about is told before what only time can mend.
		if d.Err == nil || !other || reason != nil && errors.Is(d.Err, ErrUntrusted) {
			reasons[d.Peer.JID] = d.Err
		}
	}
	var refused []*RecipientError
	for _, jid := range to {
		reason, any := reasons[jid]
		if !any {
			reason = ErrNoDevices
		}
		if reason != nil {
			refused = append(refused, &RecipientError{jid, reason})
		}
	}
	return refused
}

// allServed reports whether each recipient has a device and each device was served.
// The devices of a recipient stand together, in the order of the recipients.
func (s *Sealed) allServed(to []string) bool {
	i := 0
	for _, jid := range to {
		first := i
		for i < len(s.Devices) && s.Devices[i].Err == nil && s.Devices[i].Peer.JID == jid {
			i++
		}
		if i == first {
			return false
		}
	}
	return true
}

// below draws a number in 0 to n-1, uniform by rejection.
func (u *unit) below(n int) int {
	limit := uint64(1<<63) / uint64(n) * uint64(n)
	for {
		if x := u.id(); x < limit {
			return int(x % uint64(n))
		}
	}
}

// body encrypts the content of a message with a fresh key and returns the key
// material. Without content it makes an empty message.
func (u *unit) body(v Version, content []byte) (*Message, []byte) {
	message := &Message{Version: v, Sender: Address{u.own().jid, u.own().device}}
	key := u.draw()
	if v == Legacy {
		random := u.draw()
		message.IV = append([]byte(nil), random[:12]...)
	}
	switch {
	case content == nil && v == Legacy:
		return message, append([]byte(nil), key[:v.profile().material]...)
	case content == nil:
		return message, make([]byte, v.profile().material)
	case v == Legacy:
		ciphertext, material := payload.SealLegacy((*[16]byte)(key[:16]), (*[12]byte)(message.IV), content)
		message.Payload = ciphertext
		return message, material[:]
	}
	ciphertext, material := payload.SealV2(&key, content)
	message.Payload = ciphertext
	return message, material[:]
}

// render has the stanzas made and puts them into the outbox.
func (u *unit) render(sealed *Sealed, r Render) error {
	stanzas, err := r(sealed)
	if err != nil {
		return fmt.Errorf("omemo: render: %w", err)
	}
	devices := make([]Peer, 0, len(sealed.Devices))
	for i := range sealed.Devices {
		if d := &sealed.Devices[i]; d.Err == nil {
			devices = append(devices, d.Peer)
		}
	}
	for _, o := range stanzas {
		row := OutboxRow{ID: o.ID, Chat: o.Chat, Stanza: o.Stanza, Devices: devices, Created: u.now}
		if !o.Transient {
			u.outbox++ // a number of a commit that fails is never used: gaps are harmless
			row.Seq = u.outbox
			u.changes.Outbox = append(u.changes.Outbox, row)
		}
		if o.Echo != nil {
			u.changes.Echoes = append(u.changes.Echoes, EchoRow{o.Echo.Hash, row.Seq, u.now, o.Echo.Content})
		}
		sealed.Outbox = append(sealed.Outbox, row)
	}
	return nil
}
