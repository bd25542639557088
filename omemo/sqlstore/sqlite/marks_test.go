package sqlite_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// acquaintances are changes with everything that can be known about two
// accounts.
func acquaintances(round int) *omemo.Changes {
	c := &omemo.Changes{}
	when := time.Date(2026, 2, 3, 4, round, 5, 678901000, time.UTC)
	for i, jid := range []string{"romeo@montague.example", "nurse@capulet.example"} {
		c.Contacts = append(c.Contacts, omemo.Contact{
			JID: jid, Seen: true, Written: i == 0, Lists: map[omemo.Version]time.Time{omemo.V2: when},
		})
		for j := range 2 {
			f := omemo.Fingerprint{0: byte(i), 1: byte(j), 31: 1}
			c.Devices = append(c.Devices, omemo.Device{
				Peer:     omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: jid, Device: omemo.DeviceID(j + 1)}},
				Identity: f, Fingerprint: f, Active: true, Label: "balcony", FirstSeen: when, LastSeen: when,
			})
			c.Trust = append(c.Trust, omemo.TrustRecord{JID: jid, Fingerprint: f, Trust: omemo.Verified, Since: when})
		}
		c.Statements = append(c.Statements, omemo.StatementRow{
			StatementID: omemo.StatementID{JID: jid, Fingerprint: omemo.Fingerprint{1}, Owner: jid, Key: omemo.Fingerprint{2}}, Stated: when,
		})
	}
	return c
}

// learnt reads what is known, account by account and as a whole, and returns the
// first error of each way.
func learnt(t *testing.T, s *sqlstore.Store) (one, all error) {
	t.Helper()
	ctx := t.Context()
	for _, jid := range []string{"romeo@montague.example", "nurse@capulet.example", "mallory@example.net"} {
		_, err := s.Accounts(ctx, jid)
		_, stated := s.Statements(ctx, jid)
		one = errors.Join(one, err, stated)
	}
	_, err := s.Accounts(ctx)
	_, stated := s.Statements(ctx)
	return one, errors.Join(err, stated)
}

// TestTamperedKnowledge: what is known about others stands in clear in a sealed
// account, but nobody without the key can change it, neither while the account
// is open nor while it is not.
func TestTamperedKnowledge(t *testing.T) {
	const copied = `INSERT OR REPLACE INTO omemo_%[1]s SELECT * FROM old_%[1]s`
	statements := map[string]string{
		"key verified":       `UPDATE omemo_trust SET trust = trust - 1 WHERE jid LIKE 'romeo%'`,
		"decision moved":     `UPDATE omemo_trust SET fingerprint = x'00000000000000000000000000000000000000000000000000000000000000ff' WHERE jid LIKE 'romeo%' AND fingerprint = (SELECT min(fingerprint) FROM omemo_trust WHERE jid LIKE 'romeo%')`,
		"decision of whom":   `UPDATE omemo_trust SET said_by = fingerprint`,
		"decision made up":   `INSERT INTO omemo_trust (account, jid, fingerprint, trust, since) SELECT account, 'mallory@example.net', fingerprint, trust, since FROM omemo_trust LIMIT 1`,
		"decisions gone":     `DELETE FROM omemo_trust WHERE jid LIKE 'romeo%'`,
		"decisions put back": fmt.Sprintf(copied, "trust"),
		"key replaced":       `UPDATE omemo_device SET fingerprint = x'00000000000000000000000000000000000000000000000000000000000000ff', identity = x'00000000000000000000000000000000000000000000000000000000000000ff' WHERE device = 2`,
		"device of another":  `UPDATE omemo_device SET jid = 'mallory@example.net' WHERE jid LIKE 'romeo%'`,
		"device gone":        `DELETE FROM omemo_device WHERE jid LIKE 'romeo%' AND device = 1`,
		"devices put back":   fmt.Sprintf(copied, "device"),
		"never seen":         `UPDATE omemo_contact SET seen = 0`,
		"opted out":          `UPDATE omemo_contact SET opt_out = 2`,
		"never heard of":     `UPDATE omemo_contact SET v2_list = NULL`,
		"contact gone":       `DELETE FROM omemo_contact WHERE jid LIKE 'romeo%'`,
		"statement turned":   `UPDATE omemo_statement SET trusted = 1`,
		"statement gone":     `DELETE FROM omemo_statement WHERE jid LIKE 'romeo%'`,
	}
	sealed := sqlstore.WithKey(testKey(1))
	prepare := func(t *testing.T) (path string, s *sqlstore.Store) {
		path = filepath.Join(t.TempDir(), "store.db")
		s = open(t, path, account, sealed)
		commit(t, s, acquaintances(1))
		db := raw(t, path)
		for _, table := range []string{"trust", "device"} {
			execute(t, db, fmt.Sprintf(`CREATE TABLE old_%[1]s AS SELECT * FROM omemo_%[1]s`, table))
		}
		commit(t, s, acquaintances(2))
		return path, s
	}
	for name, statement := range statements {
		t.Run(name, func(t *testing.T) {
			path, s := prepare(t)
			if one, all := learnt(t, s); one != nil || all != nil {
				t.Fatal("untouched:", one, all)
			}
			execute(t, raw(t, path), statement)
			if one, all := learnt(t, s); !errors.Is(one, sqlstore.ErrTampered) || !errors.Is(all, sqlstore.ErrTampered) {
				t.Errorf("while open: got %v, and of all %v", one, all)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := try(t, path, account, sealed); !errors.Is(err, sqlstore.ErrTampered) {
				t.Errorf("opened: got %v", err)
			}
		})
	}
	t.Run("untouched", func(t *testing.T) {
		path, s := prepare(t)
		devices := acquaintances(2).Devices
		for _, c := range []*omemo.Changes{
			{DropContacts: []string{"nurse@capulet.example"}},
			{DropDevices: []omemo.Peer{devices[2].Peer, devices[0].Peer}, Devices: devices[:1]},
			{DropContacts: []string{"romeo@montague.example"}, Trust: acquaintances(3).Trust[:1], Contacts: acquaintances(3).Contacts},
			acquaintances(4),
			{DropStatements: []omemo.StatementID{acquaintances(4).Statements[0].StatementID}},
		} {
			commit(t, s, c)
			if one, all := learnt(t, s); one != nil || all != nil {
				t.Fatal(one, all)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, account, sealed)
			if one, all := learnt(t, s); one != nil || all != nil {
				t.Fatal("opened again:", one, all)
			}
		}
	})
}
