package omemo

import (
	"context"
	"time"
)

// Limits of what is remembered about rooms.
const (
	// occupantAge is how long it is remembered whose a nick was that is not seen
	// any more.
	occupantAge = 365 * 24 * time.Hour
	// echoAge is how long the text of an own message waits for its room to send
	// it back: as long as the message may wait to be sent, and a day.
	echoAge = 8 * 24 * time.Hour
)

// OccupantID names the Nth account that has had a nick in a room.
type OccupantID struct {
	Room string // bare JID
	Nick string
	N    uint32 // from 0
}

// OccupantRow says whose a nick in a room was, as the room's own presence has
// shown it: from Since until the Since of the next row of the nick.
type OccupantRow struct {
	OccupantID
	Account string // bare JID
	Since   time.Time
	Seen    time.Time // when it was last known to be so, to a day
}

// EchoRow is an own message to a room, which the room has yet to send back to
// us as to everybody. There is no key for ourselves in it.
type EchoRow struct {
	Hash    [32]byte // names the ciphertext
	Outbox  uint64   // its row in the outbox, or 0
	Created time.Time
	Content []byte // secret: what it says, in the form of whoever made it
}

// Echo is what is kept of a message to a room until it comes back.
type Echo struct {
	Hash    [32]byte
	Content []byte
}

// Occupants returns who had the nicks of a room.
func (m *Manager) Occupants(ctx context.Context, room string) ([]OccupantRow, error) {
	var rows []OccupantRow
	err := m.read(ctx, func(u *unit) error {
		var err error
		rows, err = u.store.Occupants(ctx, room)
		return err
	})
	return rows, err
}

// NoteOccupants has rows written by the next commit, as Later has others
// removed.
func (m *Manager) NoteOccupants(rows ...OccupantRow) { m.marks.add(marked{occupants: rows}) }

// ForgetOccupants has rows removed by the next commit. One that is noted later is
// written anew.
func (m *Manager) ForgetOccupants(ids ...OccupantID) { m.marks.add(marked{gone: ids}) }

// Echo takes a message of our own that its room has sent back: found is false if
// none of that hash is waited for. v says what is to become of it; that, and that
// it has come back and so need not be sent again, is committed at once; so is
// that it stands no longer in the journal, if that row of it held it (0: none).
func (m *Manager) Echo(ctx context.Context, hash [32]byte, journal uint64, v func(content []byte) (Delivery, error)) (d Delivery, found bool, err error) {
	err = m.work(ctx, func(u *unit) error {
		rows, err := u.store.Echoes(ctx, hash)
		if err != nil || len(rows) == 0 {
			return err
		}
		if d, err = v(rows[0].Content); err != nil {
			return err
		}
		u.changes.DropEchoes = append(u.changes.DropEchoes, hash)
		if rows[0].Outbox != 0 {
			u.changes.DropOutbox = append(u.changes.DropOutbox, rows[0].Outbox)
		}
		if journal != 0 {
			u.changes.DropJournal = append(u.changes.DropJournal, journal)
		}
		found = true
		u.deliver(echoEvent(hash), &d)
		return nil
	})
	return d, found && err == nil, err
}

// pruneRooms forgets what is too old.
func (u *unit) pruneRooms(ctx context.Context) error {
	occupants, err := u.store.Occupants(ctx)
	if err != nil {
		return err
	}
	for _, r := range occupants {
		if u.now.Sub(r.Seen) > occupantAge {
			u.changes.DropOccupants = append(u.changes.DropOccupants, r.OccupantID)
		}
	}
	echoes, err := u.store.Echoes(ctx)
	if err != nil {
		return err
	}
	for _, r := range echoes {
		if u.now.Sub(r.Created) > echoAge {
			u.changes.DropEchoes = append(u.changes.DropEchoes, r.Hash)
		}
	}
	return nil
}
