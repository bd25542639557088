package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// simDevice is one device: a program on a machine of its own, which dies.
type simDevice struct {
	*program
	s      *simulation
	number string // its device id
	absent int    // turns until it is started again
	silent int    // turns until it notices that its connection is broken; 0: it is not
	gone   int    // how often it was absent or silent
}

func (s *simulation) newDevice(account, name string, v omemo.Version) *simDevice {
	d := &simDevice{program: newProgram(account, v, s.net.srv.Dial), s: s}
	d.device, d.carbons, d.catches = name, true, true
	d.receive = func(_ *program, c *middleware.Config) { c.Receive = d.take }
	onSQLite(s.t, d.program)
	return d
}

// body of a message: its text is its id.
var simBody = regexp.MustCompile(`<body[^>]*>` + canary + ` ([^<]*)</body>`)

// take is the Config.Receive of all: a row in the ledger, and now and then an
// answer.
func (d *simDevice) take(ctx context.Context, tx *sql.Tx, m middleware.Delivery) error {
	found := simBody.FindSubmatch(m.Stanza)
	if found == nil {
		return fmt.Errorf("no text in %s", m.Stanza)
	}
	id := string(found[1])
	if err := hear(ctx, tx, storeKinds["SQLite"].values, m.Info.Event, id); err != nil {
		return err
	}
	if isAnswer(id) || m.Info.Account == d.account || d.s.odds("answer", id, d.device) >= simAnswer {
		return nil
	}
	answer := fmt.Sprintf("%s.%s-%s", simText, d.device, id)
	err := m.Send(xmppstanza.Message{ID: answer, To: address(m.Info.Account), Type: xmppstanza.ChatMessage}, body(canary+" "+answer))
	if errors.As(err, new(*omemo.RecipientError)) {
		return nil // no session with any device of the account
	}
	return err
}

// simText begins the ids of messages with a text. Messages are
// text.DEVICE.TURN.ATTEMPT, answers are text.DEVICE-ID.
const simText = "text"

func isText(id string) bool { return strings.HasPrefix(id, simText+".") }

func isAnswer(id string) bool { return strings.Contains(id, "-") }

func senderOf(id string) string {
	return strings.FieldsFunc(id, func(r rune) bool { return r == '.' || r == '-' })[1]
}

// odds returns what the dice say about something, from 0 to 1: for a seed, always
// the same.
func odds(seed uint64, about ...any) float64 {
	h := fnv.New64a()
	fmt.Fprintln(h, append([]any{seed}, about...)...)
	x := h.Sum64() // the upper bits of FNV are nearly alike for texts that are
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// start starts the program if it does not run. must: nothing is in its way.
func (d *simDevice) start(must bool) {
	if d.om != nil {
		return
	}
	d.silent = 0
	d.s.net.connect(d.full())
	// Its own time, virtual as well: a connection may break meanwhile.
	ctx, cancel := context.WithTimeout(d.s.ctx, time.Minute)
	defer cancel()
	if err := d.live(ctx); err != nil {
		if must {
			d.s.t.Fatalf("%s: %v", d.device, err)
		}
		d.fall()
		return
	}
	d.absent = 0
	if d.number == "" {
		own, err := d.om.Manager().Device(d.s.ctx)
		ok(d.s.t, err)
		d.number = fmt.Sprint(own.Device)
		d.s.net.know(d.full(), d.number)
	}
}

func (d *simDevice) full() string { return d.account + "/" + d.device }

// say sends a text to an account, and again under another name until it is
// accepted for all devices: one that is offline without knowing it cannot ask for
// what it needs to begin a session.
func (d *simDevice) say(to string, turn int) {
	for attempt := range 3 {
		id := fmt.Sprintf("%s.%s.%d.%d", simText, d.device, turn, attempt)
		ctx, cancel := context.WithTimeout(d.s.ctx, time.Minute)
		result, err := d.om.Send(ctx, xmppstanza.Message{ID: id, To: address(to), Type: xmppstanza.ChatMessage}, body(canary+" "+id))
		cancel()
		if err == nil {
			d.s.accepted[id] = true
			if !slices.ContainsFunc(result.Devices, func(r omemo.DeviceResult) bool { return r.Err != nil }) {
				d.s.complete[id] = true
				return
			}
		}
		if d.next(); d.om == nil {
			return
		}
	}
}

// doom has the program die at one of its next steps.
func (d *simDevice) doom(turn int) {
	at := point{1 + int(d.s.odds("step", turn)*simSteps), mode(d.s.odds("mode", turn) * float64(cut+1))}
	if d.om != nil {
		d.m.arm(at)
	}
}

// revive has the program not die any more; next looks whether it did before.
func (d *simDevice) revive() {
	d.m.disarm()
	d.next()
}

// retire ends the program in order.
func (d *simDevice) retire() {
	if d.om == nil || d.m.died() {
		return
	}
	_ = d.om.Close() // its machine may be about to die
	d.s.quits++
	d.fall()
}

// fall ends the program, for a while.
func (d *simDevice) fall() {
	if err := d.die(); err != nil && !errors.Is(err, errCrash) {
		d.s.t.Errorf("%s: %v", d.device, err)
	}
	d.m.arm()
	d.m.disarm()
	d.absent = d.while(2 * simAbsence)
}

// while returns for how many turns it is absent or silent, 1 to most.
func (d *simDevice) while(most int) int {
	d.gone++
	return 1 + int(d.s.odds("while", d.device, d.gone)*float64(most))
}

// next is a turn later: a program that has died is gone, one whose connection
// has broken makes another one, and one that was away long enough comes back.
func (d *simDevice) next() {
	switch {
	case d.om == nil:
		if d.absent--; d.absent <= 0 {
			d.start(false)
		}
	case d.m.died():
		d.s.deaths++
		d.fall()
	case d.m.offline() || d.s.net.isBroken(d.full()):
		if d.silent--; d.silent > 0 {
			return
		}
		if d.silent < 0 && d.s.net.told {
			d.silent = d.while(6 * simAbsence)
			return
		}
		d.silent = 0
		d.s.breaks++
		d.m.hangUp()
		<-d.served
		d.s.net.connect(d.full())
		ctx, cancel := context.WithTimeout(d.s.ctx, time.Minute)
		defer cancel()
		if err := d.connect(ctx); err != nil {
			d.fall()
		}
	}
}

// arm has the machine die at a point of a new life, or at none.
func (m *machine) arm(at ...point) {
	m.mu.Lock()
	m.plan, m.hit, m.cut = at, false, false
	m.mu.Unlock()
	m.start()
}

// ledger returns how often each text was received.
func (d *simDevice) ledger(t *testing.T) map[string]int {
	db, err := sql.Open("sqlite", d.file)
	ok(t, err)
	defer db.Close()
	rows, err := db.Query(`SELECT text, count(*) FROM heard GROUP BY text`)
	ok(t, err)
	defer rows.Close()
	ledger := make(map[string]int)
	for rows.Next() {
		var id string
		var times int
		ok(t, rows.Scan(&id, &times))
		ledger[id] = times
	}
	ok(t, rows.Err())
	return ledger
}

// faults returns events that no loss on the way explains.
func (d *simDevice) faults() (found []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		switch e.Kind {
		case middleware.PlaintextReceived, middleware.Refused, middleware.DeadLetter, middleware.IdentityChanged,
			middleware.OwnDeviceRemoved, middleware.StateRolledBack, middleware.ArchiveGap, middleware.ArchiveTruncated:
			found = append(found, fmt.Sprintf("%v %s/%d: %v", e.Kind, e.Account, e.Device, e.Err))
		}
	}
	return found
}
