package front

import (
	"encoding/xml"
	"sync"

	"example.org/omellium/stanza"
)

// item is what the parser made of one top-level element.
type item struct {
	element *stanza.Element
	start   xml.StartElement
	refused error // element is nil
	bytes   int   // length as the application wrote it
}

// queue holds what the application wrote until the dispatcher takes it. It has
// one writer, which waits while it is full, and one reader.
type queue struct {
	maxItems, maxBytes int

	mu      sync.Mutex
	changed *sync.Cond
	items   []item
	bytes   int
	closed  bool
}

func newQueue(items, bytes int) *queue {
	q := &queue{maxItems: items, maxBytes: bytes}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// push waits until there is room. One item fits into an empty queue whatever its
// length.
func (q *queue) push(i item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) >= q.maxItems || len(q.items) > 0 && q.bytes+i.bytes > q.maxBytes {
		q.changed.Wait()
	}
	q.items = append(q.items, i)
	q.bytes += i.bytes
	q.changed.Broadcast()
}

// pop waits for an item. It returns false when the queue was closed and is
// empty.
func (q *queue) pop() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		if q.closed {
			return item{}, false
		}
		q.changed.Wait()
	}
	i := q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	q.bytes -= i.bytes
	q.changed.Broadcast()
	return i, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
