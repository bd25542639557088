package sqlstore

import (
	"strings"

	"example.org/omellium/omemo"
)

var (
	versionColumn = column{"version", integer}
	jidColumn     = column{"jid", text}
	deviceColumn  = column{"device", integer}
	ratchetColumn = column{"ratchet", octets}
)

func bindPeer(e *encoder, p omemo.Peer) {
	e.count(int(p.Version))
	e.text(p.JID)
	e.number(uint64(p.Device))
}

func decodePeer(d *decoder) omemo.Peer {
	var p omemo.Peer
	p.Version = omemo.Version(d.count())
	p.JID = d.text()
	p.Device = omemo.DeviceID(d.uint32())
	return p
}

var preKeys = mapping[omemo.PreKeyRow, omemo.PreKeyID]{
	table: table{
		name:   "omemo_pre_key",
		key:    []column{versionColumn, {"id", integer}},
		fields: []column{{"used", integer}, {"private", octets}},
	},
	id: func(r *omemo.PreKeyRow) omemo.PreKeyID { return omemo.PreKeyID{Version: r.Version, ID: r.ID} },
	bindKey: func(e *encoder, id omemo.PreKeyID) {
		e.count(int(id.Version))
		e.number(uint64(id.ID))
	},
	bindFields: func(e *encoder, r *omemo.PreKeyRow) {
		e.time(r.Used)
		e.secret(r.Private[:])
	},
	decode: func(d *decoder) (r omemo.PreKeyRow) {
		r.Version = omemo.Version(d.count())
		r.ID = d.uint32()
		r.Used = d.time()
		r.Private = d.secret32()
		return r
	},
}

// storedSession is a session with the number of the commit that wrote it.
type storedSession struct {
	omemo.SessionRow
	written uint64
}

var sessions = mapping[storedSession, uint64]{
	table: table{
		name:   "omemo_session",
		key:    []column{{"id", integer}},
		fields: []column{versionColumn, jidColumn, deviceColumn, {"archived", integer}, {"written", integer}, {"record", octets}},
	},
	id:      func(r *storedSession) uint64 { return r.ID },
	bindKey: func(e *encoder, id uint64) { e.number(id) },
	bindFields: func(e *encoder, r *storedSession) {
		bindPeer(e, r.Peer)
		e.number(r.Archived)
		e.number(e.commit)
		e.secret(r.Record)
	},
	decode: func(d *decoder) (r storedSession) {
		r.ID = d.uint64()
		r.Peer = decodePeer(d)
		r.Archived = d.uint64()
		r.written = d.uint64()
		r.Record = d.secret()
		return r
	},
}

// advance returns a statement that moves on n sessions that exist and are
// otherwise the same: the indexes are left alone. Of a list of values it inserts
// what does not exist.
func advance(n int) string {
	if n == asArrays {
		return "UPDATE omemo_session SET written = v.written, record = v.record FROM (" + sessions.unnest() +
			") AS v WHERE omemo_session.account = v.account AND omemo_session.id = v.id AND " + unmoved("v")
	}
	return sessions.insert(n) + " DO UPDATE SET written = excluded.written, record = excluded.record WHERE " + unmoved("excluded")
}

// unmoved is the condition that a session is another's former state.
func unmoved(other string) string {
	same := []string{}
	for _, c := range sessions.fields[:4] {
		same = append(same, "omemo_session."+c.name+" = "+other+"."+c.name)
	}
	return strings.Join(same, " AND ")
}

// writeSessions writes the archived sessions first, so that a session which
// becomes current finds the place free.
func writeSessions(w *writer, rows []omemo.SessionRow) error {
	var archived []storedSession
	current := make([]storedSession, 0, len(rows))
	for _, r := range rows {
		if r.Archived != 0 {
			archived = append(archived, storedSession{SessionRow: r})
		} else {
			current = append(current, storedSession{SessionRow: r})
		}
	}
	if err := sessions.write(w, archived); err != nil {
		return err
	}
	current = latest(current, sessions.id)
	for e, n := range sessions.encoded(w, current) {
		moved, err := sessions.exec(w, e, "advance", advance, n)
		if err == nil && moved != int64(n) {
			err = sessions.write(w, current[:n])
		}
		current = current[n:]
		if err != nil {
			return err
		}
	}
	return nil
}

