package middleware

import (
	"context"
	"errors"

	"example.org/omellium/omemo"
)

// recordAdvert writes down what our own device is advertised as, before it is: see
// omemo.Advert. A version that the server does not let us serve at this moment is
// one of those all the same.
func (m *Middleware) recordAdvert(ctx context.Context) error {
	a := omemo.Advert{SignedPreKeyPeriod: m.config.SignedPreKeyPeriod}
	for _, v := range omemo.Versions() {
		if errors.Is(m.Withdrawn(v), ErrPurged) {
			continue
		}
		a.Versions = append(a.Versions, v)
		if v == omemo.V2 {
			a.Label = m.config.Label
		}
	}
	return m.manager.SetAdvert(ctx, a)
}
