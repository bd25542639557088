package middleware

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// Reasons why a version is withdrawn, besides what the server itself answers.
var (
	// ErrAccessModel: a node can only be read by some, and the server does not
	// let us open it.
	ErrAccessModel = errors.New("middleware: not everybody can read what is published")
	// ErrItemLimit: the server keeps fewer bundles than the account has devices,
	// so that publishing ours would remove another one.
	ErrItemLimit = errors.New("middleware: server does not keep the bundles of all devices")
	// ErrReadBack: what can be read is not what was published.
	ErrReadBack = errors.New("middleware: what was published is not what can be read")
)

const (
	// How often our own device is put back on our own list: another client of
	// the account may keep removing it. Two that both put themselves back at
	// once would remove each other: whence a pause of random length.
	reannounceLimit  = 5
	reannounceWindow = time.Hour
	reannounceJitter = 2 * time.Second
	// doubtPause is how often our own lists are looked at because of a message
	// that was not for us.
	doubtPause = time.Minute
	// withdrawAfter is how often publishing a bundle anew fails before the
	// version is withdrawn: the one before is still good.
	withdrawAfter = 3
)

// advertise publishes our bundle of a version and our place on its list, and
// reads both back as a stranger would. If the server does not let us serve the
// version as it has to be served, it is withdrawn: whoever finds us on a list
// must be able to rely on it. Only what is no verdict of the server is an error.
func (l *link) advertise(ctx context.Context, v omemo.Version, list ownList) error {
	err := l.publishBundle(ctx, v, list.List)
	if err == nil {
		err = l.publishList(ctx, list)
	}
	if err == nil {
		l.m.restore(v)
		return nil
	}
	if !isVerdict(err) {
		return err
	}
	return l.withdraw(ctx, v, err)
}

// isVerdict reports whether the server has spoken, as opposed to the connection
// having failed.
func isVerdict(err error) bool {
	_, refused := errors.AsType[*pep.Error](err)
	for _, reason := range []error{ErrAccessModel, ErrItemLimit, ErrReadBack, pep.ErrNone, bundle.ErrMalformed, devicelist.ErrMalformed} {
		refused = refused || errors.Is(err, reason)
	}
	return refused
}

// withdraw takes our device off the list of a version. The bundle stays owed, so
// that it is tried again.
func (l *link) withdraw(ctx context.Context, v omemo.Version, reason error) error {
	if err := l.m.manager.Owe(ctx, omemo.OwedID{Kind: omemo.OwedBundle, Peer: omemo.Peer{Version: v}}); err != nil {
		return err
	}
	if err := l.unlist(ctx, v, l.m.own.Device); err != nil && !isVerdict(err) {
		return err
	}
	if l.m.setWithdrawn(v, reason) {
		l.m.emit(Event{Kind: Withdrawn, Version: v, Err: reason})
	}
	return nil
}

// unlist takes devices off our own list of a version.
func (l *link) unlist(ctx context.Context, v omemo.Version, ids ...omemo.DeviceID) error {
	list, err := l.ownList(ctx, v)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(list.Devices), func(d devicelist.Device) bool { return slices.Contains(ids, d.ID) })
	if len(kept) < len(list.Devices) {
		list.Devices = kept
		if err := devicelist.Publish(ctx, l, list.List); err != nil {
			return err
		}
	}
	return l.keepList(ctx, list)
}

// ownList is a list of our own, with the number of events about it that had
// been heard when it was asked for.
type ownList struct {
	devicelist.List
	heard uint64
}

// ownList fetches our own list of a version; none is an empty one.
func (l *link) ownList(ctx context.Context, v omemo.Version) (ownList, error) {
	own := ownList{heard: l.directory.heard(listKey{l.m.own.JID, v})}
	var err error
	if own.List, err = devicelist.Fetch(ctx, l, "", v); err != nil && !errors.Is(err, pep.ErrNone) {
		return own, err
	}
	own.Version = v
	return own, nil
}

// keepList takes over a list of our own that was fetched.
func (l *link) keepList(ctx context.Context, list ownList) error {
	return l.directory.fetched(ctx, listKey{l.m.own.JID, list.Version}, list.List, list.heard)
}

// setWithdrawn notes that a version is withdrawn, and reports whether that is
// news.
func (m *Middleware) setWithdrawn(v omemo.Version, reason error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, before := m.withdrawn[v]
	if m.withdrawn == nil {
		m.withdrawn = make(map[omemo.Version]error)
	}
	m.withdrawn[v] = reason
	return !before
}

