package middleware

import (
	"context"
	"sync"
	"sync/atomic"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// job is a message on its way out.
type job struct {
	message *stanza.Element
	caller  *caller          // who waits for it; nil: the application wrote it to the session
	row     *omemo.OutboxRow // sealed and committed already: only to be written
	room    string           // nothing but what was postponed until this room was joined
	size    int
}

// begin reports whether the message is still to be sent.
func (j *job) begin() bool { return !j.caller.decided.Swap(true) }

// caller is somebody who waits for a message to be sent.
type caller struct {
	ctx     context.Context
	sealed  chan outcome  // holds the outcome as soon as it is known
	done    chan struct{} // closed when the message is written, too
	decided atomic.Bool   // the message was begun, or given up before that
}

type outcome struct {
	result *Result
	err    error
}

// queue keeps outgoing messages in order for each recipient; recipients do not
// wait for each other. It is bounded: adding waits.
type queue struct {
	process func(*job)

	mu      sync.Mutex
	changed *sync.Cond
	chats   map[string][]*job // the first is being processed
	stanzas int               // waiting or being processed
	bytes   int
	maximum struct{ stanzas, bytes int }
}

func newQueue(stanzas, bytes int, process func(*job)) *queue {
	q := &queue{process: process, chats: make(map[string][]*job)}
	q.changed = sync.NewCond(&q.mu)
	q.maximum.stanzas, q.maximum.bytes = max(1, stanzas), max(1, bytes)
	return q
}

// add puts a job at the end of its recipient's queue. It waits while the queue
// is full, but lets one message in that is larger than all of it.
func (q *queue) add(ctx context.Context, chat string, j *job) error {
	defer q.wakeAfter(ctx)()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.stanzas > 0 && (q.stanzas >= q.maximum.stanzas || q.bytes+j.size > q.maximum.bytes) {
		if err := ctx.Err(); err != nil {
			return err
		}
		q.changed.Wait()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	q.put(chat, j)
	return nil
}

// wakeAfter has those who wait look again when ctx ends.
func (q *queue) wakeAfter(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.changed.Broadcast()
	})
}

// push is add for what must not wait.
func (q *queue) push(chat string, j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(chat, j)
}

func (q *queue) put(chat string, j *job) {
	q.stanzas++
	q.bytes += j.size
	q.chats[chat] = append(q.chats[chat], j)
	if len(q.chats[chat]) == 1 {
		go q.run(chat)
	}
}

// run processes the queue of one recipient until it is empty.
func (q *queue) run(chat string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chats[chat]) > 0 {
		j := q.chats[chat][0]
		q.mu.Unlock()
		q.process(j)
		q.mu.Lock()
		q.chats[chat] = q.chats[chat][1:]
		q.stanzas--
		q.bytes -= j.size
		q.changed.Broadcast()
	}
	delete(q.chats, chat)
}

// drain waits until the queue is empty, or ctx ends.
func (q *queue) drain(ctx context.Context) {
	defer q.wakeAfter(ctx)()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.stanzas > 0 && ctx.Err() == nil {
		q.changed.Wait()
	}
}

// wait waits until the queue is empty.
func (q *queue) wait() { q.drain(context.Background()) }
