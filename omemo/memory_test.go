package omemo

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestHeap measures what a session costs that a manager holds in memory: at most
// 1 KiB, with its place in the cache, its keys and the address of its peer.
func TestHeap(t *testing.T) {
	for _, v := range Versions() {
		var last *Session
		talk(t, v, func(_ *account, s *Session) { last = s })
		const count = 8192
		before := heap()
		m := new(Manager)
		m.forget()
		for i := range count {
			s := *last
			s.peer.JID = strings.Clone(fmt.Sprintf("somebody.%05d@example.org", i))
			s.state.Own = newPrivate(random)
			s.state.Own.Public()
			m.sessions[s.peer] = &slot{sessions: []*Session{&s}}
		}
		each := (heap() - before) / count
		runtime.KeepAlive(m)
		t.Logf("%v: %d bytes for each session", v, each)
		if each > 1024 || each < 400 {
			t.Errorf("%v: %d bytes for each session", v, each)
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
