package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// listPause is when a list that could not be had is asked for again.
const listPause = time.Minute

// parallelFetches bounds the bundles asked for at once for one message.
const parallelFetches = 4

// longFetch is how many bundles are worth telling how far fetching them is.
const longFetch = 16

// directory keeps device lists current. A list is taken as it is known if an
// event has brought it during this connection, or if it was asked for not long
// ago; else it is asked for again before something is sent.
type directory struct {
	l *link

	mu     sync.Mutex
	fresh  map[listKey]freshness
	news   map[listKey]uint64 // number of the last event about a list
	events uint64             // counts those about all lists
	turns  map[string]*turn   // one fetch for an account at a time
}

// turn is whose turn it is to ask for the lists of an account.
type turn struct {
	taken chan struct{}
	users int // that hold it or wait for it
}

// maxLists bounds the lists of which anything is kept here: every account may send
// events. What is dropped is asked for again before it is used.
const maxLists = 8192

type listKey struct {
	account string
	version omemo.Version
}

type freshness struct {
	at    time.Time
	event bool // the server tells us of changes
	// outdated: what is known is what was known before, because the list could
	// not be had.
	outdated bool
}

var errOutdated = errors.New("middleware: device lists could not be had")

func (d *directory) init(l *link) {
	d.l = l
	d.fresh = make(map[listKey]freshness)
	d.news = make(map[listKey]uint64)
	d.turns = make(map[string]*turn)
}

// heard returns the number of the last event about a list: what is asked for now
// may be older than the next.
func (d *directory) heard(k listKey) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news[k]
}

// learnt notes that a list is known as it is now.
func (d *directory) learnt(k listKey, event bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.makeRoom()
	if event {
		d.events++
		d.news[k] = d.events
	}
	d.fresh[k] = freshness{at: time.Now(), event: event || d.fresh[k].event}
}

// makeRoom drops what is kept about the lists of others if it is too much.
func (d *directory) makeRoom() {
	others := func(k listKey) bool { return k.account != d.l.m.own.JID }
	if len(d.fresh) >= maxLists {
		maps.DeleteFunc(d.fresh, func(k listKey, _ freshness) bool { return others(k) })
	}
	if len(d.news) >= maxLists {
		maps.DeleteFunc(d.news, func(k listKey, _ uint64) bool { return others(k) })
	}
}

// doubt has a list asked for before it is used again.
func (d *directory) doubt(k listKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.fresh, k)
}

// changed has a list asked for before it is used again, and once more if it is
// being asked for: it may be another by now.
func (d *directory) changed(k listKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.makeRoom()
	d.events++
	d.news[k] = d.events
	delete(d.fresh, k)
}

// postpone has a list that could not be had asked for again only after a while,
// so that not every message waits for a server that does not answer.
func (d *directory) postpone(k listKey) {
	if !d.stale(k) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.makeRoom()
	d.fresh[k] = freshness{at: time.Now().Add(listPause - d.l.m.config.ListAge), outdated: true}
}

func (d *directory) stale(k listKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.fresh[k]
	return !ok || !f.event && time.Since(f.at) > d.l.m.config.ListAge
}

// lock makes sure that an account is asked by one message at a time: those that
// wait find the answer.
func (d *directory) lock(ctx context.Context, account string) (unlock func(), err error) {
	d.mu.Lock()
	t := d.turns[account]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		d.turns[account] = t
	}
	t.users++
	d.mu.Unlock()
	leave := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(d.turns, account)
		}
	}
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// lists makes sure that the device lists of an account are known in both
// versions. If one cannot be had, what was known before serves, but only if
// something was: else it is an error, never a reason for plain text.
func (d *directory) lists(ctx context.Context, account string) error {
	ctx, cancel := context.WithTimeout(ctx, d.l.m.config.FetchTimeout)
	defer cancel()
	unlock, err := d.lock(ctx, account)
	if err != nil {
		return err
	}
	defer unlock()
	failures := make([]error, len(omemo.Versions()))
	var wg sync.WaitGroup
	for i, v := range omemo.Versions() {
		if k := (listKey{account, v}); d.stale(k) {
			wg.Go(func() { failures[i] = d.fetch(ctx, k) })
		}
	}
	wg.Wait()
	failure := errors.Join(failures...)
	if failure == nil {
		return nil
	}
	contact, _, err := d.l.m.manager.Account(context.WithoutCancel(ctx), account)
	if err != nil {
		return err
	}
	if len(contact.Lists) == 0 || errors.Is(failure, ErrOffline) {
		return fmt.Errorf("middleware: device lists: %w", failure)
	}
	for _, v := range omemo.Versions() {
		d.postpone(listKey{account, v})
	}
	d.l.trouble(fmt.Errorf("middleware: device lists: %w", failure))
	return nil
}