// restore notes that a version is served.
func (m *Middleware) restore(v omemo.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.withdrawn, v)
}

// Withdrawn returns why a version is not served at this moment; nil if it is, or
// if the connection was not set up yet.
func (m *Middleware) Withdrawn(v omemo.Version) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.withdrawn[v]
}

// publishBundle publishes our bundle, unless the one on the server is the same,
// and reads it back. The node is put right before, so that publishing does not
// remove the bundles of our other devices, and looked at afterwards.
func (l *link) publishBundle(ctx context.Context, v omemo.Version, list devicelist.List) error {
	ours, err := l.m.manager.Bundle(ctx, v)
	if err != nil {
		return err
	}
	node, items := bundle.Node(v, l.m.own.Device), 1
	if v == omemo.V2 { // one node for the bundles of all devices
		items = len(list.Devices)
		if !list.Contains(l.m.own.Device) {
			items++
		}
	}
	if err := l.mend(ctx, node, items); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		theirs, err := bundle.Fetch(ctx, l, l.own(), v)
		if err == nil {
			theirs.Owner = ours.Owner
			if theirs.SameKeys(ours) && theirs.Verify() == nil {
				break
			}
		}
		if err != nil && !errors.Is(err, pep.ErrNone) && !errors.Is(err, bundle.ErrMalformed) {
			return err
		}
		if attempt > 0 {
			return fmt.Errorf("%w: %s bundle", ErrReadBack, v)
		}
		if err := bundle.Publish(ctx, l, ours); err != nil {
			return err
		}
		if err := l.mend(ctx, node, items); err != nil {
			return err
		}
	}
	if err := l.m.manager.Published(ctx, ours); err != nil {
		return err
	}
	l.m.emit(Event{Kind: Published, Version: v})
	return nil
}

// mend puts a node right that somebody has created with other options, if it
// exists. The reasons are ErrAccessModel and ErrItemLimit.
func (l *link) mend(ctx context.Context, node string, items int) error {
	o, err := pep.Mend(ctx, l, node, items)
	_, untold := errors.AsType[*pep.Error](err)
	switch {
	case errors.Is(err, pep.ErrNone), untold: // a server that does not tell: what can be read decides
		return nil
	case err != nil:
		return err
	case o.AccessModel != "" && o.AccessModel != "open":
		return fmt.Errorf("%w: %s is %q", ErrAccessModel, node, o.AccessModel)
	case !o.Holds(items):
		return fmt.Errorf("%w: %s holds %s of %d", ErrItemLimit, node, o.MaxItems, items)
	}
	return nil
}

// publishList puts our device on our own list, if it is not there as it should,
// and reads it back. Other devices, with their labels, stay as they are.
func (l *link) publishList(ctx context.Context, list ownList) error {
	own, err := l.entry(ctx, list.List)
	if err != nil {
		return err
	}
	if err := l.mend(ctx, devicelist.Node(list.Version), 1); err != nil {
		return err
	}
	if !hasEntry(list.List, own) {
		// What was read before may be old by now.
		if list, err = l.ownList(ctx, list.Version); err != nil {
			return err
		}
		i := slices.IndexFunc(list.Devices, func(d devicelist.Device) bool { return d.ID == own.ID })
		if i < 0 {
			list.Devices = append(list.Devices, own)
		} else {
			list.Devices[i] = own
		}
		if err := devicelist.Publish(ctx, l, list.List); err != nil {
			return err
		}
		l.unheard.published(list.Version)
		l.m.emit(Event{Kind: ListPublished, Version: list.Version})
		if err := l.mend(ctx, devicelist.Node(list.Version), 1); err != nil {
			return err
		}
		if list, err = l.ownList(ctx, list.Version); err != nil {
			return err
		}
		if !hasEntry(list.List, own) {
			return fmt.Errorf("%w: %s device list", ErrReadBack, list.Version)
		}
	}
	return l.keepList(ctx, list)
}

