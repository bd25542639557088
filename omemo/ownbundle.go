package omemo

import (
	"context"
	"slices"
)

// Bundle returns our own bundle of a version, as it is to be published.
func (m *Manager) Bundle(ctx context.Context, v Version) (*Bundle, error) {
	var b *Bundle
	err := m.read(ctx, func(u *unit) (err error) {
		b, err = u.bundle(ctx, v)
		return err
	})
	return b, err
}

func (u *unit) bundle(ctx context.Context, v Version) (*Bundle, error) {
	rows, err := u.store.PreKeys(ctx, v)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b PreKeyRow) int { return int(int64(a.ID) - int64(b.ID)) })
	return u.own().bundle(v, rows, u.draw), nil
}

// Published records that a bundle was published and read back. If the keys have
// changed in the meantime, the work stays owed.
func (m *Manager) Published(ctx context.Context, b *Bundle) error {
	return m.work(ctx, func(u *unit) error {
		now, err := u.bundle(ctx, b.Version)
		if err == nil && b.SameKeys(now) {
			u.changes.DropOwed = append(u.changes.DropOwed, OwedID{Kind: OwedBundle, Peer: Peer{Version: b.Version}})
		}
		return err
	})
}

// SameKeys reports whether two bundles hold the same keys, in whatever order.
// Signatures over the same key may differ.
func (b *Bundle) SameKeys(other *Bundle) bool {
	if b.Version != other.Version || b.Owner != other.Owner || b.IdentityKey != other.IdentityKey ||
		b.SignedPreKeyID != other.SignedPreKeyID || b.SignedPreKey != other.SignedPreKey || len(b.PreKeys) != len(other.PreKeys) {
		return false
	}
	keys := make(map[uint32][32]byte)
	for _, k := range b.PreKeys {
		keys[k.ID] = k.Key
	}
	for _, k := range other.PreKeys {
		if keys[k.ID] != k.Key {
			return false
		}
	}
	return true
}
