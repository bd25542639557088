package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

const (
	// bundleAge is how long a bundle is kept that was fetched ahead.
	bundleAge = 5 * time.Minute
	// maxAhead bounds the bundles that are kept.
	maxAhead = 1024
)

// ready returns the session in use, once our own device is in order.
func (m *Middleware) ready(ctx context.Context) (*link, error) {
	l := m.current()
	if l == nil {
		return nil, ErrOffline
	}
	return l, l.wait(ctx)
}

// Rotate makes new signed pre keys before it is time, and has them published.
func (m *Middleware) Rotate(ctx context.Context) error {
	if err := m.manager.Rotate(ctx); err != nil {
		return err
	}
	if l := m.current(); l != nil {
		signal(l.wake)
	}
	return nil
}

// Replace begins new sessions with devices of an account, in place of such as do
// not work any more, and tells the devices with an empty message: with those
// that are named, or with all active ones. What was sent in the old sessions and
// is still on its way can be read.
//
// The result says for each device what became of it. Devices that are
// distrusted, or whose bundle cannot be had, keep their sessions.
func (m *Middleware) Replace(ctx context.Context, account jid.JID, devices ...omemo.DeviceID) ([]omemo.DeviceResult, error) {
	l, err := m.ready(ctx)
	if err != nil {
		return nil, err
	}
	bare := account.Bare().String()
	if err := l.directory.lists(ctx, bare); err != nil {
		return nil, err
	}
	peers, err := m.manager.Replaceable(ctx, bare)
	if err != nil {
		return nil, err
	}
	if len(devices) > 0 {
		peers = slices.DeleteFunc(peers, func(p omemo.Peer) bool { return !slices.Contains(devices, p.Address.Device) })
	}
	if len(peers) == 0 {
		return nil, fmt.Errorf("middleware: %w", omemo.ErrNoDevices)
	}
	bundles, err := l.bundles(ctx, peers)
	if err != nil {
		return nil, err
	}
	var results []omemo.DeviceResult
	for _, p := range peers {
		result, err := l.replace(ctx, p, bundles)
		if err != nil {
			return results, err
		}
		results = append(results, result)
	}
	return results, nil
}

// replace begins a new session with one device. Errors are those that concern
// more than this device.
func (l *link) replace(ctx context.Context, p omemo.Peer, bundles []*omemo.Bundle) (omemo.DeviceResult, error) {
	result := omemo.DeviceResult{Peer: p}
	i := slices.IndexFunc(bundles, func(b *omemo.Bundle) bool { return b.Peer() == p })
	if i < 0 {
		result.Err = omemo.ErrNoBundle
		return result, nil
	}
	var err error
	if result.Fingerprint, err = bundles[i].Fingerprint(); err != nil {
		result.Err = err
		return result, nil
	}
	if result.Trust, err = l.m.manager.TrustOf(ctx, p.Address, result.Fingerprint); err != nil {
		return result, err
	}
	if result.Trust == omemo.Distrusted {
		result.Err = omemo.ErrUntrusted
		return result, nil
	}
	d := &draft{
		shell: stanza.NewElement(stanza.NSClient, "message").SetAttribute("type", "chat").SetAttribute("to", p.JID),
		id:    newID(), to: p.JID,
	}
	sealed, err := l.m.manager.Replace(ctx, bundles[i], func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		return l.m.assemble(d, s, false)
	})
	switch {
	case errors.Is(err, omemo.ErrIdentityChanged):
		l.compareAll(ctx, bundles[i:i+1])
		fallthrough
	case errors.Is(err, omemo.ErrBundle):
		result.Err = err
		return result, nil
	case err != nil:
		return result, err
	}
	result.Exchange = true
	l.m.coreEvents(sealed.Events)
	l.transmit(ctx, sealed.Outbox)
	return result, nil
}

// Prepare fetches the device lists of accounts and the bundles that the next
// message to them will need, so that it leaves at once: when a chat is opened, or
// for contacts whose presence we do not see and whose lists no event brings. It does
// so until the contact's next presence, after which its lists are asked for again,
// or the next event about its lists, which may name devices that are new.
func (m *Middleware) Prepare(ctx context.Context, accounts ...jid.JID) error {
	l, err := m.ready(ctx)
	if err != nil {
		return err
	}
	failures := make([]error, len(accounts))
	slots := make(chan struct{}, parallelFetches)
	var wg sync.WaitGroup
	for i, account := range accounts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			bundles, err := l.prepare(ctx, omemo.Plaintext{Legacy: []byte{}, V2: []byte{}}, account.Bare().String())
			l.ahead.put(bundles)
			failures[i] = err
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

// ahead holds bundles that were fetched before they are needed.
type ahead struct {
	mu      sync.Mutex
	bundles map[omemo.Peer]aheadBundle
}

type aheadBundle struct {
	*omemo.Bundle
	at time.Time
}

func (a *ahead) put(bundles []*omemo.Bundle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bundles == nil || len(a.bundles)+len(bundles) > maxAhead {
		a.bundles = make(map[omemo.Peer]aheadBundle)
	}
	for _, b := range bundles {
		a.bundles[b.Peer()] = aheadBundle{b, time.Now()}
	}
}

// of returns the bundles of accounts that are not too old.
func (a *ahead) of(accounts []string) (found []*omemo.Bundle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, b := range a.bundles {
		if slices.Contains(accounts, p.JID) && time.Since(b.at) <= bundleAge {
			found = append(found, b.Bundle)
		}
	}
	return found
}

// take returns the bundle of a device, once, if there is one that is not too old.
func (a *ahead) take(p omemo.Peer) *omemo.Bundle {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.bundles[p]
	delete(a.bundles, p)
	if !ok || time.Since(b.at) > bundleAge {
		return nil
	}
	return b.Bundle
}
