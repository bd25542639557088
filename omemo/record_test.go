package omemo

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// talk drives a session between two accounts and hands out every state of it.
func talk(t testing.TB, v Version, each func(own *account, s *Session)) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	var accounts [2]*account
	var rows [2][]PreKeyRow
	for i, jid := range []string{"active@example.org", "passive@example.org"} {
		accounts[i], rows[i] = newAccount(jid, random, now)
	}
	var own []PreKeyRow
	for _, r := range rows[1] {
		if r.Version == v {
			own = append(own, r)
		}
	}
	b := accounts[1].bundle(v, own, random)
	f, err := b.verify(Device{})
	if err != nil {
		t.Fatal(err)
	}
	active, err := initiate(accounts[0], b, f, b.PreKeys[0], 1, random)
	if err != nil {
		t.Fatal(err)
	}
	sessions := [2]*Session{active, nil}
	format := v.profile().format
	send := func(from int) Key {
		t.Helper()
		next, key, err := sessions[from].seal(accounts[from], make([]byte, 32), random, new(slab))
		if err != nil {
			t.Fatal(err)
		}
		sessions[from] = next
		each(accounts[from], next)
		return key
	}
	receive := func(to int, key Key) {
		t.Helper()
		data := key.Data
		if key.Exchange {
			x, err := format.ParseExchange(data)
			if err != nil {
				t.Fatal(err)
			}
			data = x.Message
			if sessions[to] == nil {
				f, err := fingerprint(v, x.Identity)
				if err != nil {
					t.Fatal(err)
				}
				signed := accounts[to].keys(v).find(x.SignedPreKeyID)
				preKey := newPrivate(func() [32]byte { return own[0].Private })
				peer := Peer{v, Address{accounts[0].jid, accounts[0].device}}
				if sessions[to], err = accept(accounts[to], peer, x, f, signed, preKey, 2); err != nil {
					t.Fatal(err)
				}
			}
		}
		m, err := format.ParseMessage(data)
		if err != nil {
			t.Fatal(err)
		}
		o, err := sessions[to].open(accounts[to], m, new(ratchet.Budget))
		if err != nil {
			t.Fatal(err)
		}
		sessions[to] = o.session
		each(accounts[to], o.session)
	}
	each(accounts[0], active)
	for range 3 {
		send(0) // lost
		receive(1, send(0))
		receive(0, send(1))
		sessions[0].confirmed, sessions[0].heartbeat, sessions[0].byHand, sessions[0].archived = true, true, true, 3
	}
}

func TestSessionRecord(t *testing.T) {
	for _, v := range Versions() {
		longest := 0
		talk(t, v, func(own *account, s *Session) {
			row := s.row(new(slab))
			longest = max(longest, len(row.Record))
			if row.ID != s.id || row.Peer != s.peer || row.Archived != s.archived {
				t.Fatalf("row of %v", row.Peer)
			}
			got, err := row.session(own)
			if err != nil {
				t.Fatal(err)
			}
			again := got.row(new(slab))
			if !bytes.Equal(again.Record, row.Record) {
				t.Fatalf("%v: a record that was read is written differently", v)
			}
			// Keys are behind pointers with caches: compared by their bytes, above.
			got.state.Own = s.state.Own
			if !reflect.DeepEqual(got, s) {
				t.Fatalf("%v: a session that was read is another one", v)
			}
			for n := range row.Record {
				short := SessionRow{ID: row.ID, Peer: row.Peer, Record: row.Record[:n]}
				if _, err := short.session(own); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%d of %d bytes: %v", n, len(row.Record), err)
				}
			}
			long := SessionRow{ID: row.ID, Peer: row.Peer, Record: append(bytes.Clone(row.Record), 0)}
			if _, err := long.session(own); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("a byte too many: %v", err)
			}
			foreign := SessionRow{ID: row.ID, Peer: Peer{Version: 9}, Record: row.Record}
			if _, err := foreign.session(own); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("unknown version: %v", err)
			}
			for i := range row.Record {
				for bit := range 8 {
					flipped := SessionRow{ID: row.ID, Peer: row.Peer, Record: bytes.Clone(row.Record)}
					flipped.Record[i] ^= 1 << bit
					_, err := flipped.session(own)
					if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
						t.Fatalf("bit %d of byte %d: %v", bit, i, err)
					}
				}
			}
			newer := SessionRow{ID: row.ID, Peer: row.Peer, Record: bytes.Clone(row.Record)}
			newer.Record[0] = sessionFormat + 1
			if _, err := newer.session(own); !errors.Is(err, ErrNewer) {
				t.Fatalf("newer format: %v", err)
			}
		})
		if longest > 400 || longest < 300 {
			t.Errorf("%v: records of up to %d bytes", v, longest)
		}
	}
}

