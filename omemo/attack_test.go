package omemo_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
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
)

// TestAttack holds those rows of the catalogue of attacks that are about
// sessions and keys alone, by their ids. The others, and the list of all, are in
// middleware/internal/attack.
func TestAttack(t *testing.T) {
	for _, row := range []struct {
		name string
		run  func(t *testing.T, v omemo.Version)
	}{
		{"C9_jumps_with_a_right_MAC", attackJumps},
		{"C11_key_material", attackMaterial},
		{"C12_lengths", attackLengths},
		{"C13_padding", attackPadding},
		{"C19_fresh_keys", attackFresh},
		{"E3_agreements", attackAgreements},
		{"E4_heartbeats", attackHeartbeats},
		{"E7_strangers", attackStrangers},
		{"B12_shared_identity", attackShared},
		{"B2_devices_remembered", attackDevices},
	} {
		t.Run(row.name, func(t *testing.T) { versions(t, row.run) })
	}
	t.Run("C10_constant_time", attackComparisons)
	t.Run("C17_equivocation_is_documented", attackEquivocation)
	t.Run("C18_randomness", attackRandomness)
}

// talked returns two devices with confirmed sessions in one version.
func talked(t *testing.T, v omemo.Version) (a, b *party) {
	t.Helper()
	a, b = pair(t, v)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	b.reads(a.send("three", bob), "three")
	a.settle()
	return a, b
}

// with returns a message of a whose key material and payload are given, sealed
// in the session with b as a does.
func (p *party) with(b *party, v omemo.Version, material, iv, payload []byte) *omemo.Message {
	p.Helper()
	k, err := p.m.SealIn(p.ctx, b.peer(v), 0, material, [32]byte{7}, false)
	p.ok(err)
	return &omemo.Message{Version: v, Sender: p.address(), Keys: []omemo.Key{k}, IV: iv, Payload: payload}
}

func attackJumps(t *testing.T, v omemo.Version) {
	for _, gap := range []int{0, 1, 998, 999, 1000, 1001, 1002} {
		t.Run(fmt.Sprint(gap, " missing"), func(t *testing.T) {
			a, b := talked(t, v)
			for range gap {
				a.with(b, v, make([]byte, 32), nil, nil)
			}
			sealed := a.send("after the gap", bob)
			if gap > 1000 {
				began := time.Now()
				b.refuses(b.find(sealed), omemo.ErrRefused)
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %v", took)
				}
				return
			}
			b.reads(sealed, "after the gap")
			a.reads(b.send("answer", alice), "answer")
			b.reads(a.send("next chain", bob), "next chain")
		})
	}
}

// legacyPayload encrypts with given key and IV of 12 bytes, and returns
// ciphertext and tag.
func legacyPayload(t *testing.T, key, iv []byte, text string) (ciphertext, tag []byte) {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	sealed := gcm.Seal(nil, iv, []byte(text), nil)
	return sealed[:len(text)], sealed[len(text):]
}

// v2Payload encrypts padded plain text, and returns ciphertext and the whole MAC.
func v2Payload(t *testing.T, key, padded []byte) (ciphertext, mac []byte) {
	t.Helper()
	b, err := hkdf.Key(sha256.New, key, make([]byte, 32), "OMEMO Payload", 80)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(b[:32])
	if err != nil {
		t.Fatal(err)
	}
	ciphertext = make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, b[64:]).CryptBlocks(ciphertext, padded)
	h := hmac.New(sha256.New, b[32:64])
	h.Write(ciphertext)
	return ciphertext, h.Sum(nil)
}

// attackMaterial tries the old key form of legacy, in which every recipient can
// write the text anew, and forms between.
func attackMaterial(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key, iv := bytes.Repeat([]byte{3}, 16), make([]byte, 12)
	text, tag := legacyPayload(t, key, iv, "canary")
	forms := map[string]*omemo.Message{
		"16 bytes, tag in the payload": a.with(b, v, key, iv, append(bytes.Clone(text), tag...)),
		"16 bytes, no tag":             a.with(b, v, key, iv, text),
		"31 bytes":                     a.with(b, v, append(bytes.Clone(key), tag[:15]...), iv, text),
		"33 bytes":                     a.with(b, v, append(append(bytes.Clone(key), tag...), 0), iv, text),
		"48 bytes":                     a.with(b, v, append(append(bytes.Clone(key), tag...), tag...), iv, text),
		"tag twice":                    a.with(b, v, append(bytes.Clone(key), tag...), iv, append(bytes.Clone(text), tag...)),
		"nothing":                      a.with(b, v, nil, iv, text),
	}
	for name, message := range forms {
		t.Run(name, func(t *testing.T) { b.refuses(message, omemo.ErrRefused) })
	}
	b.reads(a.send("honest", bob), "honest")
}

