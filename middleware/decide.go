package middleware

import (
	"context"
	"errors"

	"example.org/omellium/omemo"
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
