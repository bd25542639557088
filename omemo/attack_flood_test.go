package omemo_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// attackAgreements counts the key agreements and the steps of chains, of two HMACs
// each, that one message can cause: with all sessions that can be held, and all
// keys that are tried.
func attackAgreements(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	for range omemo.MaxArchived + 3 { // sessions of which each is tried
		sealed, err := a.m.Replace(t.Context(), b.bundle(v), stanzas("replaced", bob))
		a.ok(err)
		_, err = b.receive(b.find(sealed))
		b.ok(err)
	}
	if n := len(b.sessions(a.peer(v))); n != omemo.MaxArchived+1 {
		t.Fatalf("%d sessions", n)
	}
	honest := b.find(a.send("honest", bob))
	attacker := newWorld(t).join(carol, omemo.Options{})
	attacker.ok(attacker.m.SetList(t.Context(), bob, v, []omemo.DeviceID{b.device}))
	for name, test := range map[string]struct {
		message *omemo.Message
		most    uint64
	}{
		// A ratchet step in each session that is held.
		"unknown ratchet key": {b.spoiled(honest.Keys[0].Bare(v), v, 1, a.address()), omemo.MaxArchived + 1},
		"eight of them":       {b.spoiled(honest.Keys[0].Bare(v), v, omemo.MaxCandidates, a.address()), omemo.MaxCandidates * (omemo.MaxArchived + 1)},
		"nine of them":        {b.spoiled(honest.Keys[0].Bare(v), v, omemo.MaxCandidates+1, a.address()), 0},
	} {
		t.Run(name, func(t *testing.T) {
			before, steps := curve.Agreements(), ratchet.Steps()
			b.refuses(test.message, omemo.ErrRefused)
			if n := curve.Agreements() - before; n > test.most {
				t.Errorf("%d agreements, at most %d", n, test.most)
			}
			if n := ratchet.Steps() - steps; n > test.most*(ratchet.MaxSkip+1) {
				t.Errorf("%d steps, at most %d for each agreement", n, ratchet.MaxSkip+1)
			}
		})
	}
	t.Run("a gap in the chain", func(t *testing.T) {
		steps := ratchet.Steps()
		for _, gap := range []uint32{1, 999, 1000, 1001, 1 << 31, 1<<32 - 1} {
			b.refuses(b.jumped(honest.Keys[0].Bare(v), v, gap, a.address()), omemo.ErrRefused)
		}
		if n := ratchet.Steps() - steps; n > 3*(ratchet.MaxSkip+1)*(omemo.MaxArchived+1) {
			t.Errorf("%d steps", n)
		}
	})
	t.Run("the worst of all", func(t *testing.T) {
		// As many keys as are tried, each with a new ratchet key and the greatest gap, in
		// each session that is held: SECURITY.md names the figures.
		worst := uint64(omemo.MaxCandidates * (omemo.MaxArchived + 1))
		message := b.spoiled(b.jumped(honest.Keys[0].Bare(v), v, ratchet.MaxSkip, a.address()).Keys[0], v, omemo.MaxCandidates, a.address())
		if v == omemo.V2 {
			worst = omemo.MaxArchived + 1
			message.Keys = message.Keys[:1] // more are refused before
		}
		before, steps := curve.Agreements(), ratchet.Steps()
		b.refuses(message, omemo.ErrRefused)
		n, m := curve.Agreements()-before, ratchet.Steps()-steps
		t.Logf("%d agreements, %d steps", n, m)
		if n != worst || m != worst*(ratchet.MaxSkip+1) {
			t.Errorf("%d agreements and %d steps, want %d and %d", n, m, worst, worst*(ratchet.MaxSkip+1))
		}
	})
	t.Run("keys for others", func(t *testing.T) {
		before, steps := curve.Agreements(), ratchet.Steps()
		b.refuses(&omemo.Message{Version: v, Sender: a.address(), Payload: []byte("x")}, omemo.ErrNotForUs)
		if n, m := curve.Agreements()-before, ratchet.Steps()-steps; n+m > 0 {
			t.Errorf("%d agreements, %d steps", n, m)
		}
	})
	t.Run("key exchange", func(t *testing.T) {
		sealed, err := attacker.m.Encrypt(t.Context(), both("canary"), []string{bob}, stanzas("x", bob), b.bundle(v))
		attacker.ok(err)
		message := *sealed.Messages[0]
		message.Keys = []omemo.Key{message.Keys[0]}
		message.Keys[0].Address = b.address()
		message.Keys[0].Data = bytes.Clone(message.Keys[0].Data)
		message.Keys[0].Data[len(message.Keys[0].Data)-8] ^= 1
		before := curve.Agreements()
		if _, err := b.receive(&message); err == nil {
			t.Error("accepted")
		}
		// Four, and the step of the ratchet.
		if n := curve.Agreements() - before; n > 5 {
			t.Errorf("%d agreements", n)
		}
	})
	_, err := b.receive(honest)
	b.ok(err)
}

