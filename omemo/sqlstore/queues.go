package sqlstore

import (
	"encoding/binary"
	"math"

	"example.org/omellium/omemo"
)

var inbox = mapping[omemo.InboxRow, uint64]{
	table: table{
		name:   "omemo_inbox",
		key:    []column{{"seq", integer}},
		fields: []column{{"event", text}, {"received", integer}, {"attempts", integer}, {"dead", integer}, {"stanza", octets}},
	},
	id:      func(r *omemo.InboxRow) uint64 { return r.Seq },
	bindKey: (*encoder).number,
	bindFields: func(e *encoder, r *omemo.InboxRow) {
		e.text(r.Event)
		e.time(r.Received)
		e.count(r.Attempts)
		e.flag(r.Dead)
		e.secret(r.Stanza)
	},
	decode: func(d *decoder) (r omemo.InboxRow) {
		r.Seq = d.uint64()
		r.Event = d.text()
		r.Received = d.time()
		r.Attempts = d.count()
		r.Dead = d.flag()
		r.Stanza = d.secret()
		return r
	},
}

var outbox = mapping[omemo.OutboxRow, uint64]{
	table: table{
		name:   "omemo_outbox",
		key:    []column{{"seq", integer}},
		fields: []column{{"id", text}, {"chat", text}, {"devices", octets}, {"created", integer}, {"stanza", octets}},
	},
	id:      func(r *omemo.OutboxRow) uint64 { return r.Seq },
	bindKey: (*encoder).number,
	bindFields: func(e *encoder, r *omemo.OutboxRow) {
		e.text(r.ID)
		e.text(r.Chat)
		e.bytes(packPeers(r.Devices))
		e.time(r.Created)
		e.secret(r.Stanza)
	},
	decode: func(d *decoder) (r omemo.OutboxRow) {
		r.Seq = d.uint64()
		r.ID = d.text()
		r.Chat = d.text()
		var ok bool
		if r.Devices, ok = unpackPeers(d.bytes()); !ok {
			d.corrupt("the list of devices cannot be read")
		}
		r.Created = d.time()
		r.Stanza = d.secret()
		return r
	},
}

// packPeers writes devices as numbers of variable length: version, device,
// length of the JID, JID.
func packPeers(peers []omemo.Peer) []byte {
	b := []byte{}
	for _, p := range peers {
		b = binary.AppendUvarint(b, uint64(p.Version))
		b = binary.AppendUvarint(b, uint64(p.Device))
		b = binary.AppendUvarint(b, uint64(len(p.JID)))
		b = append(b, p.JID...)
	}
	return b
}

func unpackPeers(b []byte) (peers []omemo.Peer, ok bool) {
	number := func(most uint64) uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > most {
			b, ok = nil, false
			return 0
		}
		b = b[size:]
		return n
	}
	ok = true
	for len(b) > 0 {
		var p omemo.Peer
		p.Version = omemo.Version(number(math.MaxInt32))
		p.Device = omemo.DeviceID(number(math.MaxUint32))
		size := number(math.MaxInt32)
		if !ok || size > uint64(len(b)) {
			return nil, false
		}
		p.JID, b = string(b[:size]), b[size:]
		peers = append(peers, p)
	}
	return peers, ok
}

var journal = mapping[omemo.JournalRow, uint64]{
	table: table{
		name:   "omemo_journal",
		key:    []column{{"id", integer}},
		fields: []column{jidColumn, deviceColumn, {"reason", text}, {"received", integer}, {"stanza", octets}},
	},
	id:      func(r *omemo.JournalRow) uint64 { return r.ID },
	bindKey: (*encoder).number,
	bindFields: func(e *encoder, r *omemo.JournalRow) {
		e.text(r.From.JID)
		e.number(uint64(r.From.Device))
		e.text(r.Reason)
		e.time(r.Received)
		e.secret(r.Stanza)
	},
	decode: func(d *decoder) (r omemo.JournalRow) {
		r.ID = d.uint64()
		r.From.JID = d.text()
		r.From.Device = omemo.DeviceID(d.uint32())
		r.Reason = d.text()
		r.Received = d.time()
		r.Stanza = d.secret()
		return r
	},
}

var owed = mapping[omemo.OwedRow, omemo.OwedID]{
	table: table{
		name:   "omemo_owed",
		key:    []column{{"kind", integer}, versionColumn, jidColumn, deviceColumn, {"session", integer}},
		fields: []column{{"since", integer}},
	},
	id: func(r *omemo.OwedRow) omemo.OwedID { return r.OwedID },
	bindKey: func(e *encoder, id omemo.OwedID) {
		e.count(int(id.Kind))
		bindPeer(e, id.Peer)
		e.number(id.Session)
	},
	bindFields: func(e *encoder, r *omemo.OwedRow) { e.time(r.Since) },
	decode: func(d *decoder) (r omemo.OwedRow) {
		r.Kind = omemo.OwedKind(d.count())
		r.Peer = decodePeer(d)
		r.Session = d.uint64()
		r.Since = d.time()
		return r
	},
}

var cursors = mapping[omemo.Cursor, string]{
	table: table{
		name:   "omemo_cursor",
		key:    []column{{"archive", text}},
		fields: []column{{"position", text}, {"learnt", integer}},
	},
	id:      func(r *omemo.Cursor) string { return r.Archive },
	bindKey: (*encoder).text,
	bindFields: func(e *encoder, r *omemo.Cursor) {
		e.text(r.Position)
		e.time(r.When)
	},
	decode: func(d *decoder) (r omemo.Cursor) {
		r.Archive = d.text()
		r.Position = d.text()
		r.When = d.time()
		return r
	},
}
