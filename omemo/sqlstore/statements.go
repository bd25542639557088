package sqlstore

import (
	"context"

	"example.org/omellium/omemo"
)

var statements = mapping[omemo.StatementRow, omemo.StatementID]{
	table: table{
		name:   "omemo_statement",
		key:    []column{jidColumn, {"fingerprint", octets}, {"owner", text}, {"about", octets}},
		fields: []column{{"trusted", integer}, {"stated", integer}},
	},
	id: func(r *omemo.StatementRow) omemo.StatementID { return r.StatementID },
	bindKey: func(e *encoder, id omemo.StatementID) {
		e.text(id.JID)
		e.bytes(id.Fingerprint[:])
		e.text(id.Owner)
		e.bytes(id.Key[:])
	},
	bindFields: func(e *encoder, r *omemo.StatementRow) {
		e.flag(r.Trusted)
		e.time(r.Stated)
	},
	decode: func(d *decoder) (r omemo.StatementRow) {
		r.JID = d.text()
		d.fill(r.Fingerprint[:], d.bytes())
		r.Owner = d.text()
		d.fill(r.Key[:], d.bytes())
		r.Trusted = d.flag()
		r.Stated = d.time()
		return r
	},
}

// Statements implements omemo.Store.
func (s *Store) Statements(ctx context.Context, jids ...string) (found []omemo.StatementRow, err error) {
	err = s.verified(func() (err error) {
		found, err = ofAccounts(ctx, s, &statements, jids)
		return err
	}, func() error {
		var rows []marked
		each(&s.digest.marks, &statements, found, func(r marked) { rows = append(rows, r) })
		return s.digest.marks.compare(jids, rows, statements.name)
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
