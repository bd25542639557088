package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
	"example.org/omellium/stanza/pep"
)

// Decide records decisions about keys, all of them at once or none: see
// omemo.Manager.Decide. With Config.AutomaticTrust it tells, in the same commit,
// our own other devices and those of contacts that have to know (XEP-0450), as far
// as their keys are verified; what cannot be written now leaves after the next
// Wrap. The result says which devices were told, and why others were not; the
// decisions stand in either case. Deciding the same once more tells all of them
// again.
func (m *Middleware) Decide(ctx context.Context, decisions ...omemo.Decision) ([]omemo.DeviceResult, error) {
	if !m.config.AutomaticTrust {
		return nil, m.manager.Decide(ctx, decisions...)
	}
	var bundles []*omemo.Bundle
	l := m.current()
	if l != nil && l.isReady() {
		var err error
		if bundles, err = l.audience(ctx, decisions); err != nil && !errors.Is(err, ErrOffline) {
			return nil, err
		}
	}
	out, err := m.manager.Announce(ctx, decisions, m.composeTrust, bundles...)
	if err != nil {
		return nil, err
	}
	m.coreEvents(out.Events)
	if l := m.current(); l != nil {
		for _, row := range out.Outbox {
			l.queue.push(row.Chat, &job{row: &row})
		}
	}
	return out.Devices, nil
}

// isReady reports whether our own device is in order, and the wire still there.
func (l *link) isReady() bool {
	select {
	case <-l.ready:
		return l.ctx.Err() == nil
	default:
		return false
	}
}

// audience brings together what telling others of decisions needs: device lists,
// and bundles. What cannot be had is left out.
func (l *link) audience(ctx context.Context, decisions []omemo.Decision) ([]*omemo.Bundle, error) {
	asked := map[string]bool{}
	for _, jid := range append([]string{l.m.own.JID}, owners(decisions)...) {
		if asked[jid] {
			continue
		}
		asked[jid] = true
		if err := l.directory.lists(ctx, jid); err != nil && !errors.Is(err, pep.ErrNone) {
			if ctx.Err() != nil {
				return nil, err
			}
			l.trouble(err)
		}
	}
	wanted, err := l.m.manager.Audience(ctx, decisions)
	if err != nil {
		return nil, err
	}
	return l.bundles(ctx, wanted)
}

func owners(decisions []omemo.Decision) (jids []string) {
	for _, d := range decisions {
		jids = append(jids, d.JID)
	}
	return jids
}

// ErrMismatch: a URI names another key for a device than the one that is known.
// Either the device has another one now, or somebody is in between.
var ErrMismatch = errors.New("middleware: URI names another key for a known device")

// VerifyURI decides, as Decide does, that the keys which a URI names are verified:
// those, and no others. Only a person can call it who knows that the URI comes from
// its account's owner, such as by scanning a code from a screen. If a device that
// the URI names is known with another key, or the URI names our key as another
// account's, nothing is decided, and the error is a *omemo.DeviceError with
// ErrMismatch. The URI may be of our own account.
func (m *Middleware) VerifyURI(ctx context.Context, uri string) ([]omemo.DeviceResult, error) {
	u, err := verify.ParseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	decisions, err := URIDecisions(ctx, m.manager, u)
	if err != nil {
		return nil, err
	}
	return m.Decide(ctx, decisions...)
}

// URIDecisions returns what VerifyURI decides, for programs that have no
// Middleware.
func URIDecisions(ctx context.Context, m *omemo.Manager, u verify.URI) ([]omemo.Decision, error) {
	account := u.Account.String()
	_, known, err := m.Account(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	own, err := m.Fingerprint(ctx)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	us, err := m.Device(ctx)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	var decisions []omemo.Decision
	for _, d := range u.Devices {
		// Our key is ours alone, and this device has no other.
		if here := account == us.JID; d.Fingerprint == own && !here || d.Fingerprint != own && here && d.ID == us.Device {
			return nil, &omemo.DeviceError{Peer: omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: account, Device: d.ID}}, Err: ErrMismatch}
		}
		for _, k := range known {
			if k.Address.Device == d.ID && !k.Fingerprint.IsZero() && k.Fingerprint != d.Fingerprint {
				return nil, &omemo.DeviceError{Peer: k.Peer, Err: ErrMismatch}
			}
		}
		if d.Fingerprint != own {
			decisions = append(decisions, omemo.Decision{JID: account, Fingerprint: d.Fingerprint, Trust: omemo.Verified})
		}
	}
	return decisions, nil
}

// OwnURI returns the URI that names this device, and those other devices of our own
// account whose keys are verified: for others to scan.
func (m *Middleware) OwnURI(ctx context.Context) (verify.URI, error) {
	u := verify.URI{Account: m.account}
	own, err := m.manager.Fingerprint(ctx)
	if err != nil {
		return u, fmt.Errorf("middleware: %w", err)
	}
	u.Devices = []verify.Device{{ID: m.own.Device(), Fingerprint: own}}
	_, devices, err := m.manager.Account(ctx, m.own.JID)
	if err != nil {
		return u, fmt.Errorf("middleware: %w", err)
	}
	for _, d := range devices {
		trust, err := m.manager.TrustOf(ctx, d.Address, d.Fingerprint)
		if err != nil {
			return u, fmt.Errorf("middleware: %w", err)
		}
		named := slices.ContainsFunc(u.Devices, func(n verify.Device) bool { return n.ID == d.Address.Device })
		if d.Active && !d.Fingerprint.IsZero() && trust == omemo.Verified && !named {
			u.Devices = append(u.Devices, verify.Device{ID: d.Address.Device, Fingerprint: d.Fingerprint})
		}
	}
	return u, nil
}
