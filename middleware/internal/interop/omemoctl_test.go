//go:build live && unix

package interop

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/storetest/pgtest"
	"example.org/omellium/stanza/pep"
)

// omemoctl looks after the account of a program whose store is in PostgreSQL: not as
// long as that runs, and then so that what it advertises stays as it is.
func TestOmemoctlOnPostgres(t *testing.T) {
	s := lab.Prosody(t)
	one := s.Account(t, "program")
	server, err := pgtest.Start()
	ok(t, err)
	t.Cleanup(func() { ok(t, server.Stop()) })
	c := &omemoctl{t: t, s: s, account: one, binary: omemoctlBinary(t), db: server.Database(t)}
	run := func(args ...string) (code int, said string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
		defer cancel()
		cmd := exec.CommandContext(ctx, c.binary, append([]string{"-jid", one.JID, "-addr", s.Addr, "-ca", s.CAFile, "-db", c.db}, args...)...)
		cmd.Env = append(os.Environ(), "XMPP_PASSWORD="+one.Password)
		out, err := cmd.CombinedOutput()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}

	store, err := postgres.Open(t.Context(), c.db, one.JID)
	ok(t, err)
	om, err := middleware.New(t.Context(), middleware.Config{
		Store: store, Versions: []omemo.Version{omemo.V2}, Label: "orchard", SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod,
	})
	ok(t, err)
	session, err := s.Dial(t.Context(), one)
	ok(t, err)
	_, err = om.Wrap(t.Context(), session)
	ok(t, err)
	before, _, err := om.Manager().Advert(t.Context())
	ok(t, err)
	own, err := om.Manager().Device(t.Context())
	ok(t, err)
	if code, said := run("devices"); code != 2 || !strings.Contains(said, omemo.ErrLocked.Error()) {
		t.Errorf("the store of a program that runs: exit code %d, %s", code, said)
	}
	om.Close()
	ok(t, store.Close())

	peer := client(t, s, one)
	for _, args := range [][]string{{"devices"}, {"doctor"}, {"rotate"}, {"doctor", "-fix"}, {"doctor"}} {
		if code, said := run(args...); code != 0 {
			t.Errorf("%q: exit code %d, %s", args, code, said)
		}
		list, err := devicelist.Fetch(t.Context(), peer, "", omemo.V2)
		if err != nil || len(list.Devices) != 1 || list.Devices[0].ID != own.Device || list.Devices[0].Label != "orchard" {
			t.Errorf("%q: list %+v, %v", args, list, err)
		}
		if list, err := devicelist.Fetch(t.Context(), peer, "", omemo.Legacy); !errors.Is(err, pep.ErrNone) {
			t.Errorf("%q: legacy list %+v, %v", args, list, err)
		}
	}

	store, err = postgres.Open(t.Context(), c.db, one.JID)
	ok(t, err)
	defer store.Close()
	m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
	ok(t, err)
	if after, _, err := m.Advert(t.Context()); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("written down: %+v, before %+v; %v", after, before, err)
	}
}
