package sqlstore

import (
	"context"

	"example.org/omellium/omemo"
)

var occupants = mapping[omemo.OccupantRow, omemo.OccupantID]{
	table: table{
		name:   "omemo_occupant",
		key:    []column{{"room", text}, {"nick", text}, {"n", integer}},
		fields: []column{jidColumn, {"since", integer}, {"seen", integer}},
	},
	id: func(r *omemo.OccupantRow) omemo.OccupantID { return r.OccupantID },
	bindKey: func(e *encoder, id omemo.OccupantID) {
		e.text(id.Room)
		e.text(id.Nick)
		e.number(uint64(id.N))
	},
	bindFields: func(e *encoder, r *omemo.OccupantRow) {
		e.text(r.Account)
		e.time(r.Since)
		e.time(r.Seen)
	},
	decode: func(d *decoder) (r omemo.OccupantRow) {
		r.Room = d.text()
		r.Nick = d.text()
		r.N = d.uint32()
		r.Account = d.text()
		r.Since = d.time()
		r.Seen = d.time()
		return r
	},
}

var echoes = mapping[omemo.EchoRow, [32]byte]{
	table: table{
		name:   "omemo_echo",
		key:    []column{{"hash", octets}},
		fields: []column{{"outbox", integer}, {"created", integer}, {"content", octets}},
	},
	id:      func(r *omemo.EchoRow) [32]byte { return r.Hash },
	bindKey: func(e *encoder, hash [32]byte) { e.bytes(hash[:]) },
	bindFields: func(e *encoder, r *omemo.EchoRow) {
		e.number(r.Outbox)
		e.time(r.Created)
		e.secret(r.Content)
	},
	decode: func(d *decoder) (r omemo.EchoRow) {
		d.fill(r.Hash[:], d.bytes())
		r.Outbox = d.uint64()
		r.Created = d.time()
		r.Content = d.secret()
		return r
	},
}

// Occupants implements omemo.Store.
func (s *Store) Occupants(ctx context.Context, rooms ...string) ([]omemo.OccupantRow, error) {
	if len(rooms) == 0 {
		return occupants.every(ctx, s, "")
	}
	return findBy(ctx, s, &occupants, occupants.key[:1], (*encoder).text, rooms)
}

// Echoes implements omemo.Store.
func (s *Store) Echoes(ctx context.Context, hashes ...[32]byte) ([]omemo.EchoRow, error) {
	if len(hashes) == 0 {
		return echoes.every(ctx, s, "")
	}
	return echoes.find(ctx, s, hashes)
}
