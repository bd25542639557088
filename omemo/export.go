package omemo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"example.org/omellium/omemo/internal/curve"
)

// exportFormat numbers the form of an export.
const exportFormat = 1

// export is what may be copied of an account: who it is, and whom it trusts.
// Sessions and pre keys are never in it: a second program going on with them
// would use message keys twice.
type export struct {
	Format   int           `json:"format"`
	JID      string        `json:"jid"`
	Device   DeviceID      `json:"device"`
	Kind     byte          `json:"identityKind"`
	Identity []byte        `json:"identity"` // secret
	Trust    []trustExport `json:"trust,omitempty"`
}

type trustExport struct {
	JID         string      `json:"jid"`
	Fingerprint Fingerprint `json:"fingerprint"`
	Trust       Trust       `json:"trust"`
	Since       time.Time   `json:"since"`
	By          Fingerprint `json:"by,omitzero"`
}

// Export returns the identity of the account and its decisions about keys, as
// JSON. It is secret: whoever has it can be this device. It is the only thing to
// make a backup of; a copy of the store itself must never be used again.
func (m *Manager) Export(ctx context.Context) ([]byte, error) {
	var out []byte
	err := m.read(ctx, func(u *unit) error {
		all, err := u.store.Accounts(ctx)
		if err != nil {
			return err
		}
		a := u.own()
		e := export{Format: exportFormat, JID: a.jid, Device: a.device}
		kind, secret := a.identity.Secret()
		e.Kind, e.Identity = kind, secret[:]
		for _, t := range all.Trust {
			e.Trust = append(e.Trust, trustExport(t))
		}
		out, err = json.MarshalIndent(e, "", "  ")
		clear(secret[:])
		return err
	})
	return out, err
}

// Import makes the account of an export in an empty store: the same identity and
// device id, with new keys and no sessions. The program that it was exported
// from must not run any more. What was published by it is found by Ahead when
// the bundle on the server is read, so that no id is used for a second key.
func Import(ctx context.Context, store Store, data []byte) error {
	state, err := store.Load(ctx)
	if err != nil {
		return fmt.Errorf("omemo: import: %w", err)
	}
	var e export
	if err := json.Unmarshal(data, &e); err != nil || e.Format > exportFormat {
		return fmt.Errorf("%w: %v", ErrExport, err)
	}
	switch {
	case state.Account != nil:
		return fmt.Errorf("%w: the store has an account already", ErrWrongAccount)
	case e.JID != state.JID:
		return fmt.Errorf("%w: export of %s", ErrWrongAccount, e.JID)
	case e.Format != exportFormat, len(e.Identity) != 32, e.Kind > curve.SecretScalar, e.Device == 0:
		return ErrExport
	}
	secret := [32]byte(e.Identity)
	now := time.Now()
	a, rows := newAccount(e.JID, random, now)
	a.device = e.Device
	if e.Kind == curve.SecretSeed {
		a.identity = curve.IdentityFromSeed(&secret)
	} else {
		a.identity = curve.IdentityFromScalar(&secret)
	}
	clear(secret[:])
	clear(e.Identity)
	c := &Changes{Account: a.record(), PreKeys: rows}
	for _, v := range Versions() {
		c.Owed = append(c.Owed, OwedRow{OwedID{Kind: OwedBundle, Peer: Peer{Version: v}}, now})
	}
	for _, t := range e.Trust {
		c.Trust = append(c.Trust, TrustRecord(t))
	}
	if err := store.Commit(ctx, c); err != nil {
		return fmt.Errorf("%w: %w", ErrCommit, err)
	}
	return nil
}

// MarshalText writes 64 hexadecimal digits.
func (f Fingerprint) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%x", f[:]), nil
}

// UnmarshalText reads what ParseFingerprint reads.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	parsed, err := ParseFingerprint(string(text))
	if err == nil {
		*f = parsed
	}
	return err
}
