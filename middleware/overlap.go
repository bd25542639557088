package middleware

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
)

// overlapTime is how long after a publication of ours an event may still tell of
// another one that the server had before it.
const overlapTime = 10 * time.Second

// overlap knows what another client has put on our own list after we had read it
// and before we published it: lists are published as a whole, so that ours has
// taken those devices off. They are put back.
type overlap struct {
	mu        sync.Mutex
	published map[omemo.Version]publication // the latest of ours
	others    map[omemo.Version]foreignList // the latest of others
}

type publication struct {
	heard   uint64 // events about the list when it was read
	at      time.Time
	devices []omemo.DeviceID
	removed []omemo.DeviceID // on purpose
}

type foreignList struct {
	number uint64 // of the event
	at     time.Time
	list   devicelist.List
}

// publishOwn publishes a list of our own that was fetched and changed. removed
// were taken off on purpose.
func (l *link) publishOwn(ctx context.Context, list ownList, removed ...omemo.DeviceID) error {
	l.overlap.publish(list, removed)
	return devicelist.Publish(ctx, l, list.List)
}

func (o *overlap) publish(list ownList, removed []omemo.DeviceID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.published == nil {
		o.published = make(map[omemo.Version]publication)
	}
	o.published[list.Version] = publication{list.heard, time.Now(), list.ids(), removed}
}

// event notes the event of a number about our own list.
func (o *overlap) event(number uint64, list devicelist.List) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.others == nil {
		o.others = make(map[omemo.Version]foreignList)
	}
	if p, ok := o.published[list.Version]; !ok || !slices.Equal(p.devices, (ownList{List: list}).ids()) {
		o.others[list.Version] = foreignList{number, time.Now(), list}
	}
}

// suspected returns the devices that our latest publication of a list may have
// taken off.
func (o *overlap) suspected(v omemo.Version) []devicelist.Device {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.published[v]
	e := o.others[v]
	if !ok || e.number <= p.heard || e.at.Sub(p.at) > overlapTime {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(e.list.Devices), func(d devicelist.Device) bool {
		return slices.Contains(p.devices, d.ID) || slices.Contains(p.removed, d.ID)
	})
}

// lost returns those of the suspected devices that are not on a list that was
// fetched since.
func (o *overlap) lost(list ownList) []devicelist.Device {
	return slices.DeleteFunc(o.suspected(list.Version), func(d devicelist.Device) bool { return list.Contains(d.ID) })
}

// settled notes that nothing is lost of what was heard of before a list was
// fetched.
func (o *overlap) settled(list ownList) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p, ok := o.published[list.Version]; ok && p.heard < list.heard {
		p.heard = list.heard
		o.published[list.Version] = p
	}
}