func TestAccountRecord(t *testing.T) {
	a, _ := newAccount("bot@example.org", random, time.Unix(1_700_000_000, 0))
	a.legacy.rotate(random, time.Unix(1_700_000_001, 5))
	// Format 1 had all but the advert.
	old := a.record()
	old = old[:len(old)-1]
	old[0] = 1
	if got, err := parseAccount(old); err != nil || got.advert != nil || !bytes.Equal(got.record(), a.record()) {
		t.Errorf("format 1: %v", err)
	}
	if _, err := parseAccount(append(bytes.Clone(old), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many in format 1: %v", err)
	}
	a.advert = &Advert{Versions: []Version{Legacy, V2}, Label: "orchard", SignedPreKeyPeriod: MaxSignedPreKeyPeriod}
	record := a.record()
	got, err := parseAccount(record)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.record(), record) || got.jid != a.jid || got.device != a.device || got.identity.Edwards() != a.identity.Edwards() {
		t.Error("an account that was read is another one")
	}
	if !reflect.DeepEqual(got.advert, a.advert) {
		t.Errorf("advert %+v", got.advert)
	}
	if got.legacy.previous.id != 1 || !got.legacy.signed.created.Equal(a.legacy.signed.created) || got.v2.previous.id != 0 {
		t.Error("signed pre keys")
	}
	for n := range record {
		if _, err := parseAccount(record[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(record), err)
		}
	}
	if _, err := parseAccount(append(bytes.Clone(record), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
	for i := range record {
		for bit := range 8 {
			flipped := bytes.Clone(record)
			flipped[i] ^= 1 << bit
			if _, err := parseAccount(flipped); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	newer := bytes.Clone(record)
	newer[0] = accountFormat + 1
	if _, err := parseAccount(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("newer format: %v", err)
	}
}

// Records as they were written once are read for ever.
func TestAccountFormats(t *testing.T) {
	const account = "" +
		"000f626f74406578616d706c652e6f726700000002000100000000000000000000000000000000000000000000000000000000000040000000000000" +
		"0000000000030000006500000002000000000009000000000000000000000000000000000000000000000000000017979cfe71c4ca05000000016800" +
		"00000000000000000000000000000000000000000000000000000000004017979cfe362a000000000002000000650000000103000000000000000000" +
		"0000000000000000000000000000000000000000004017979cfe362a000000000000"
	const identity = "da1bfc857d76e10385e5faa9bfe1491bcae890cdb22179e84be5b201912bb65d"
	for _, c := range []struct {
		name, record string
		advert       *Advert
	}{
		{"1", "01" + account, nil},
		{"2, nothing advertised yet", "02" + account + "00", nil},
		{
			"2", "02" + account + "83" + "07" + "6f726368617264" + "0008983fe4a40000",
			&Advert{Versions: []Version{Legacy, V2}, Label: "orchard", SignedPreKeyPeriod: MaxSignedPreKeyPeriod},
		},
	} {
		record, err := hex.DecodeString(c.record)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAccount(record)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f := a.identity.Montgomery(); a.jid != "bot@example.org" || a.device != 2 || hex.EncodeToString(f[:]) != identity ||
			a.legacy.signed.id != 2 || a.legacy.previous.id != 1 || a.v2.signed.id != 1 || a.v2.previous.id != 0 || a.v2.nextPreKey != 101 ||
			!a.legacy.signed.created.Equal(time.Unix(1_700_000_001, 5)) || !reflect.DeepEqual(a.advert, c.advert) {
			t.Errorf("%s: read %+v, advert %+v", c.name, a.device, a.advert)
		}
	}
	for _, bad := range []string{"01", "03", "7f", "80" + "00", "84" + "00" + "0008983fe4a40000", "83" + "08" + "6f726368617264" + "0008983fe4a40000"} {
		record, err := hex.DecodeString("02" + account + bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseAccount(record); !errors.Is(err, ErrCorrupt) {
			t.Errorf("advert %s: %v", bad, err)
		}
	}
}

func FuzzSessionRecord(f *testing.F) {
	for _, v := range Versions() {
		talk(f, v, func(_ *account, s *Session) { f.Add(int(v), s.row(new(slab)).Record) })
	}
	own, _ := newAccount("bot@example.org", random, time.Unix(1_700_000_000, 0))
	f.Fuzz(func(t *testing.T, v int, record []byte) {
		row := SessionRow{ID: 1, Peer: Peer{Version(v), Address{"peer@example.org", 1}}, Record: record}
		s, err := row.session(own)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		again := s.row(new(slab))
		if len(again.Record) != len(record) || len(record) > 400 {
			t.Fatalf("%d bytes were read, %d written", len(record), len(again.Record))
		}
		// Whatever a damaged record holds, using the session does not panic.
		_, _, _ = s.seal(own, make([]byte, 32), random, new(slab))
		_, _ = s.open(own, wire.Message{Ciphertext: make([]byte, 16), MAC: make([]byte, 8)}, new(ratchet.Budget))
		_ = s.Fingerprint()
	})
}

func FuzzAccountRecord(f *testing.F) {
	a, _ := newAccount("bot@example.org", random, time.Unix(1_700_000_000, 0))
	f.Add(a.record())
	a.v2.rotate(random, time.Unix(1_700_000_001, 0))
	f.Add(a.record())
	old := a.record()
	old[0] = 1
	f.Add(old[:len(old)-1])
	a.advert = &Advert{Versions: []Version{V2}, Label: "orchard", SignedPreKeyPeriod: SignedPreKeyPeriod}
	f.Add(a.record())
	f.Fuzz(func(t *testing.T, record []byte) {
		a, err := parseAccount(record)
		if err == nil && !bytes.Equal(a.record(), record) && a.identity != nil {
			// A scalar that was not clamped is written clamped: read once more, it is
			// the same.
			again, err := parseAccount(a.record())
			if err != nil || !bytes.Equal(again.record(), a.record()) {
				t.Fatal("an account that was read is written differently")
			}
		}
	})
}

func TestNoSecretIsPrinted(t *testing.T) {
	var secrets [][]byte
	secret := func(b []byte) { secrets = append(secrets, bytes.Clone(b)) }
	var values []any
	for _, v := range Versions() {
		var last *Session
		talk(t, v, func(own *account, s *Session) {
			last = s
			private := s.state.Own.Bytes()
			secret(private[:])
			secret(s.state.Root[:])
			_, identity := own.identity.Secret()
			secret(identity[:])
			if s.state.Sent == 0 {
				values = append(values, own, *own)
			}
		})
		secret(last.state.Sending[:])
		secret(last.state.Receiving.Key[:])
		row := last.row(new(slab))
		secret(row.Record)
		values = append(values, last, *last, []*Session{last}, []Session{*last}, row, &row, []SessionRow{row}, last.state)
	}
	key := random()
	secret(key[:])
	preKey := PreKeyRow{Version: V2, ID: 1, Private: key}
	skipped := SkippedRow{Key: key}
	inbox := InboxRow{Stanza: key[:]}
	state := State{Account: key[:]}
	changes := Changes{Account: key[:], PreKeys: []PreKeyRow{preKey}, Skipped: []SkippedRow{skipped}, Inbox: []InboxRow{inbox}}
	m := &Manager{account: values[0].(*account), sessions: map[Peer]*slot{}, store: nil}
	values = append(values, preKey, &preKey, []PreKeyRow{preKey}, skipped, &skipped, inbox, &inbox, state, &state, changes, &changes, m)

	forms := printedForms(secrets)
	for _, x := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
			silent(t, forms, fmt.Sprintf("%T with %s", x, verb), fmt.Sprintf(verb, x))
		}
		var text, object strings.Builder
		slog.New(slog.NewTextHandler(&text, nil)).Info("value", "x", x)
		silent(t, forms, fmt.Sprintf("%T as text", x), text.String())
		slog.New(slog.NewJSONHandler(&object, nil)).Info("value", "x", x)
		silent(t, forms, fmt.Sprintf("%T as JSON", x), object.String())
	}
	for _, x := range values {
		if s, ok := x.(*Session); ok && !strings.Contains(fmt.Sprint(s), "session with") {
			t.Errorf("a session prints as %v", s)
		}
	}
}

// printedForms returns the forms that fmt and encoders give bytes.
func printedForms(secrets [][]byte) []string {
	var forms []string
	for _, s := range secrets {
		forms = append(forms, string(s), fmt.Sprintf("%x", s), fmt.Sprintf("%X", s), base64.StdEncoding.EncodeToString(s))
		for _, verb := range []string{"%d", "%o", "%b", "%#x", "%q", "%c", "%U"} {
			list := make([]string, len(s))
			for i, b := range s {
				list[i] = fmt.Sprintf(verb, b)
			}
			for _, between := range []string{" ", ",", ", "} {
				forms = append(forms, strings.Join(list, between))
			}
		}
	}
	return forms
}

func silent(t *testing.T, forms []string, what, text string) {
	t.Helper()
	for _, form := range forms {
		if strings.Contains(text, form) {
			t.Fatalf("%s: a secret is printed: %.40s...", what, form)
		}
	}
}
