package omemo

import (
	"context"
	"slices"
	"time"

	"example.org/omellium/omemo/internal/curve"
)

// Limits of what devices can have us remember by what they say about keys.
const (
	// maxStatements is how many statements of one message are looked at.
	maxStatements = 4096
	// maxWaiting is how many statements of other devices of our own account wait
	// for their keys to be verified, maxWaitingContact how many of a contact's. Of
	// more, the oldest of the device that has most is dropped.
	maxWaiting        = 1024
	maxWaitingContact = 64
	// maxRecords is how many keys of an account are remembered because others say
	// something about them.
	maxRecords = 1024
)

// Statement is what a trust message says about a key (XEP-0434).
type Statement struct {
	Owner string // account of the key: canonical bare JID
	// KeyID is the key as omemo:2 publishes it: Ed25519, 32 bytes. Its sign bit
	// counts for nothing when it is read.
	KeyID   [32]byte
	Trusted bool
}

// believe does what a trust message says (XEP-0450), if it comes from a device
// whose key is verified; else what it says waits until it is. Devices of our own
// account may speak about every key, those of a contact about that contact's keys.
func (u *unit) believe(ctx context.Context, o *Opened) error {
	d := &o.Delivery
	if len(d.Statements) == 0 || o.Trust == Distrusted || o.Sender.JID == "" {
		return nil
	}
	// Looking at a key costs as much as a key agreement: nobody has us look at more
	// than can be kept.
	most := maxStatements
	if o.Trust != Verified {
		most = u.mayWait(o.Sender.JID)
	}
	var rows []StatementRow
	for _, s := range d.Statements[:min(len(d.Statements), most)] {
		key, err := fingerprint(V2, s.KeyID)
		if err != nil || s.Owner != o.Sender.JID && o.Sender.JID != u.own().jid {
			continue
		}
		rows = append(rows, StatementRow{
			StatementID: StatementID{o.Sender.JID, o.Fingerprint, s.Owner, key}, Trusted: s.Trusted, Stated: d.Stated,
		})
	}
	if o.Trust == Verified {
		return u.follow(ctx, rows)
	}
	return u.wait(ctx, rows)
}

// wait keeps the statements of a device whose key is not verified.
func (u *unit) wait(ctx context.Context, rows []StatementRow) error {
	if len(rows) == 0 {
		return nil
	}
	jid := rows[0].JID
	waiting, err := u.statements(ctx, jid)
	if err != nil {
		return err
	}
	limit := u.mayWait(jid)
	for _, row := range rows {
		i := slices.IndexFunc(waiting, func(w StatementRow) bool { return w.StatementID == row.StatementID })
		switch {
		case i >= 0 && !supersedes(row.Stated, row.Trusted, waiting[i].Stated):
			continue
		case i >= 0:
			waiting[i] = row
		default:
			waiting = append(waiting, row)
		}
		u.keepStatement(row)
		if len(waiting) > limit {
			waiting = u.dropOldest(waiting)
		}
	}
	return nil
}

// mayWait returns how many statements of an account may wait.
func (u *unit) mayWait(jid string) int {
	if jid == u.own().jid {
		return maxWaiting
	}
	return maxWaitingContact
}

// dropOldest drops the oldest statement of the device that has most.
func (u *unit) dropOldest(waiting []StatementRow) []StatementRow {
	count := make(map[Fingerprint]int)
	for _, w := range waiting {
		count[w.Fingerprint]++
	}
	oldest := 0
	for i, w := range waiting {
		most, n := count[waiting[oldest].Fingerprint], count[w.Fingerprint]
		if n > most || n == most && w.Stated.Before(waiting[oldest].Stated) {
			oldest = i
		}
	}
	u.dropStatement(waiting[oldest].StatementID)
	return slices.Delete(waiting, oldest, oldest+1)
}