func attackLengths(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key, iv := bytes.Repeat([]byte{3}, 32), make([]byte, 12)
	payload := make([]byte, 16)
	right := 48
	full := make([]byte, 128)
	if v == omemo.Legacy {
		ciphertext, tag := legacyPayload(t, key[:16], iv, "canary")
		payload, right = ciphertext, 32
		copy(full, key[:16])
		copy(full[16:], tag)
	} else {
		padded := append([]byte("canary"), bytes.Repeat([]byte{10}, 10)...)
		ciphertext, mac := v2Payload(t, key, padded)
		payload = ciphertext
		copy(full, key)
		copy(full[32:], mac) // the whole MAC: no more of it than 16 bytes is taken
		iv = nil
	}
	for n := range 65 {
		t.Run(fmt.Sprint("material of ", n), func(t *testing.T) {
			message := a.with(b, v, full[:n], iv, payload)
			if n != right {
				b.refuses(message, omemo.ErrRefused)
				return
			}
			o, err := b.receive(message)
			b.ok(err)
			if string(o.Plaintext) != "canary" {
				t.Errorf("%q", o.Plaintext)
			}
		})
	}
	if v == omemo.V2 {
		b.reads(a.send("honest", bob), "honest")
		return
	}
	for n := range 65 {
		t.Run(fmt.Sprint("IV of ", n), func(t *testing.T) {
			long := bytes.Repeat([]byte{9}, n)
			ciphertext, tag := payload, full[16:32]
			if n > 0 {
				ciphertext, tag = legacyPayload(t, key[:16], long, "canary")
			}
			message := a.with(b, v, append(bytes.Clone(key[:16]), tag...), long, ciphertext)
			if n != 12 && n != 16 {
				b.refuses(message, omemo.ErrRefused)
				return
			}
			_, err := b.receive(message)
			b.ok(err)
		})
	}
	b.reads(a.send("honest", bob), "honest")
}

// attackPadding compares what is said about a wrong MAC with what is said about
// wrong padding.
func attackPadding(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key := bytes.Repeat([]byte{3}, 32)
	said := make(map[string]bool)
	try := func(material, payload []byte) {
		t.Helper()
		var iv []byte
		if v == omemo.Legacy {
			iv, material = make([]byte, 12), material[:32]
		}
		message := a.with(b, v, material, iv, payload)
		before := b.store.dump()
		_, err := b.receive(message)
		if !errors.Is(err, omemo.ErrRefused) || b.store.dump() != before {
			t.Fatalf("error %v", err)
		}
		said[err.Error()] = true
	}
	for last := range 256 {
		if last == 1 {
			continue // that is padding
		}
		padded := append(bytes.Repeat([]byte{0}, 15), byte(last))
		ciphertext, mac := v2Payload(t, key, padded)
		try(append(bytes.Clone(key), mac[:16]...), ciphertext) // the MAC holds
	}
	good, mac := v2Payload(t, key, bytes.Repeat([]byte{16}, 16))
	mac[0] ^= 1
	try(append(bytes.Clone(key), mac[:16]...), good)                // the padding holds
	try(append(bytes.Clone(key), mac[:16]...), good[:15])           // not a block
	try(append(bytes.Clone(key), make([]byte, 16)...), []byte{})    // nothing
	try(append(bytes.Clone(key), make([]byte, 16)...), good[:0:16]) // nothing, with room behind it
	if len(said) != 1 {
		t.Errorf("%d different errors: %v", len(said), said)
	}
	b.reads(a.send("honest", bob), "honest")
}

// attackFresh sends one text many times and watches keys, IVs and bytes.
func attackFresh(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	used := make(map[string]bool)
	for range 100 {
		sealed := a.send("the same text", bob)
		m := b.find(sealed)
		material, err := b.m.Material(t.Context(), m)
		b.ok(err)
		for _, once := range [][]byte{material[:16], m.IV, m.Payload} {
			if once != nil && used[string(once)] {
				t.Fatalf("%x was used before", once)
			}
			used[string(once)] = true
		}
		b.reads(sealed, "the same text")
	}
	// What is sent again is what was sent.
	rows, err := a.m.Outbox(t.Context(), 0, 1000)
	a.ok(err)
	a.restart()
	again, err := a.m.Outbox(t.Context(), 0, 1000)
	a.ok(err)
	if len(rows) == 0 || fmt.Sprint(rows) != fmt.Sprint(again) {
		t.Error("the outbox has changed")
	}
}

// attackAgreements counts the key agreements that one message can cause: with
// all sessions that can be held, and all keys that are tried.
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
			before := curve.Agreements()
			b.refuses(test.message, omemo.ErrRefused)
			if n := curve.Agreements() - before; n > test.most {
				t.Errorf("%d agreements, at most %d", n, test.most)
			}
		})
	}
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

// attackHeartbeats lets two devices that answer everything talk for long.
func attackHeartbeats(t *testing.T, v omemo.Version) {
	steps := 10_000
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
		arrive := func(i int) error {
			sealed, err := evil.m.Replace(t.Context(), b.bundle(v), stanzas("x", bob))
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
	for _, path := range []string{"internal/ratchet/keys.go", "internal/payload/v2.go"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte("hmac.Equal(")) {
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
		// Pauses between attempts need no secrecy.
		if weak && path != "../middleware/advert.go" && path != "sqlstore/database.go" && !strings.HasPrefix(path, "../middleware/internal/lab/") {
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