// certain is lists for those who must know what the lists are now: what was
// known before does not serve.
func (d *directory) certain(ctx context.Context, account string) error {
	if err := d.lists(ctx, account); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range omemo.Versions() {
		if d.fresh[listKey{account, v}].outdated {
			return errOutdated
		}
	}
	return nil
}

// fetch asks for one list.
func (d *directory) fetch(ctx context.Context, k listKey) error {
	heard := d.heard(k)
	list, err := devicelist.Fetch(ctx, d.l, d.address(k.account), k.version)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		return err
	}
	return d.fetched(ctx, k, list, heard)
}

// fetched takes a list over that was asked for when so many events had been
// heard. If there was another meanwhile, the list may be the older one of the
// two, and is asked for again before it is used.
func (d *directory) fetched(ctx context.Context, k listKey, list devicelist.List, heard uint64) error {
	if err := d.set(ctx, k, list, false); err != nil {
		return err
	}
	if d.heard(k) != heard {
		d.doubt(k)
		if k.account == d.l.m.own.JID {
			signal(d.l.wake)
		}
	}
	return nil
}

// address leaves the address of our own account out, as servers expect it.
func (d *directory) address(account string) string {
	if account == d.l.m.own.JID {
		return ""
	}
	return account
}

// set takes a list over.
func (d *directory) set(ctx context.Context, k listKey, list devicelist.List, event bool) error {
	ids := make([]omemo.DeviceID, 0, len(list.Devices))
	var labels []omemo.Label
	for _, device := range list.Devices {
		ids = append(ids, device.ID)
		if device.Label != "" {
			labels = append(labels, omemo.Label{Device: device.ID, Text: device.Label, Signature: [64]byte(device.LabelSig)})
		}
	}
	var added []omemo.DeviceID
	if k.account == d.l.m.own.JID {
		var err error
		if added, err = d.l.added(ctx, k.version, ids); err != nil {
			return err
		}
	}
	if err := d.l.m.manager.SetList(ctx, k.account, k.version, ids, labels...); err != nil {
		return err
	}
	d.learnt(k, event)
	for _, id := range added {
		d.l.m.emit(Event{Kind: OwnDeviceAdded, Account: k.account, Device: id, Version: k.version})
	}
	d.l.m.emit(Event{Kind: ListChanged, Account: k.account, Version: k.version})
	return nil
}

// prepare brings together what sealing for a recipient needs: device lists, and
// bundles of the devices without a session. Bundles that cannot be had are left
// out; the result of the message will say so.
func (l *link) prepare(ctx context.Context, p omemo.Plaintext, account string) ([]*omemo.Bundle, error) {
	if err := l.directory.lists(ctx, account); err != nil {
		return nil, err
	}
	if err := l.directory.lists(ctx, l.m.own.JID); err != nil {
		return nil, err
	}
	missing, err := l.m.manager.Missing(ctx, p, []string{account})
	if err != nil {
		return nil, err
	}
	return l.bundles(ctx, missing)
}

// bundle asks for a bundle, unless it was fetched ahead.
func (l *link) bundle(ctx context.Context, p omemo.Peer) (*omemo.Bundle, error) {
	if b := l.ahead.take(p); b != nil {
		return b, nil
	}
	b, err := bundle.Fetch(ctx, l, p.Address, p.Version)
	if err == nil {
		err = b.Verify()
	}
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// bundles asks for bundles, some at once, within the time for one recipient.
func (l *link) bundles(ctx context.Context, peers []omemo.Peer) ([]*omemo.Bundle, error) {
	if len(peers) == 0 {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, l.m.config.FetchTimeout)
	defer cancel()
	bundles, failures := make([]*omemo.Bundle, len(peers)), make([]error, len(peers))
	slots := make(chan struct{}, parallelFetches)
	var done atomic.Int32
	var wg sync.WaitGroup
	for i, p := range peers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			bundles[i], failures[i] = l.bundle(limited, p)
			if n := int(done.Add(1)); len(peers) >= longFetch {
				l.m.emit(Event{Kind: Progress, Account: p.JID, Done: n, Total: len(peers)})
			}
		})
	}
	wg.Wait()
	// A wire that breaks says nothing about the devices.
	if err := errors.Join(failures...); errors.Is(err, ErrOffline) {
		return nil, err
	}
	var failed []omemo.Peer
	var found []*omemo.Bundle
	for i, b := range bundles {
		if b == nil {
			failed = append(failed, peers[i])
			continue
		}
		found = append(found, b)
	}
	if len(failed) > 0 {
		if err := l.m.manager.BundleFailed(ctx, failed...); err != nil {
			return nil, err
		}
	}
	return found, nil
}