// entry returns what stands, or has to stand, for us on a list.
func (l *link) entry(ctx context.Context, list devicelist.List) (devicelist.Device, error) {
	own := devicelist.Device{ID: l.m.own.Device}
	if list.Version != omemo.V2 || l.m.config.Label == "" {
		return own, nil
	}
	b, err := l.m.manager.Bundle(ctx, omemo.V2)
	if err != nil {
		return own, err
	}
	for _, d := range list.Devices {
		known := omemo.Device{Peer: b.Peer(), Identity: b.IdentityKey, Label: d.Label}
		copy(known.LabelSignature[:], d.LabelSig)
		if d.ID == own.ID && known.VerifiedLabel() == l.m.config.Label {
			return d, nil
		}
	}
	label, err := l.m.manager.SignLabel(ctx, l.m.config.Label)
	own.Label, own.LabelSig = label.Text, label.Signature[:]
	return own, err
}

func hasEntry(list devicelist.List, own devicelist.Device) bool {
	return slices.ContainsFunc(list.Devices, func(d devicelist.Device) bool {
		return d.ID == own.ID && d.Label == own.Label && slices.Equal(d.LabelSig, own.LabelSig)
	})
}

// doubtOwnLists has our own lists looked at: whoever left us out of a message may
// not have found us there.
func (l *link) doubtOwnLists() {
	if allowed, _ := l.m.doubts.allow(); !allowed {
		return
	}
	for _, v := range omemo.Versions() {
		l.directory.doubt(listKey{l.m.own.JID, v})
	}
	signal(l.wake)
}

// reannounce puts our device back on our own lists if somebody has removed it.
func (l *link) reannounce(ctx context.Context) error {
	for _, v := range omemo.Versions() {
		k := listKey{l.m.own.JID, v}
		if !l.directory.stale(k) {
			continue
		}
		list, err := l.ownList(ctx, v)
		if err != nil {
			return err
		}
		if l.m.Withdrawn(v) != nil {
			if err := l.keepList(ctx, list); err != nil {
				return err
			}
			continue
		}
		missing := !list.Contains(l.m.own.Device)
		if missing {
			allowed, news := l.m.answers.allow()
			if !allowed {
				if news {
					l.m.emit(Event{Kind: OwnDeviceContested, Version: v})
				}
				continue
			}
			select {
			case <-time.After(rand.N(reannounceJitter)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := l.publishList(ctx, list); err != nil {
			return err
		}
		if missing {
			l.m.emit(Event{Kind: OwnDeviceRemoved, Version: v})
		}
	}
	return nil
}

// attempts are those to publish a bundle that have failed.
type attempts struct {
	failed int // in a row
	after  time.Time
}

// republish does the owed work of publishing a bundle, with growing pauses while
// it fails. A version that stays withdrawn is no failure.
func (l *link) republish(ctx context.Context, v omemo.Version) error {
	past := l.publishing[v]
	if time.Now().Before(past.after) || errors.Is(l.m.Withdrawn(v), ErrPurged) {
		return nil
	}
	list, err := l.ownList(ctx, v)
	if err == nil && l.m.Withdrawn(v) != nil {
		err = l.advertise(ctx, v, list)
	} else if err == nil {
		err = l.publishBundle(ctx, v, list.List)
	}
	if past.failed++; isVerdict(err) && past.failed >= withdrawAfter {
		err = l.withdraw(ctx, v, err)
	}
	if err == nil && l.m.Withdrawn(v) == nil {
		delete(l.publishing, v)
		return nil
	}
	past.after = time.Now().Add(min(workPause<<min(past.failed-1, 10), workPauseLimit))
	l.publishing[v] = past
	return err
}

// unheard knows which lists were changed before our presence was sent. ejabberd
// tells contacts of a change only if the resource that publishes is available:
// these lists are published once more, as they are, when it is.
type unheard struct {
	mu       sync.Mutex
	present  bool
	versions []omemo.Version
}

func (u *unheard) published(v omemo.Version) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.present && !slices.Contains(u.versions, v) {
		u.versions = append(u.versions, v)
	}
}

// available notes that presence was sent, and reports whether a list is to be
// published again.
func (u *unheard) available() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.present = true
	return len(u.versions) > 0
}

// due returns the lists to publish again, once.
func (u *unheard) due() []omemo.Version {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.present {
		return nil
	}
	due := u.versions
	u.versions = nil
	return due
}

// tell publishes the lists again that contacts may not have heard of.
func (l *link) tell(ctx context.Context) error {
	for _, v := range l.unheard.due() {
		list, err := l.ownList(ctx, v)
		if err != nil {
			return err
		}
		if list.Contains(l.m.own.Device) {
			if err := devicelist.Publish(ctx, l, list.List); err != nil {
				return err
			}
			l.m.emit(Event{Kind: ListPublished, Version: v})
		}
	}
	return nil
}