// follow does what verified devices say, and then what the devices have said
// whose keys are verified by that.
func (u *unit) follow(ctx context.Context, rows []StatementRow) error {
	released := make(map[StatementID]bool)
	for len(rows) > 0 {
		row := rows[0]
		rows = rows[1:]
		verified, err := u.obey(ctx, row)
		if err != nil {
			return err
		}
		speaker := StatementID{JID: row.Owner, Fingerprint: row.Key}
		if !verified || released[speaker] {
			continue
		}
		released[speaker] = true
		more, err := u.release(ctx, row.Owner, row.Key)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	return nil
}

// release takes the statements of a device out of the store.
func (u *unit) release(ctx context.Context, jid string, key Fingerprint) ([]StatementRow, error) {
	rows, err := u.statements(ctx, jid)
	rows = slices.DeleteFunc(rows, func(r StatementRow) bool { return r.Fingerprint != key })
	for _, r := range rows {
		u.dropStatement(r.StatementID)
	}
	slices.SortFunc(rows, func(a, b StatementRow) int { return a.Stated.Compare(b.Stated) })
	return rows, err
}

// obey records what a verified device says about a key, unless something newer is
// known, and reports whether the key is verified by that.
func (u *unit) obey(ctx context.Context, row StatementRow) (verified bool, err error) {
	if err := u.learn(ctx, row.Owner); err != nil {
		return false, err
	}
	if row.Owner == u.own().jid && row.Key == Fingerprint(u.own().identity.Montgomery()) {
		return false, nil // we know who we are
	}
	next := TrustRecord{JID: row.Owner, Fingerprint: row.Key, Trust: Distrusted, Since: row.Stated, By: row.Fingerprint}
	if row.Trusted {
		next.Trust = Verified
	}
	if next.Since.After(u.now) {
		next.Since = u.now
	}
	known := u.knows(row.Owner).trust
	record, decided := known[row.Key]
	switch {
	case decided && record.Trust == next.Trust:
		if next.Since.Before(record.Since) {
			return false, nil
		}
		record.Since = next.Since // what is older than this must not undo it
		u.noteRecord(record)
		return false, nil
	case decided && record.Trust != TrustedBlindly && !supersedes(next.Since, row.Trusted, record.Since):
		return false, nil
	case !decided && len(known) >= maxRecords:
		return false, nil
	}
	if row.Trusted {
		if u.bars(u.holder(row.Owner, row.Key).Address, row.Key) {
			return false, nil
		}
		c, err := u.count(ctx)
		if err != nil {
			return false, err
		}
		if owner, known := c.owners[row.Key]; known && owner != row.Owner {
			return false, nil // whoever shows another's key as his own needs a person to be believed
		}
	}
	u.noteRecord(next)
	u.befriend(row.Owner)
	kind := KeyDistrusted
	if row.Trusted {
		kind = KeyVerified
	}
	u.event(kind, u.holder(row.Owner, row.Key), row.Key)
	return row.Trusted, nil
}

// supersedes reports whether a statement counts against what was known since a
// time. Envelopes tell the time in seconds: within one, whoever distrusts is
// right.
func supersedes(stated time.Time, trusted bool, since time.Time) bool {
	switch stated.Truncate(time.Second).Compare(since.Truncate(time.Second)) {
	case 1:
		return true
	case 0:
		return !trusted
	}
	return false
}

// holder returns the device that has a key, or the account alone.
func (u *unit) holder(jid string, key Fingerprint) Peer {
	for _, v := range []Version{V2, Legacy} {
		for _, d := range u.knows(jid).devices[v] {
			if d.Fingerprint == key {
				return d.Peer
			}
		}
	}
	return Peer{Address: Address{JID: jid}}
}

// keyID returns the form in which a trust message names a key: as its device
// publishes it, or, if we know only the form of legacy, with the sign 0.
func (u *unit) keyID(jid string, key Fingerprint) ([32]byte, bool) {
	for _, d := range u.knows(jid).devices[V2] {
		if d.Fingerprint == key && d.Identity != [32]byte{} {
			return d.Identity, true
		}
	}
	e, err := curve.Montgomery(key).Edwards(0)
	return e, err == nil
}