// storedSkipped is a skipped message key with its place in the order of
// writing.
type storedSkipped struct {
	omemo.SkippedRow
	seq uint64
}

var skipped = mapping[storedSkipped, omemo.SkippedID]{
	table: table{
		name:   "omemo_skipped",
		key:    []column{{"session", integer}, ratchetColumn, {"n", integer}},
		fields: []column{{"seq", integer}, {"secret", octets}},
	},
	id: func(r *storedSkipped) omemo.SkippedID { return r.SkippedID },
	bindKey: func(e *encoder, id omemo.SkippedID) {
		e.number(id.Session)
		e.bytes(id.Ratchet[:])
		e.number(uint64(id.N))
	},
	bindFields: func(e *encoder, r *storedSkipped) {
		e.number(r.seq)
		e.secret(r.Key[:])
	},
	decode: func(d *decoder) (r storedSkipped) {
		r.Session = d.uint64()
		d.fill(r.Ratchet[:], d.bytes())
		r.N = d.uint32()
		r.seq = d.uint64()
		r.Key = d.secret32()
		return r
	},
}

// writeSkipped numbers the keys in the order of writing: commit by commit, and
// by their places within one.
func writeSkipped(w *writer, rows []omemo.SkippedRow) error {
	stored := make([]storedSkipped, len(rows))
	for i, r := range rows {
		stored[i] = storedSkipped{SkippedRow: r, seq: w.commit<<20 + uint64(i)}
	}
	return skipped.write(w, stored)
}

// dropSessions deletes sessions with their skipped message keys.
func dropSessions(w *writer, ids []uint64) error {
	if err := sessions.drop(w, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := trim(w, omemo.Trim{Session: id}); err != nil {
			return err
		}
	}
	return nil
}

// trim deletes all skipped message keys of a session but the newest.
func trim(w *writer, t omemo.Trim) error {
	e := w.encoder(skipped.name, 5)
	e.begin(w.store.account)
	e.number(t.Session)
	e.begin(w.store.account)
	e.number(t.Session)
	e.count(max(t.Keep, 0))
	_, err := w.exec(skipped.name, "trim", 1, func() string {
		return `DELETE FROM omemo_skipped WHERE account = ? AND session = ? AND seq <= (
			SELECT seq FROM omemo_skipped WHERE account = ? AND session = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)`
	}, e)
	return err
}

var ended = mapping[omemo.EndedChain, omemo.ChainID]{
	table: table{
		name:   "omemo_ended",
		key:    []column{versionColumn, jidColumn, deviceColumn, ratchetColumn},
		fields: []column{{"next", integer}, {"ended", integer}},
	},
	id: func(r *omemo.EndedChain) omemo.ChainID { return r.ChainID },
	bindKey: func(e *encoder, id omemo.ChainID) {
		bindPeer(e, id.Peer)
		e.bytes(id.Ratchet[:])
	},
	bindFields: func(e *encoder, r *omemo.EndedChain) {
		e.number(uint64(r.Next))
		e.time(r.When)
	},
	decode: func(d *decoder) (r omemo.EndedChain) {
		r.Peer = decodePeer(d)
		d.fill(r.Ratchet[:], d.bytes())
		r.Next = d.uint32()
		r.When = d.time()
		return r
	},
}

// pruneEnded deletes the marks of chains that ended before a time.
func pruneEnded(w *writer, c *omemo.Changes) error {
	if c.PruneEnded.IsZero() {
		return nil
	}
	e := w.encoder(ended.name, 2)
	e.begin(w.store.account)
	e.time(c.PruneEnded)
	_, err := w.exec(ended.name, "prune", 1, func() string {
		return `DELETE FROM omemo_ended WHERE account = ? AND ended < ?`
	}, e)
	return err
}
