package omemo

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Advert is what the program that has the account says of its device to others. It
// is written down for whoever looks after the store while the program does not run;
// nothing is decided by it.
type Advert struct {
	// Versions are those whose device lists name the device; none if it was taken
	// off all of them.
	Versions []Version
	// Label is the name of the device on the omemo:2 list, 1 to 53 printable
	// characters; empty if it has none.
	Label string
	// SignedPreKeyPeriod is how long a signed pre key is published, one to four
	// weeks.
	SignedPreKeyPeriod time.Duration
}

// Advert returns what was written down last; ok is false if nothing was.
func (m *Manager) Advert(ctx context.Context) (a Advert, ok bool, err error) {
	err = m.read(ctx, func(u *unit) error {
		if written := u.own().advert; written != nil {
			a, ok = *written, true
			a.Versions = slices.Clone(a.Versions)
		}
		return nil
	})
	return a, ok, err
}

// SetAdvert writes down what the device is advertised as, unless that is known.
// A period of 0 is SignedPreKeyPeriod. A label that nobody may have is ErrLabel.
func (m *Manager) SetAdvert(ctx context.Context, a Advert) error {
	if a.SignedPreKeyPeriod == 0 {
		a.SignedPreKeyPeriod = SignedPreKeyPeriod
	}
	switch {
	case slices.ContainsFunc(a.Versions, func(v Version) bool { return !v.Valid() }),
		a.SignedPreKeyPeriod < SignedPreKeyPeriod, a.SignedPreKeyPeriod > MaxSignedPreKeyPeriod:
		return fmt.Errorf("omemo: versions %v with signed pre keys of %v cannot be advertised", a.Versions, a.SignedPreKeyPeriod)
	case a.Label != "" && !labelAllowed(a.Label):
		return ErrLabel
	}
	a.Versions = slices.Clone(a.Versions)
	slices.Sort(a.Versions)
	a.Versions = slices.Compact(a.Versions)
	return m.work(ctx, func(u *unit) error {
		if string(appendAdvert(nil, &a)) != string(appendAdvert(nil, u.own().advert)) {
			u.change().advert = &a
		}
		return nil
	})
}

// advertWritten marks the first byte of an advert in a record, beside a bit for
// each version; 0 stands for no advert.
const advertWritten = 1 << 7

// appendAdvert appends an advert, or that there is none, to a record.
func appendAdvert(b []byte, a *Advert) []byte {
	if a == nil {
		return append(b, 0)
	}
	first := byte(advertWritten)
	for _, v := range a.Versions {
		first |= byte(v)
	}
	b = append(b, first, byte(len(a.Label)))
	b = append(b, a.Label...)
	return binary.BigEndian.AppendUint64(b, uint64(a.SignedPreKeyPeriod))
}

// advert reads what appendAdvert has written.
func (r *reader) advert() *Advert {
	first := r.byte()
	if first == 0 {
		return nil
	}
	a := &Advert{Label: string(r.take(int(r.byte()))), SignedPreKeyPeriod: time.Duration(r.uint64())}
	written := byte(advertWritten)
	for _, v := range []Version{Legacy, V2} {
		if first&byte(v) != 0 {
			a.Versions = append(a.Versions, v)
			written |= byte(v)
		}
	}
	r.bad = r.bad || first != written
	return a
}
