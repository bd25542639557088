package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
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

// publications is how often a bundle is published until what can be read is what was
// published: the first may be followed by one that we wrote before our last
// connection broke, and that the server has got to only now.
const publications = 2

// publishBundle publishes our bundle, unless the one on the server is the same,
// and reads it back. The node is put right before, so that publishing does not
// remove the bundles of our other devices, and looked at afterwards.
func (l *link) publishBundle(ctx context.Context, v omemo.Version, list devicelist.List) error {
	ours, err := l.m.manager.Bundle(ctx, v)
	if err != nil {
		return err
	}
	node, items := bundle.Node(v, l.m.own.Device()), 1
	if v == omemo.V2 { // one node for the bundles of all devices
		items = len(list.Devices)
		if !list.Contains(l.m.own.Device()) {
			items++
		}
	}
	if err := l.mend(ctx, node, items); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		theirs, err := l.ownBundle(ctx, l.m.own.Device(), v)
		if err == nil {
			theirs.Owner = ours.Owner
			if err := l.compareLate(ctx, &theirs); err != nil {
				return err
			}
			if theirs.SameKeys(ours) && theirs.Verify() == nil {
				break
			}
		}
		if err != nil && !errors.Is(err, pep.ErrNone) && !errors.Is(err, bundle.ErrMalformed) {
			return err
		}
		if attempt == publications {
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
	if !hasEntry(list.List, own) || len(l.overlap.lost(list)) > 0 {
		// What was read before may be old by now.
		before := list
		if list, err = l.ownList(ctx, list.Version); err != nil {
			return err
		}
		i := slices.IndexFunc(list.Devices, func(d devicelist.Device) bool { return d.ID == own.ID })
		if i < 0 && before.Contains(own.ID) { // removed meanwhile: see reannounce
			l.directory.doubt(listKey{l.m.own.JID, list.Version})
			signal(l.wake)
			return nil
		}
		if i < 0 {
			list.Devices = append(list.Devices, own)
		} else {
			list.Devices[i] = own
		}
		list.Devices = append(list.Devices, l.overlap.lost(list)...)
		if err := l.publishOwn(ctx, list); err != nil {
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
	own := devicelist.Device{ID: l.m.own.Device()}
	if list.Version != omemo.V2 || l.m.config.Label == "" {
		return own, nil
	}
	for _, d := range list.Devices {
		if d.ID != own.ID || d.Label != l.m.config.Label {
			continue
		}
		b, err := l.m.manager.Bundle(ctx, omemo.V2)
		if err != nil {
			return own, err
		}
		known := omemo.Device{Peer: b.Peer(), Identity: b.IdentityKey, Label: d.Label}
		copy(known.LabelSignature[:], d.LabelSig)
		if known.VerifiedLabel() == d.Label {
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

// withdrawAfter is how often publishing a bundle anew fails before the version is
// withdrawn: the one before is still good.
const withdrawAfter = 3

// attempts are those to publish a bundle that have failed.
type attempts struct {
	failed int // in a row
	after  time.Time
}

// republish does the owed work of publishing a bundle, with growing pauses while
// it fails. A version that stays withdrawn is no failure. One that is not served
// owes nothing: if it is again, Wrap publishes its bundle.
func (l *link) republish(ctx context.Context, v omemo.Version) error {
	if errors.Is(l.m.Withdrawn(v), ErrPurged) {
		return l.m.manager.Strike(ctx, omemo.OwedID{Kind: omemo.OwedBundle, Peer: omemo.Peer{Version: v}})
	}
	past := l.publishing[v]
	if time.Now().Before(past.after) {
		return nil
	}
	list, err := l.ownList(ctx, v)
	if err == nil && l.m.Withdrawn(v) != nil {
		err = l.advertise(ctx, v, list)
	} else if err == nil {
		err = l.publishBundle(ctx, v, list.List)
	}
	if past.failed++; isVerdict(err) && (past.failed >= withdrawAfter || l.m.Withdrawn(v) != nil) {
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
