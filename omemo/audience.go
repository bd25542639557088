package omemo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxTold is how many statements one trust message holds.
const maxTold = 1000

// TrustMessage is what some devices of an account are told about keys.
type TrustMessage struct {
	To         string // account, a canonical bare JID
	Statements []Statement
	Stated     time.Time // goes into the envelope
}

// Compose makes the content of a trust message, which has a form in omemo:2 only,
// and says how its stanza is made.
type Compose func(TrustMessage) (Plaintext, Render, error)

// Announced says what became of decisions.
type Announced struct {
	// Devices are those that had to be told, each with the reason if it was not:
	// those of DeviceResult.
	Devices []DeviceResult
	Outbox  []OutboxRow
	Events  []Event
}

// Announce records decisions as Decide does, and in the same commit tells the
// devices that have to know (XEP-0450, section 4), in omemo:2 and none but those
// whose keys are verified:
//
//   - that a contact's key is verified or distrusted: our own other devices;
//   - that a key of our own account is: our own other devices and all contacts';
//   - the device whose key was verified: what it has to know itself, which is, for
//     a contact's, the verified keys of our own account, and for one of our own,
//     all verified keys.
//
// Devices without a session are told with their bundle, if it is among bundles;
// Audience says which are wanted. A device that cannot be told is no error: the
// decision stands. Announcing it once more tells all of them again.
func (m *Manager) Announce(ctx context.Context, decisions []Decision, c Compose, bundles ...*Bundle) (*Announced, error) {
	out := &Announced{}
	err := m.work(ctx, func(u *unit) error {
		if err := u.recognize(ctx, bundles); err != nil {
			return err
		}
		if err := u.decide(ctx, decisions); err != nil {
			return err
		}
		told, err := u.audience(ctx, decisions)
		if err != nil {
			return err
		}
		for _, t := range told {
			if err := u.tell(ctx, out, t, c, bundles); err != nil {
				return err
			}
		}
		out.Events = u.events
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// recognize learns from bundles which keys devices have that are known by their
// number only. What is wrong with a bundle, its device's result will say.
func (u *unit) recognize(ctx context.Context, bundles []*Bundle) error {
	for _, b := range bundles {
		if err := u.learn(ctx, b.Owner.JID); err != nil {
			return err
		}
		if d, ok := u.knows(b.Owner.JID).device(b.Peer()); ok && d.Fingerprint.IsZero() {
			if _, err := u.check(ctx, b); err != nil && !errors.Is(err, ErrBundle) {
				return err
			}
		}
	}
	return nil
}

// Audience returns the devices that Announce would tell and has no session with,
// and those whose keys are not known, though the account may have to be told: their
// bundles are wanted.
func (m *Manager) Audience(ctx context.Context, decisions []Decision) ([]Peer, error) {
	var missing []Peer
	err := m.read(ctx, func(u *unit) error {
		if err := u.decide(ctx, decisions); err != nil {
			return err
		}
		told, err := u.audience(ctx, decisions)
		if err != nil {
			return err
		}
		want := func(p Peer) {
			d, _ := u.knows(p.JID).device(p)
			if current(u.list(p)) == nil && d.retries(u.now) && !slices.Contains(missing, p) {
				missing = append(missing, p)
			}
		}
		for _, t := range told {
			if err := u.loadSessions(ctx, t.devices); err != nil {
				return err
			}
			for _, p := range t.devices {
				want(p)
			}
		}
		for _, jid := range u.concerned(decisions) {
			for _, d := range u.knows(jid).devices[V2] {
				if d.Active && d.Fingerprint.IsZero() && d.Address != (Address{u.own().jid, u.own().device}) {
					want(d.Peer)
				}
			}
		}
		return nil
	})
	return missing, err
}

// concerned returns the accounts whose devices may have to be told.
func (u *unit) concerned(decisions []Decision) []string {
	jids := []string{u.own().jid}
	for _, d := range decisions {
		jids = append(jids, d.JID)
		if d.JID != u.own().jid {
			continue
		}
		for jid, k := range u.Manager.known { // audience has learnt of all of them
			for _, t := range k.trust {
				if t.Trust == Verified {
					jids = append(jids, jid)
				}
			}
		}
	}
	slices.Sort(jids)
	return slices.Compact(jids)
}

// telling is what some devices of one account are told.
type telling struct {
	devices    []Peer
	statements []Statement
}

// audience works out who has to be told what. The decisions are recorded already.
func (u *unit) audience(ctx context.Context, decisions []Decision) ([]telling, error) {
	all, err := u.store.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	jids := []string{u.own().jid}
	for _, d := range all.Devices {
		jids = append(jids, d.JID)
	}
	for _, t := range all.Trust {
		jids = append(jids, t.JID)
	}
	slices.Sort(jids[1:])
	jids = slices.Compact(jids)
	if err := u.learn(ctx, jids...); err != nil {
		return nil, err
	}
	words := make(map[Peer][]Statement)
	own := u.own().jid
	for _, d := range decisions {
		id, ok := u.keyID(d.JID, d.Fingerprint)
		if !ok || !d.Trust.byPerson() {
			continue
		}
		news := Statement{Owner: d.JID, KeyID: id, Trusted: d.Trust == Verified}
		itself := u.endpoints(d.JID, d.Fingerprint)
		for _, jid := range jids {
			if jid != own && d.JID != own {
				continue // contacts are told about our keys alone
			}
			for _, p := range u.endpoints(jid, Fingerprint{}) {
				if !slices.Contains(itself, p) {
					words[p] = append(words[p], news)
				}
			}
			if d.Trust != Verified {
				continue
			}
			for _, p := range itself {
				words[p] = append(words[p], u.verified(jid, d.Fingerprint)...)
			}
		}
	}
	return together(words), nil
}

// endpoints returns the devices of an account that can be told: listed for
// omemo:2, with a verified key, and not this one. If a key is given, those with it.
func (u *unit) endpoints(jid string, key Fingerprint) []Peer {
	k := u.knows(jid)
	var found []Peer
	if !u.serves(V2) {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(k.devices[V2])) {
		d := k.devices[V2][id]
		if d.Active && k.trust[d.Fingerprint].Trust == Verified && !d.Fingerprint.IsZero() &&
			d.Address != (Address{u.own().jid, u.own().device}) && (key.IsZero() || d.Fingerprint == key) {
			found = append(found, d.Peer)
		}
	}
	return found
}

// verified returns statements about all verified keys of an account but one, and
// but our own.
func (u *unit) verified(jid string, but Fingerprint) []Statement {
	var all []Statement
	for key, t := range u.knows(jid).trust {
		if t.Trust != Verified || key == but || key == Fingerprint(u.own().identity.Montgomery()) ||
			u.trust(u.holder(jid, key).Address, key) != Verified {
			continue
		}
		if id, ok := u.keyID(jid, key); ok {
			all = append(all, Statement{jid, id, true})
		}
	}
	slices.SortFunc(all, func(a, b Statement) int { return strings.Compare(string(a.KeyID[:]), string(b.KeyID[:])) })
	return all
}

// tell seals what some devices are told, for them alone.
func (u *unit) tell(ctx context.Context, out *Announced, t telling, c Compose, bundles []*Bundle) error {
	if err := u.loadSessions(ctx, t.devices); err != nil {
		return err
	}
	var choices []choice
	for _, p := range t.devices {
		choices = append(choices, u.choice(p))
	}
	sealed := &Sealed{Devices: u.serve(ctx, choices, bundles, true)}
	var ready []*choice
	for i := range sealed.Devices {
		result := &sealed.Devices[i]
		if result.Err == nil && result.Trust != Verified {
			result.Err = ErrUntrusted
		}
		if result.Err == nil {
			ready = append(ready, &choices[i])
		}
	}
	out.Devices = append(out.Devices, sealed.Devices...)
	for statements := range slices.Chunk(t.statements, maxTold) {
		if len(ready) == 0 {
			return nil
		}
		plaintext, render, err := c(TrustMessage{t.devices[0].JID, statements, u.now})
		if err != nil {
			return fmt.Errorf("omemo: compose: %w", err)
		}
		sealed.Messages = nil
		if err := u.seal(sealed, Plaintext{V2: plaintext.V2}, ready); err != nil {
			return err
		}
		sealed.Outbox = nil
		if err := u.render(sealed, render); err != nil {
			return err
		}
		out.Outbox = append(out.Outbox, sealed.Outbox...)
		for _, c := range ready {
			c.session = current(u.of(c.slot)) // the next message goes on from here
		}
	}
	return nil
}

// together brings the devices of an account together that are told the same.
func together(words map[Peer][]Statement) []telling {
	var all []telling
	index := make(map[string]int)
	peers := slices.SortedFunc(maps.Keys(words), func(a, b Peer) int { return strings.Compare(a.String(), b.String()) })
	for _, p := range peers {
		name := fmt.Sprintf("%s %v", p.JID, words[p])
		i, ok := index[name]
		if !ok {
			i = len(all)
			index[name] = i
			all = append(all, telling{statements: words[p]})
		}
		all[i].devices = append(all[i].devices, p)
	}
	return all
}