// spoiled returns a message of n keys, each under another ratchet key, of which
// none opens.
func (p *party) spoiled(k omemo.Key, v omemo.Version, n int, from omemo.Address) *omemo.Message {
	p.Helper()
	m := &omemo.Message{Version: v, Sender: from, IV: make([]byte, 12), Payload: []byte("x")}
	h, err := k.Header(v)
	p.ok(err)
	for i := range n {
		other := h.Key
		other[0] ^= byte(i + 1)
		m.Keys = append(m.Keys, omemo.Key{Address: p.address(), Data: bytes.ReplaceAll(bytes.Clone(k.Data), h.Key[:], other[:])})
	}
	return m
}

// jumped returns a message that claims to be another one of its chain.
func (p *party) jumped(k omemo.Key, v omemo.Version, n uint32, from omemo.Address) *omemo.Message {
	p.Helper()
	h, err := k.Header(v)
	p.ok(err)
	h.N = n
	format := wire.Legacy
	if v == omemo.V2 {
		format = wire.V2
	}
	signed := format.AppendSigned(nil, h, make([]byte, 48))
	data := format.AppendMessage(nil, signed, make([]byte, []int{8, 16}[format]))
	return &omemo.Message{
		Version: v, Sender: from, IV: make([]byte, 12), Payload: []byte("x"),
		Keys: []omemo.Key{{Address: p.address(), Data: data}},
	}
}

// attackSenders names ever other senders, accounts as well as devices: what is
// looked up in vain is not remembered for ever.
func attackSenders(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	message := b.jumped(b.find(a.send("x", bob)).Keys[0].Bare(v), v, 0, a.address())
	for i := range 2*omemo.CacheLimit + 100 {
		message.Sender = omemo.Address{JID: alice, Device: omemo.DeviceID(i + 1)}
		if i%2 == 0 {
			message.Sender.JID = fmt.Sprintf("stranger%d@evil.example", i)
		}
		if _, err := b.m.Decrypt(t.Context(), message, accept); err == nil {
			t.Fatal("accepted")
		}
	}
	if accounts, devices := b.m.Cached(); accounts > omemo.CacheLimit+1 || devices > omemo.CacheLimit+1 {
		t.Errorf("%d accounts, %d devices are remembered", accounts, devices)
	}
	b.reads(a.send("honest", bob), "honest")
}

// attackHeartbeats lets two devices that answer everything talk for long.
func attackHeartbeats(t *testing.T, v omemo.Version) {
	steps := 2_000
	if s := os.Getenv("OMELLIUM_STEPS"); s != "" {
		steps, _ = strconv.Atoi(s)
	}
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, v)
		r := rand.New(rand.NewPCG(4, uint64(v)))
		automatic, direction := 0, 0
		for i := range steps {
			if r.IntN(20) == 0 {
				direction = 1 - direction
			}
			from, to := a, b
			if direction == 1 {
				from, to = b, a
			}
			sealed := from.send("text", to.jid)
			to.reads(sealed, "text")
			automatic += a.settle()
			// The outbox is the server's by now.
			if i%500 == 0 {
				time.Sleep(time.Minute)
				a.emptyOutbox()
				b.emptyOutbox()
			}
		}
		// One answer to a key exchange, one heartbeat for each 54 messages in a
		// chain, one invitation each.
		if most := steps/54 + 6; automatic > most {
			t.Errorf("%d automatic messages in %d steps, at most %d", automatic, steps, most)
		}
	})
}

