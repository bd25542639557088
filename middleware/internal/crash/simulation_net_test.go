package crash

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"example.org/omellium/middleware/xmpptest"
)

const (
	simLoss   = 0.20  // of the copies that go to a device at once; the archive has all
	simRepeat = 0.20  // of them that come twice
	simBreak  = 0.005 // of the messages to and from a device, with which its connection breaks
	simTold   = 0.02  // the same, where that is how messages are lost
)

// simNet is what is between the server and the devices. Of what goes to a
// device at once, messages are lost, repeated and late; of what stands in the
// archive, nothing is. There are two kinds of servers: one does not say where a live
// message stands in the archive, and any may be lost or late by itself. The other
// does (XEP-0359), and devices need not ask for what was before it: then messages come
// in order, but for repetitions, and those are lost that come to a connection that is
// broken without the device knowing.
type simNet struct {
	srv    *xmpptest.Server
	tap    *wiretap
	seed   uint64
	told   bool // live messages say where they stand in the archive
	mu     sync.Mutex
	calm   bool
	clock  int // one message that a device has written is one tick
	seen   map[string]int
	broken map[string]bool   // full address → nothing comes through until it connects anew
	own    map[string]string // full address → device id
	given  map[string]bool   // pre keys that somebody has asked for

	transit []simCopy

	copies, lost, repeated, late int
}

// simCopy is a message on its way to one device.
type simCopy struct {
	due int
	to  string
	xml string
}

func newSimNet(srv *xmpptest.Server, seed uint64) *simNet {
	return &simNet{
		srv: srv, tap: newWiretap(""), seed: seed, calm: true, told: seed/2%2 == 1,
		seen: make(map[string]int), broken: make(map[string]bool), own: make(map[string]string), given: make(map[string]bool),
	}
}

func (n *simNet) String() string {
	return fmt.Sprintf("of %d copies %d lost, %d repeated, %d late", n.copies, n.lost, n.repeated, n.late)
}

func (n *simNet) way() string {
	if n.told {
		return "in order"
	}
	return "in any order"
}

func (n *simNet) setCalm(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calm = on
}

// connect lets a device through that connects anew.
func (n *simNet) connect(full string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.broken, full)
}

func (n *simNet) isBroken(full string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.broken[full]
}

// know tells which device is behind an address.
func (n *simNet) know(full, device string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.own[full] = device
}

// filter is the way between the server and the devices.
func (n *simNet) filter(_ context.Context, st xmpptest.Stanza) [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if st.Direction == xmpptest.FromClient {
		n.tap.observe(st)
	}
	isLive := bytes.HasPrefix(st.XML, []byte("<message")) && bytes.Contains(st.XML, []byte("<encrypted")) &&
		!bytes.Contains(st.XML, []byte(nsArchive))
	if isLive && st.Direction == xmpptest.ToClient {
		n.copies++
	}
	switch {
	case n.broken[st.Session]:
		if isLive && st.Direction == xmpptest.ToClient {
			n.lost++
		}
		return nil
	case st.Direction == xmpptest.ToClient && bytes.HasPrefix(st.XML, []byte("<iq")):
		return [][]byte{n.bundle(st)}
	case !isLive:
		return [][]byte{st.XML}
	}
	id := messageID(st.XML)
	if !isText(id) {
		id = "" // which nobody has chosen
	}
	about := fmt.Sprint(st.Direction, st.Session, id)
	n.seen[about]++
	turn := n.seen[about]
	dice := func(what string) float64 { return odds(n.seed, what, about, turn) }
	breaks := simBreak
	if n.told {
		breaks = simTold
	}
	if !n.calm && dice("break") < breaks {
		n.broken[st.Session] = true
		if st.Direction == xmpptest.ToClient {
			n.lost++
		}
		return nil
	}
	if st.Direction == xmpptest.FromClient {
		n.clock++
		return [][]byte{st.XML}
	}
	b, copies := st.XML, 1
	if !n.told {
		b = stanzaID.ReplaceAll(b, nil)
	}
	if n.calm {
		return [][]byte{b}
	}
	switch fate := dice("fate"); {
	case fate < simRepeat:
		n.repeated++
		copies = 2
	case fate < simRepeat+simLoss && !n.told:
		n.lost++
		copies = 0
	}
	var atOnce [][]byte
	if n.told && copies > 0 {
		atOnce = [][]byte{b}
		copies--
	}
	for c := range copies {
		late := int(dice(fmt.Sprint("late", c)) * simWindow)
		if late > 0 {
			n.late++
		}
		n.transit = append(n.transit, simCopy{n.clock + late, st.Session, string(b)})
	}
	return atOnce
}

// deliver hands over what is due. What is for nobody who is there is lost.
func (n *simNet) deliver() {
	n.mu.Lock()
	slices.SortStableFunc(n.transit, func(a, b simCopy) int {
		return cmp.Or(cmp.Compare(a.due, b.due), strings.Compare(a.to, b.to))
	})
	var due []simCopy
	for len(n.transit) > 0 && (n.calm || n.transit[0].due <= n.clock) {
		due = append(due, n.transit[0])
		n.transit = n.transit[1:]
	}
	n.mu.Unlock()
	for _, c := range due {
		if n.isBroken(c.to) {
			continue
		}
		if err := n.srv.Inject(c.to, c.xml); err != nil && !errors.Is(err, xmpptest.ErrNoSession) {
			n.tap.fault("inject: %v", err)
		}
	}
}

var (
	stanzaID = regexp.MustCompile(`<stanza-id [^>]*/>`)
	anyID    = regexp.MustCompile(`<message[^>]* id=["']([^"']*)["']`)
	preKey   = regexp.MustCompile(`<(?:pk|preKeyPublic) [^>]*>[^<]*</(?:pk|preKeyPublic)>`)
)

// messageID returns the id of a message, or of the one in it.
func messageID(b []byte) string {
	all := anyID.FindAllSubmatch(b, -1)
	if len(all) == 0 {
		return ""
	}
	return string(all[len(all)-1][1])
}

// bundle gives each who asks for a bundle another pre key: two who choose the
// same one, while the device is online, is what the specification does not save.
func (n *simNet) bundle(st xmpptest.Stanza) []byte {
	own := n.own[st.Session]
	if own == "" || bytes.Contains(st.XML, []byte(":"+own)) || bytes.Contains(st.XML, []byte(`"`+own+`"`)) || bytes.Contains(st.XML, []byte(`'`+own+`'`)) {
		return st.XML // it reads its own bundle back
	}
	chosen := false
	return preKey.ReplaceAllFunc(st.XML, func(k []byte) []byte {
		if chosen || n.given[string(k)] {
			return nil
		}
		chosen, n.given[string(k)] = true, true
		return k
	})
}
