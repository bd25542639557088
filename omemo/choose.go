package omemo

import (
	"context"
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
	*face              // not nil
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
		count += len(u.knows(jid).endpoints())
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
		if !u.find(&choices[i]) {
			missing = append(missing, choices[i].peer)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := u.loadSessions(ctx, missing); err != nil {
		return err
	}
	for i := range choices {
		u.find(&choices[i])
	}
	return nil
}

// find finds the current session with a device, if its sessions were loaded.
func (u *unit) find(c *choice) (loaded bool) {
	if c.slot == nil {
		c.slot = u.Manager.sessions[c.peer]
	}
	if c.slot == nil {
		return false
	}
	c.session = current(u.of(c.slot))
	return true
}

// choice returns a device to be served in one version.
func (u *unit) choice(p Peer) choice {
	d := u.knows(p.JID).devices[p.Version][p.Address.Device]
	if d == nil {
		d = new(Device)
	}
	return choice{peer: p, face: &face{d, u.Manager.sessions[p]}, session: current(u.list(p))}
}

// chosen returns a session to be sealed in, which need not be the current one.
func (u *unit) chosen(s *Session) []*choice {
	c := u.choice(s.peer)
	c.session = s
	return []*choice{&c}
}

// versions appends for each active device of an account which version serves it:
// the highest in which it has sent us authenticated content; if there is none
// yet, the only one it lists, or the preferred one if it lists both. Being
// listed is no evidence: some clients list omemo:2 and cannot read it.
func (u *unit) versions(choices []choice, jid string) []choice {
	endpoints := u.knows(jid).endpoints()
	for i := range endpoints {
		e := &endpoints[i]
		legacy, v2 := e.legacy.device, e.v2.device
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
			choices = append(choices, choice{peer: v2.Peer, face: &e.v2})
		case legacyActive && v2Received && !u.options.AllowDowngrade:
			choices = append(choices, choice{peer: legacy.Peer, face: &e.legacy, err: ErrDowngrade})
		case legacyActive && v2Active && !legacyReceived && u.options.Prefer != nil && u.options.Prefer(jid) == V2:
			choices = append(choices, choice{peer: v2.Peer, face: &e.v2})
		case legacyActive:
			choices = append(choices, choice{peer: legacy.Peer, face: &e.legacy})
		}
	}
	return choices
}