func (p *party) emptyOutbox() {
	p.Helper()
	rows, err := p.m.Outbox(p.ctx, 0, 1<<20)
	p.ok(err)
	var seqs []uint64
	for _, r := range rows {
		seqs = append(seqs, r.Seq)
	}
	p.m.Later(nil, seqs)
	inbox, err := p.m.Inbox(p.ctx, 0, 1<<20)
	p.ok(err)
	seqs = nil
	for _, r := range inbox {
		seqs = append(seqs, r.Seq)
	}
	p.m.Later(seqs, nil)
	p.ok(p.m.Flush(p.ctx))
}

// attackStrangers has many accounts begin sessions that were never written to.
func attackStrangers(t *testing.T, v omemo.Version) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		friend, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
		w.meet(v)
		friend.reads(b.send("hello", alice), "hello")
		evil := w.join(carol, omemo.Options{})
		evil.ok(evil.m.SetList(t.Context(), bob, v, []omemo.DeviceID{b.device}))
		var published *omemo.Bundle
		arrive := func(i int) error {
			if published == nil || len(published.PreKeys) < 2 {
				published = b.bundle(v)
			}
			chosen := *published
			chosen.PreKeys = published.PreKeys[:1]
			published.PreKeys = published.PreKeys[1:]
			sealed, err := evil.m.Replace(t.Context(), &chosen, stanzas("x", bob))
			evil.ok(err)
			evil.m.Later(nil, []uint64{sealed.Outbox[0].Seq})
			message := *b.find(sealed)
			message.Sender = omemo.Address{JID: fmt.Sprintf("stranger%d@evil.example", i), Device: evil.device}
			_, err = b.m.Decrypt(t.Context(), &message, accept)
			return err
		}
		refused := 0
		for i := range 100 {
			if err := arrive(i); errors.Is(err, omemo.ErrFlood) {
				refused++
			} else {
				b.ok(err)
			}
		}
		if refused != 40 {
			t.Errorf("%d of 100 at once were refused", refused)
		}
		time.Sleep(2 * time.Minute)
		// However many come: only so many are remembered.
		rows := func() int {
			all, err := b.store.Store.Accounts(t.Context())
			b.ok(err)
			return len(all.Contacts) + len(all.Devices) + len(all.Trust)
		}
		total := omemo.MaxStrangers + 400
		for i := range total {
			if i%50 == 0 {
				time.Sleep(2 * time.Minute)
				b.settleOwn()
			}
			b.ok(arrive(1000 + i))
		}
		if n := rows(); n > 3*(omemo.MaxStrangers+10) {
			t.Errorf("%d rows", n)
		}
		_, known, err := b.m.Account(t.Context(), alice)
		b.ok(err)
		if len(known) == 0 {
			t.Error("a friend was forgotten for strangers")
		}
		b.reads(friend.send("still here", bob), "still here")
		b.restart()
		b.reads(friend.send("and now", bob), "and now")
	})
}

// settleOwn strikes off what is owed.
func (p *party) settleOwn() {
	p.Helper()
	rows, err := p.m.Owed(p.ctx)
	p.ok(err)
	var ids []omemo.OwedID
	for _, r := range rows {
		ids = append(ids, r.OwedID)
	}
	p.ok(p.m.Strike(p.ctx, ids...))
	p.emptyOutbox()
}

// attackShared has an account show the identity key of another as its own.
func attackShared(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	for name, claimed := range map[string]*omemo.Bundle{"a contact's": a.bundle(v), "our own": b.bundle(v)} {
		t.Run(name, func(t *testing.T) {
			forged := *claimed
			forged.Owner = omemo.Address{JID: strings.ReplaceAll(name, " ", "") + "@evil.example", Device: 4711}
			forged.Owner.JID = strings.ReplaceAll(forged.Owner.JID, "'", "")
			b.ok(b.m.SetList(t.Context(), forged.Owner.JID, v, []omemo.DeviceID{4711}))
			events, err := b.m.Compare(t.Context(), &forged)
			b.ok(err)
			if !hasEvent(events, omemo.IdentityShared) {
				t.Errorf("events %v", events)
			}
			_, err = b.m.Encrypt(t.Context(), both("canary"), []string{forged.Owner.JID}, stanzas("x", forged.Owner.JID), &forged)
			if !errors.Is(err, omemo.ErrUntrusted) {
				t.Errorf("error %v", err)
			}
			// Also after a restart, and until a person decides.
			b.restart()
			_, err = b.m.Encrypt(t.Context(), both("canary"), []string{forged.Owner.JID}, stanzas("x", forged.Owner.JID), &forged)
			if !errors.Is(err, omemo.ErrUntrusted) {
				t.Errorf("after a restart: error %v", err)
			}
			f, err := forged.Fingerprint()
			b.ok(err)
			b.ok(b.m.SetTrust(t.Context(), forged.Owner.JID, f, omemo.Verified))
			_, err = b.m.Encrypt(t.Context(), both("for it all the same"), []string{forged.Owner.JID}, stanzas("x", forged.Owner.JID), &forged)
			b.ok(err)
		})
	}
	b.reads(a.send("honest", bob), "honest")
	a.trusts(b, omemo.TrustedBlindly)
}

