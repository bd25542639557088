package omemo

import "context"

// Withhold divides rows of the outbox that have waited into those that may still
// leave and those that may not, because they were encrypted for a device whose key
// is distrusted now: an outbox row is never encrypted anew. The latter are removed
// from the outbox. Rows that were written before, and not acknowledged, may have
// arrived.
func (m *Manager) Withhold(ctx context.Context, rows ...OutboxRow) (kept, withheld []OutboxRow, err error) {
	err = m.work(ctx, func(u *unit) error {
		kept, withheld = nil, nil
		for _, row := range rows {
			distrusted, err := u.reachesDistrusted(ctx, row.Devices)
			if err != nil {
				return err
			}
			if !distrusted {
				kept = append(kept, row)
				continue
			}
			withheld = append(withheld, row)
			if row.Seq != 0 {
				u.changes.DropOutbox = append(u.changes.DropOutbox, row.Seq)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return kept, withheld, nil
}

// reachesDistrusted reports whether the key of one of the devices is distrusted.
func (u *unit) reachesDistrusted(ctx context.Context, devices []Peer) (bool, error) {
	jids := make([]string, len(devices))
	for i, p := range devices {
		jids[i] = p.JID
	}
	if err := u.learn(ctx, jids...); err != nil {
		return false, err
	}
	for _, p := range devices {
		d, ok := u.knows(p.JID).device(p)
		if ok && !d.Fingerprint.IsZero() && u.trust(p.Address, d.Fingerprint) == Distrusted {
			return true, nil
		}
	}
	return false, nil
}
