package omemo

import (
	"context"
	"errors"
)

// serve finds or builds the sessions with devices that may be served, and says
// what became of each. Only content needs trust: empty messages are exempt.
//
// What costs much, and needs nothing but a bundle and randomness, is done for many
// devices in parallel: verifying signatures and agreeing on keys. What is known is
// looked at and changed in their order.
func (u *unit) serve(ctx context.Context, choices []choice, bundles []*Bundle, content bool) []DeviceResult {
	results := make([]DeviceResult, len(choices))
	if len(bundles) > 0 {
		u.verifyBundles(choices, byPeer(bundles))
	}
	for i := range choices {
		results[i] = u.serveOne(ctx, &choices[i], content)
	}
	u.build(choices)
	for i := range choices {
		c, result := &choices[i], &results[i]
		if c.begins != nil {
			result.Err = c.begins.err
		}
		if result.Err == nil {
			result.Exchange = c.session.initiation == Active && !c.session.confirmed
		}
	}
	return results
}

// beginning is what an active session is built from.
type beginning struct {
	bundle      *Bundle
	fingerprint Fingerprint
	preKey      PublicPreKey
	session     uint64      // its id
	seeds       [2][32]byte // of its keys
	err         error       // the bundle cannot be used
}

// draw returns the seeds, one after the other.
func (b *beginning) draw() [32]byte {
	seed := b.seeds[0]
	b.seeds = [2][32]byte{b.seeds[1]}
	return seed
}

// byPeer returns the bundles by their devices; the first of a device counts.
func byPeer(bundles []*Bundle) map[Peer]*Bundle {
	found := make(map[Peer]*Bundle, len(bundles))
	for _, b := range bundles {
		if b != nil && found[b.Peer()] == nil {
			found[b.Peer()] = b
		}
	}
	return found
}

// verifyBundles verifies the bundles of the devices that there is no session with.
func (u *unit) verifyBundles(choices []choice, bundles map[Peer]*Bundle) {
	var wanted []*choice
	for i := range choices {
		c := &choices[i]
		if bundle := bundles[c.peer]; bundle != nil && c.err == nil && c.session == nil {
			c.begins = &beginning{bundle: bundle}
			wanted = append(wanted, c)
		}
	}
	_ = inParallel(len(wanted), 1, func(from, to int) error {
		for _, c := range wanted[from:to] {
			c.begins.fingerprint, c.begins.err = c.begins.bundle.verify(*c.device)
		}
		return nil
	})
}

// serveOne says whether a device may be served. If its session has to be built, it
// draws the randomness for it.
func (u *unit) serveOne(ctx context.Context, c *choice, content bool) DeviceResult {
	result := DeviceResult{Peer: c.peer, Err: c.err}
	if c.err != nil {
		return result
	}
	f := c.device.Fingerprint
	begins := c.begins
	switch {
	case begins != nil:
		if begins.err == nil {
			_, begins.err = u.checked(ctx, begins.bundle, begins.fingerprint)
		}
		if begins.err != nil {
			result.Err = begins.err
			return result
		}
		f = begins.fingerprint
	case c.session == nil && f.IsZero():
		result.Err = ErrNoBundle
		return result
	}
	result.Fingerprint = f
	result.Trust = u.trust(c.peer.Address, f)
	switch {
	case content && !result.Trust.Sendable():
		result.Err = ErrUntrusted
	case begins != nil:
		// One of the pre keys at random, so that two devices rarely choose the same.
		begins.preKey = begins.bundle.PreKeys[u.below(len(begins.bundle.PreKeys))]
		begins.session = u.id()
		begins.seeds = [2][32]byte{u.draw(), u.draw()}
	case c.session == nil:
		result.Err = ErrNoBundle
	}
	if begins != nil {
		begins.err = result.Err
	}
	return result
}

// build builds the sessions that begin.
func (u *unit) build(choices []choice) {
	var begun []*choice
	for i := range choices {
		if c := &choices[i]; c.begins != nil && c.begins.err == nil {
			begun = append(begun, c)
		}
	}
	if len(begun) == 0 {
		return
	}
	own := u.own()
	_ = inParallel(len(begun), 1, func(from, to int) error {
		for _, c := range begun[from:to] {
			b := c.begins
			c.session, b.err = initiate(own, b.bundle, b.fingerprint, b.preKey, b.session, b.draw)
		}
		return nil
	})
	for _, c := range begun {
		if c.begins.err == nil {
			u.event(SessionBuilt, c.peer, c.begins.fingerprint)
			u.install(c.session, false)
		}
	}
}

// check verifies a bundle and compares its identity key with the known one.
func (u *unit) check(ctx context.Context, b *Bundle) (Device, error) {
	known, _ := u.knows(b.Owner.JID).device(b.Peer())
	f, err := b.verify(known)
	if err != nil {
		return Device{}, err
	}
	return u.checked(ctx, b, f)
}

// checked compares the identity key of a bundle that was verified with the known
// one. A different one is kept beside it, for an application to decide.
func (u *unit) checked(ctx context.Context, b *Bundle, f Fingerprint) (Device, error) {
	d, err := u.seen(ctx, b.Peer(), b.IdentityKey, f)
	if errors.Is(err, ErrIdentityChanged) && d.Conflict != f {
		d.Conflict = f
		u.note(d)
		u.event(IdentityChanged, d.Peer, f)
	}
	if err == nil && d.BundleFailures > 0 {
		d.BundleFailures = 0
		u.note(d)
	}
	return d, err
}