// attackDevices announces ever other devices.
func attackDevices(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	for round := range 20 {
		ids := []omemo.DeviceID{a.device}
		for i := range 255 {
			ids = append(ids, omemo.DeviceID(1000*(round+1)+i))
		}
		b.ok(b.m.SetList(t.Context(), alice, v, ids))
	}
	_, devices, err := b.m.Account(t.Context(), alice)
	b.ok(err)
	found := false
	for _, d := range devices {
		found = found || d.Address == a.address() && d.Active
	}
	if len(devices) > 600 || !found {
		t.Errorf("%d devices, ours among them: %t", len(devices), found)
	}
	b.reads(a.send("honest", bob), "honest")
}

// sources parses all files of the module that are part of it.
func sources(t *testing.T, dirs ...string) map[string]*ast.File {
	t.Helper()
	files := make(map[string]*ast.File)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			files[filepath.ToSlash(path)] = file
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 20 {
		t.Fatalf("%d files", len(files))
	}
	return files
}

// attackComparisons looks for comparisons that take a time that tells something.
func attackComparisons(t *testing.T) {
	// Where bytes may be compared: they are public there.
	public := map[string]bool{
		"session.go":              true, // identity keys of a key exchange
		"internal/curve/point.go": true, // encodings of public keys
	}
	for path, file := range sources(t, ".") {
		if strings.HasPrefix(path, "storetest/") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			p, ok := f.X.(*ast.Ident)
			if ok && (p.Name == "bytes" || p.Name == "slices" || p.Name == "reflect") && (f.Sel.Name == "Equal" || f.Sel.Name == "DeepEqual" || f.Sel.Name == "Compare") && !public[path] {
				t.Errorf("%s: %s.%s", path, p.Name, f.Sel.Name)
			}
			return true
		})
	}
	for path, comparison := range map[string]string{"internal/ratchet/keys.go": "hmac.Equal(", "internal/payload/v2.go": "keys.Verify("} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(comparison)) {
			t.Errorf("%s does not compare its MAC in constant time", path)
		}
	}
}

// attackEquivocation checks that what is not promised is said.
func attackEquivocation(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(strings.ReplaceAll(string(b), "//", " ")), " ")
	if !strings.Contains(text, "A sender can give each recipient another text") {
		t.Error("the package documentation does not say that texts may differ between recipients")
	}
}

// attackRandomness checks where random numbers come from.
func attackRandomness(t *testing.T) {
	for path, file := range sources(t, ".", "../stanza", "../bundle", "../devicelist", "../middleware") {
		weak := false
		for _, imported := range file.Imports {
			weak = weak || strings.HasPrefix(imported.Path.Value, `"math/rand`)
		}
		// Pauses between attempts need no secrecy, nor do packages for tests.
		if weak && path != "../middleware/reannounce.go" && path != "sqlstore/database.go" && !strings.HasPrefix(path, "../middleware/internal/lab/") &&
			!strings.HasPrefix(path, "sqlstore/internal/history/") {
			t.Errorf("%s imports math/rand", path)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() {
				continue
			}
			for _, p := range f.Type.Params.List {
				for _, name := range p.Names {
					if name.Name == "rand" || name.Name == "random" || name.Name == "entropy" {
						t.Errorf("%s: %s takes randomness from its caller", path, f.Name.Name)
					}
				}
			}
		}
	}
}
