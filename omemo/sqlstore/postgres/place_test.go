//go:build unix && live

package postgres_test

import (
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/storetest/pgtest"
)

const contact = "romeo@montague.example"

// correspondent is a contact that the account writes to.
type correspondent struct {
	t       *testing.T
	contact *omemo.Manager
}

func newCorrespondent(t *testing.T) *correspondent {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), memstore.New(contact), omemo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &correspondent{t, m}
}

// transient makes a stanza that is not kept.
func transient(*omemo.Sealed) ([]omemo.Outgoing, error) {
	return []omemo.Outgoing{{ID: "id", Chat: contact, Stanza: []byte("<message/>"), Transient: true}}, nil
}

// write writes messages from a store, which the contact reads, and returns how
// many of them began a session.
func (c *correspondent) write(m *omemo.Manager, n int) (exchanges int) {
	c.t.Helper()
	ctx := c.t.Context()
	device, err := c.contact.Device(ctx)
	ok(c.t, err)
	ok(c.t, m.SetList(ctx, contact, omemo.V2, []omemo.DeviceID{device.Device}))
	b, err := c.contact.Bundle(ctx, omemo.V2)
	ok(c.t, err)
	for range n {
		sealed, err := m.Encrypt(ctx, omemo.Plaintext{V2: []byte("<envelope/>")}, []string{contact}, transient, b)
		ok(c.t, err)
		message := sealed.Messages[0]
		if message.Keys[0].Exchange {
			exchanges++
		}
		// The contact refuses a message key that comes a second time.
		_, err = c.contact.Decrypt(ctx, message, func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, nil })
		ok(c.t, err)
	}
	return exchanges
}

// confirm lets the contact answer, so that later messages need no key exchange.
func (c *correspondent) confirm(m *omemo.Manager) {
	c.t.Helper()
	ctx := c.t.Context()
	device, err := m.Device(ctx)
	ok(c.t, err)
	ok(c.t, c.contact.SetList(ctx, account, omemo.V2, []omemo.DeviceID{device.Device}))
	sealed, err := c.contact.Encrypt(ctx, omemo.Plaintext{V2: []byte("<envelope/>")}, []string{account}, transient)
	ok(c.t, err)
	_, err = m.Decrypt(ctx, sealed.Messages[0], func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, nil })
	ok(c.t, err)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// manager opens the account.
func manager(t *testing.T, url string, opts ...sqlstore.Option) (*omemo.Manager, *sqlstore.Store) {
	t.Helper()
	s := open(t, url, account, opts...)
	m, err := omemo.NewManager(t.Context(), s, omemo.Options{})
	ok(t, err)
	return m, s
}

func rolledBack(t *testing.T, m *omemo.Manager) bool {
	t.Helper()
	is, err := m.RolledBack(t.Context())
	ok(t, err)
	return is
}

// TestRestored restores copies of a database in every way there is: each is
// noticed when the account is opened, without anything beside the database, and
// until the sending state was made anew; no key is used twice then. What was
// not restored is not suspected.
func TestRestored(t *testing.T) {
	for _, test := range []struct {
		name string
		// restore brings back a dump that was made earlier and returns the URL.
		restore func(t *testing.T, s *pgtest.Server, url, dump string) string
		want    bool
	}{
		{"restarted", func(t *testing.T, s *pgtest.Server, url, _ string) string { s.Restart(t); return url }, false},
		{"vacuumed", func(t *testing.T, s *pgtest.Server, url, _ string) string {
			s.Exec(t, url, `VACUUM FULL`, `REINDEX TABLE omemo_account`, `CHECKPOINT`)
			return url
		}, false},
		{"another cluster", func(t *testing.T, _ *pgtest.Server, _, dump string) string { return server.Restore(t, dump) }, true},
		{"another database", func(t *testing.T, s *pgtest.Server, _, dump string) string { return s.Restore(t, dump) }, true},
		{"the same database", func(t *testing.T, s *pgtest.Server, url, dump string) string {
			s.Exec(t, url, `DROP SCHEMA public CASCADE`, `CREATE SCHEMA public`, dump)
			return url
		}, true},
		{"another timeline", func(t *testing.T, s *pgtest.Server, url, _ string) string { s.Recover(t); return url }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster, err := pgtest.Start()
			ok(t, err)
			t.Cleanup(func() { cluster.Stop() })
			url := cluster.Database(t)
			sealed := sqlstore.WithKey(testKey)
			m, s := manager(t, url, sealed)
			c := newCorrespondent(t)
			c.write(m, 2)
			c.confirm(m)
			ok(t, s.Close())
			dump := cluster.Dump(t, url)
			for range 2 { // opened again in the same place
				m, s = manager(t, url, sealed)
				if rolledBack(t, m) {
					t.Fatal("suspected without a reason")
				}
				if c.write(m, 10) != 0 {
					t.Fatal("the session is not confirmed")
				}
				ok(t, s.Close())
			}

			url = test.restore(t, cluster, url, dump)
			for range 2 { // also if the program dies before it does anything
				m, s = manager(t, url, sealed)
				if rolledBack(t, m) != test.want {
					t.Fatalf("noticed: %v, want %v", !test.want, test.want)
				}
				ok(t, s.Close())
			}
			m, s = manager(t, url, sealed)
			if test.want {
				if _, done, err := m.Quarantine(t.Context()); err != nil || !done {
					t.Fatal(done, err)
				}
			}
			if exchanges := c.write(m, 20); (exchanges > 0) != test.want {
				t.Errorf("%d messages began a session", exchanges)
			}
			ok(t, s.Close())
			m, _ = manager(t, url, sealed) // it settles
			if rolledBack(t, m) {
				t.Error("suspected again")
			}
			c.write(m, 1)
		})
	}
}

// TestNoPlace: a user who may not ask where the database stands can work.
func TestNoPlace(t *testing.T) {
	url := server.Database(t)
	server.Exec(t, url, `REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`,
		`DROP ROLE IF EXISTS modest`, `CREATE ROLE modest LOGIN`, `GRANT CREATE ON SCHEMA public TO modest`)
	modest := server.As(url, "modest")
	m, s := manager(t, modest)
	c := newCorrespondent(t)
	c.write(m, 2)
	ok(t, s.Close())
	m, s = manager(t, modest)
	if rolledBack(t, m) {
		t.Error("suspected without a reason")
	}
	c.write(m, 2)
	ok(t, s.Close())
	server.Exec(t, url, `DROP OWNED BY modest`)
}
