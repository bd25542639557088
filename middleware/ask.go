package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

// maxAsked bounds the keys that are remembered as asked about; then all of them
// are forgotten, and may be asked about once more.
const maxAsked = 10_000

// TrustQuestion asks about all devices that would not get a message because
// nobody has decided about their keys.
type TrustQuestion struct {
	// Chat is where the message goes: the bare JID of a contact or a room.
	Chat    jid.JID
	Devices []UndecidedDevice
}

// UndecidedDevice is a device whose key nobody has decided about.
type UndecidedDevice struct {
	Peer        omemo.Peer
	Fingerprint omemo.Fingerprint
	Own         bool // another device of our own account
}

// ErrAnswer: Config.AskTrust has decided about a key that it was not asked about.
var ErrAnswer = errors.New("middleware: decision about a key that was not asked about")

// errAsk keeps a message from being committed until somebody has decided.
var errAsk = errors.New("middleware: devices are undecided")

// asked are the keys that were asked about, with an answer, or told of, in this
// session.
type asked struct {
	mu   sync.Mutex
	keys map[askedKey]bool
}

type askedKey struct {
	chat, account string
	key           omemo.Fingerprint
}

// fresh returns the undecided devices of a sealed message that were not asked
// about in this chat.
func (a *asked) fresh(chat string, sealed *omemo.Sealed) []omemo.DeviceResult {
	if sealed == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var undecided []omemo.DeviceResult
	for _, d := range sealed.Devices {
		if errors.Is(d.Err, omemo.ErrUntrusted) && d.Trust == omemo.Undecided &&
			!a.keys[askedKey{chat, d.Peer.JID, d.Fingerprint}] {
			undecided = append(undecided, d)
		}
	}
	return undecided
}

func (a *asked) note(chat string, devices []omemo.DeviceResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil || len(a.keys)+len(devices) > maxAsked {
		a.keys = make(map[askedKey]bool)
	}
	for _, d := range devices {
		a.keys[askedKey{chat, d.Peer.JID, d.Fingerprint}] = true
	}
}

// asking returns encrypt with the question about undecided devices before the
// commit. After the answer, complete fetches what those need that are trusted now.
func (l *link) asking(
	ctx context.Context, chat jid.JID, id string, encrypt func(omemo.Render) (*omemo.Sealed, error), complete func() error,
) func(omemo.Render) (*omemo.Sealed, error) {
	name := chat.String()
	return func(render omemo.Render) (*omemo.Sealed, error) {
		for {
			sealed, err := encrypt(func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
				if l.m.config.AskTrust != nil && len(l.asked.fresh(name, s)) > 0 {
					return nil, errAsk
				}
				return render(s)
			})
			if err != nil && !errors.Is(err, errAsk) && !errors.Is(err, omemo.ErrUntrusted) {
				return sealed, err
			}
			undecided := l.asked.fresh(name, sealed)
			if len(undecided) == 0 {
				return sealed, err
			}
			if l.m.config.AskTrust != nil {
				if err := l.ask(ctx, chat, undecided); err != nil {
					return sealed, err // the next message asks again
				}
				l.asked.note(name, undecided)
				if err := complete(); err != nil {
					return sealed, err
				}
				continue
			}
			l.asked.note(name, undecided)
			l.m.emit(Event{Kind: UndecidedDevices, Account: name, ID: id, Result: &Result{ID: id, Devices: undecided}})
			return sealed, err
		}
	}
}

// ask puts the question and records the answer.
func (l *link) ask(ctx context.Context, chat jid.JID, undecided []omemo.DeviceResult) error {
	q := TrustQuestion{Chat: chat}
	for _, d := range undecided {
		q.Devices = append(q.Devices, UndecidedDevice{d.Peer, d.Fingerprint, d.Peer.JID == l.m.own.JID})
	}
	decisions, err := l.m.config.AskTrust(ctx, q)
	if err != nil {
		return fmt.Errorf("middleware: asking about keys: %w", err)
	}
	decisions = slices.DeleteFunc(slices.Clone(decisions), func(d omemo.Decision) bool { return d.Trust == omemo.Undecided })
	for _, d := range decisions {
		if !slices.ContainsFunc(undecided, func(u omemo.DeviceResult) bool {
			return u.Peer.JID == d.JID && u.Fingerprint == d.Fingerprint
		}) {
			return ErrAnswer
		}
	}
	_, err = l.m.Decide(ctx, decisions...)
	return err
}
