package omemo

import (
	"context"
	"maps"
	"slices"
)

// Missing returns the devices that Encrypt would serve and has no session with:
// their bundles are wanted. Devices whose bundle could not be had lately are left
// out.
func (m *Manager) Missing(ctx context.Context, p Plaintext, to []string) ([]Peer, error) {
	var missing []Peer
	err := m.read(ctx, func(u *unit) error {
		choices, err := u.choose(ctx, p, to)
		for _, c := range choices {
			d := c.device
			if c.err == nil && c.session == nil && d.retries(u.now) &&
				(d.Fingerprint.IsZero() || u.trust(c.peer.Address, d.Fingerprint).Sendable()) {
				missing = append(missing, c.peer)
			}
		}
		return err
	})
	return missing, err
}

// choice is a device and the version that serves it.
type choice struct {
	peer    Peer
	err     error
	device  *Device    // what is known about it in the version, not nil
	session *Session   // the current one; nil: none
	begins  *beginning // what one is built from; nil: none is
}

// choose returns the devices that a message is for, and loads all that is needed
// to serve them.
func (u *unit) choose(ctx context.Context, p Plaintext, to []string) ([]choice, error) {
	own := u.own()
	// Each account once: a session seals one key of a message.
	jids := distinct(append(append(make([]string, 0, len(to)+1), to...), own.jid))
	if err := u.learn(ctx, jids...); err != nil {
		return nil, err
	}
	count := 0
	for _, jid := range jids {
		count += len(u.knows(jid).devices[Legacy]) + len(u.knows(jid).devices[V2])
	}
	choices := make([]choice, 0, count+1)
	for _, jid := range jids {
		before := len(choices)
		choices = u.versions(choices, jid)
		devices := choices[before:]
		if u.from.JID == jid && !slices.ContainsFunc(devices, func(c choice) bool { return c.peer.Address == u.from.Address }) {
			// Whoever has just written can be answered, though no list of theirs was
			// seen that has this device.
			choices = append(choices, u.choice(u.from))
		}
		if jid == own.jid {
			choices = slices.DeleteFunc(choices, func(c choice) bool { return c.peer.Address == Address{own.jid, own.device} })
		}
	}
	for i := range choices {
		switch c := &choices[i]; {
		case c.err != nil:
		case !u.serves(c.peer.Version):
			c.err = ErrVersion
		case p.of(c.peer.Version) == nil:
			c.err = ErrNoForm
		}
	}
	if err := u.findSessions(ctx, choices); err != nil {
		return nil, err
	}
	u.leaveStale(choices, to)
	return choices, nil
}

// findSessions finds the current sessions with devices, those that are not cached
// in one call.
func (u *unit) findSessions(ctx context.Context, choices []choice) error {
	var missing []Peer
	for i := range choices {
		c := &choices[i]
		list, cached := u.cached(c.peer)
		if c.session = current(list); !cached {
			missing = append(missing, c.peer)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := u.loadSessions(ctx, missing); err != nil {
		return err
	}
	for i := range choices {
		choices[i].session = current(u.list(choices[i].peer))
	}
	return nil
}

// choice returns a device to be served in one version.
func (u *unit) choice(p Peer) choice {
	d := u.knows(p.JID).devices[p.Version][p.Address.Device]
	if d == nil {
		d = new(Device)
	}
	return choice{peer: p, device: d, session: current(u.list(p))}
}

// versions appends for each active device of an account which version serves it:
// the highest in which it has sent us authenticated content; if there is none
// yet, the only one it lists, or the preferred one if it lists both. Being
// listed is no evidence: some clients list omemo:2 and cannot read it.
func (u *unit) versions(choices []choice, jid string) []choice {
	inLegacy, inV2 := u.knows(jid).devices[Legacy], u.knows(jid).devices[V2]
	ids := slices.AppendSeq(make([]DeviceID, 0, len(inLegacy)+len(inV2)), maps.Keys(inLegacy))
	for id := range inV2 {
		if _, both := inLegacy[id]; !both {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		legacy, v2, a := inLegacy[id], inV2[id], Address{jid, id}
		legacyActive, legacyReceived := legacy != nil && legacy.Active, legacy != nil && legacy.Received
		v2Active, v2Received := v2 != nil && v2.Active, v2 != nil && v2.Received
		// What we do not serve is no choice. That is ours to say, and no downgrade.
		if !u.serves(V2) && legacyActive {
			v2Active, v2Received = false, false
		}
		if !u.serves(Legacy) && v2Active {
			legacyActive = false
		}
		switch {
		case v2Active && (v2Received || !legacyActive):
			choices = append(choices, choice{peer: Peer{V2, a}, device: v2})
		case legacyActive && v2Received && !u.options.AllowDowngrade:
			choices = append(choices, choice{peer: Peer{Legacy, a}, device: legacy, err: ErrDowngrade})
		case legacyActive && v2Active && !legacyReceived && u.options.Prefer != nil && u.options.Prefer(jid) == V2:
			choices = append(choices, choice{peer: Peer{V2, a}, device: v2})
		case legacyActive:
			choices = append(choices, choice{peer: Peer{Legacy, a}, device: legacy})
		}
	}
	return choices
}
