package middleware

import (
	"context"
	"slices"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// seenResolution is how exactly it is remembered when a nick was seen last.
const seenResolution = 24 * time.Hour

// roll says who has had the nicks of a room, now and before: what archives and
// histories hold was said under nicks. It is the part of the room's presence that
// is kept in the store.
type roll struct {
	nicks map[string][]omemo.OccupantRow // in the order of their numbers
	size  int
}

// open reads the roll of a room, if that was not done before.
func (r *rooms) open(bare string) {
	r.mu.Lock()
	_, known := r.rolls[bare]
	r.mu.Unlock()
	if known {
		return
	}
	rows, err := r.l.m.manager.Occupants(r.l.ctx, bare)
	if err != nil {
		r.l.trouble(err)
		return
	}
	slices.SortFunc(rows, func(a, b omemo.OccupantRow) int { return int(int64(a.N) - int64(b.N)) })
	read := &roll{nicks: make(map[string][]omemo.OccupantRow), size: len(rows)}
	for _, row := range rows {
		read.nicks[row.Nick] = append(read.nicks[row.Nick], row)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rolls) >= maxRooms {
		for other := range r.rolls {
			if r.joined[other] == nil {
				delete(r.rolls, other)
			}
		}
	}
	if r.rolls[bare] == nil {
		r.rolls[bare] = read
	}
}

// note writes down who has a nick. It is committed with whatever is next.
func (r *rooms) note(bare, nick, account string, now time.Time) {
	known := r.rolls[bare]
	if known == nil || account == "" {
		return
	}
	rows := known.nicks[nick]
	row := omemo.OccupantRow{OccupantID: omemo.OccupantID{Room: bare, Nick: nick}, Account: account, Since: now, Seen: now}
	switch last := len(rows) - 1; {
	case last >= 0 && rows[last].Account == account && now.Sub(rows[last].Seen) < seenResolution:
		return
	case last >= 0 && rows[last].Account == account:
		rows[last].Seen = now
		row = rows[last]
	default:
		if last >= 0 {
			row.N = rows[last].N + 1
		}
		if known.size >= maxOccupants {
			r.l.m.manager.ForgetOccupants(known.yield()...)
		}
		known.nicks[nick] = append(known.nicks[nick], row) // none of it is left if it was that nick
		known.size++
	}
	r.l.m.manager.NoteOccupants(row)
	signal(r.l.marked)
}

// yield forgets a nick, with all who have had it: without some of them, what they
// have said would be taken for another's. It is one that nobody has had but
// accounts with the most rows, and of those the one that was not seen for longest:
// so whoever changes nicks without end drives out no others' but own ones.
func (k *roll) yield() (gone []omemo.OccupantID) {
	held := make(map[string]int)
	for _, rows := range k.nicks {
		for _, row := range rows {
			held[row.Account]++
		}
	}
	var nick string
	var most int
	var seen time.Time
	for n, rows := range k.nicks {
		least := k.size
		for _, row := range rows {
			least = min(least, held[row.Account])
		}
		last := rows[len(rows)-1].Seen
		if least > most || least == most && last.Before(seen) {
			nick, most, seen = n, least, last
		}
	}
	for _, row := range k.nicks[nick] {
		gone = append(gone, row.OccupantID)
	}
	k.size -= len(gone)
	delete(k.nicks, nick)
	return gone
}

// past returns who had a nick at some time, as far as it was seen; if it was not
// seen then, who had it first. That is a hint, not a proof: see verify. read is
// false if the store could not be read.
func (r *rooms) past(bare, nick string, at time.Time) (account string, read bool) {
	r.open(bare)
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.rolls[bare]
	if known == nil {
		return "", false
	}
	for i, row := range known.nicks[nick] {
		if (i > 0 || row.N > 0) && row.Since.After(at) {
			break // if it is not the first, others had the nick before
		}
		account = row.Account
	}
	return account, true
}

// isRoom reports whether an address is that of a room, joined or remembered.
func (r *rooms) isRoom(bare string) bool {
	if r.find(bare) != nil {
		return true
	}
	r.open(bare)
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.rolls[bare]
	return known != nil && known.size > 0
}

// bind finds out who has sent a message that came through a room, and for whom
// it is: at the moment at which it comes, from the room's presence only. A
// sender that cannot be found stays empty. bound is who it was when the message
// came first, if it comes from the journal.
func (r *rooms) bind(a *arrival, bound string) {
	from, err := jid.Parse(attribute(a.message, "from"))
	if err != nil || attribute(a.message, "type") == "error" {
		return
	}
	to, err := jid.Parse(attribute(a.message, "to"))
	if err != nil {
		to = jid.JID{}
	}
	bare := from.Bare().String()
	switch {
	case attribute(a.message, "type") == "groupchat":
		a.room, a.recipient = bare, bare
		if a.message.Child(stanza.NSDelay, "delay") != nil {
			a.live = false
		}
		a.sender = r.behind(a, from)
	case a.sender == r.l.m.own.JID:
		if to.Resourcepart() == "" || !r.through(a, to) {
			return
		}
		a.private = true
		a.recipient = r.behind(a, to)
		return
	case r.through(a, from), bound != "" && bound != bare:
		a.private = true
		if a.message.Child(stanza.NSDelay, "delay") != nil {
			a.live = false // of an archive, if it comes from the journal now
		}
		a.sender = r.behind(a, from)
	default:
		return
	}
	a.past = !a.live
	if bound != "" {
		a.sender = bound
	}
}

// through reports whether a message that is not for all in a room came through
// one: private messages bear a mark (XEP-0045, section 7.5), but not all.
func (r *rooms) through(a *arrival, j jid.JID) bool {
	if j.Resourcepart() != "" && isPrivateMark(a.message.Child(nsRoomUser, "x")) {
		return true
	}
	bare := j.Bare().String()
	return r.find(bare) != nil || !a.live && r.isRoom(bare)
}

// behind returns the account behind an occupant's address when a message was
// sent.
func (r *rooms) behind(a *arrival, j jid.JID) string {
	bare, nick := j.Bare().String(), j.Resourcepart()
	switch {
	case nick == "":
		return "" // the room itself: it has no devices
	case a.live:
		return r.occupant(bare, nick)
	}
	account, read := r.past(bare, nick, a.sent)
	a.lost = a.lost || !read
	return account
}

// inquire keeps a message of the past that came with an unknown key until the
// device that it names was asked about: if the account that had the nick has
// published that key, it was the account's.
func (l *link) inquire(ctx context.Context, a *arrival, msg *omemo.Message) {
	alone := a.message.Clone()
	if alone.Child(stanza.NSDelay, "delay") == nil {
		alone.Append(stanza.NewElement(stanza.NSDelay, "delay").SetAttribute("stamp", a.sent.UTC().Format(time.RFC3339Nano)))
	}
	kept, err := l.m.manager.Keep(ctx, msg.Sender, ErrOccupant.Error(), alone.AppendXML(nil))
	if err == nil && kept {
		err = l.m.manager.Owe(ctx, omemo.OwedID{Kind: omemo.OwedDevices, Peer: omemo.Peer{Version: msg.Version, Address: msg.Sender}})
	}
	if err != nil {
		l.trouble(err)
	}
	l.m.emit(Event{
		Kind: UnknownOccupant, Account: bareOf(attribute(a.message, "from")), Device: msg.Sender.Device, ID: attribute(a.message, "id"), Err: ErrOccupant,
	})
	signal(l.wake)
}

// isPrivateMark recognises what marks a private message (XEP-0045, section 7.5).
func isPrivateMark(x *stanza.Element) bool {
	return x != nil && x.Is(nsRoomUser, "x") && len(x.Children) == 0 && len(x.Attr) == 0
}
