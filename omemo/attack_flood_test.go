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
)

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
