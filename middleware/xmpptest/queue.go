package xmpptest

import "sync"

// maxQueued is how many bytes may wait for a client that does not read before its stream is ended
// with resource-constraint. It is far above what tests queue on purpose.
const maxQueued = 256 << 20

// outgoing is a stanza for a client.
type outgoing struct {
	xml      []byte
	injected bool // by a test: not to be filtered
}

// queue holds what waits for one client. Pushing never waits, so that a slow client delays nobody
// but itself.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting []outgoing
	bytes   int
	last    string // written after everything else
	ended   bool   // nothing can be pushed any more
	aborted bool   // nothing is to be written any more
}

func newQueue() *queue {
	q := new(queue)
	q.changed = sync.NewCond(&q.mu)
	return q
}

// push returns false if too much is waiting already.
func (q *queue) push(o outgoing) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended:
		return true // the session is going away
	case q.bytes+len(o.xml) > maxQueued:
		return false
	}
	q.waiting = append(q.waiting, o)
	q.bytes += len(o.xml)
	q.changed.Signal()
	return true
}

// take waits for something to write and returns all of it. When the queue has ended, last is to be
// written too, and open is false.
func (q *queue) take() (batch []outgoing, last string, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended {
		q.changed.Wait()
	}
	if q.aborted {
		return nil, "", false
	}
	batch, q.waiting, q.bytes = q.waiting, nil, 0
	return batch, q.last, !q.ended
}

// end lets the writer finish what is queued and then write last.
func (q *queue) end(last string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.ended, q.last = true, last
	}
	q.changed.Signal()
}

func (q *queue) abort() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.aborted, q.waiting = true, true, nil
	q.changed.Signal()
}
