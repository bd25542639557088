package omemo_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
)

// replay runs a recorded conversation between managers. A party without private
// keys takes no part: its messages are taken from the recording.
type replay struct {
	*testing.T
	r       *recording
	v       omemo.Version
	parties map[string]*replayed
	sent    map[string]*recordedStep
}

type replayed struct {
	*recordedParty
	m       *omemo.Manager // nil: no private keys
	store   *tap
	address omemo.Address
	bundles []*omemo.Bundle // every one it has published
	// ratchets holds the key that the next sending chain of a session begins
	// with: python draws it when it receives, we draw it when we send.
	ratchets map[uint64][32]byte
}

func newReplay(t *testing.T, r *recording) *replay {
	p := &replay{T: t, r: r, v: versionOf(t, r.Namespace), parties: make(map[string]*replayed), sent: make(map[string]*recordedStep)}
	if len(r.Parties) != 2 {
		t.Fatalf("%d parties", len(r.Parties))
	}
	for name, recorded := range r.Parties {
		p.parties[name] = p.party(recorded)
	}
	for _, own := range p.parties {
		if own.m == nil {
			continue
		}
		other := p.other(own)
		if err := own.m.SetList(t.Context(), other.JID, p.v, []omemo.DeviceID{other.address.Device}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *replay) party(recorded *recordedParty) *replayed {
	party := &replayed{
		recordedParty: recorded,
		address:       omemo.Address{JID: recorded.JID, Device: omemo.DeviceID(recorded.DeviceID)},
		ratchets:      make(map[uint64][32]byte),
	}
	party.published(p, recorded.BundleXML)
	keys := omemo.Keys{JID: recorded.JID, Device: party.address.Device, Version: p.v, PreKeys: make(map[uint32][32]byte)}
	switch id := recorded.Identity; {
	case len(id.Seed) == 32:
		keys.Seed = (*[32]byte)(id.Seed)
	case len(id.Priv) == 32:
		keys.Scalar = (*[32]byte)(id.Priv)
	default:
		return party
	}
	for _, k := range recorded.SignedPreKeys {
		if k.Current {
			keys.SignedID, keys.Signed = k.ID, k.Priv.key()
		}
	}
	for _, k := range recorded.PreKeys {
		keys.PreKeys[k.ID] = k.Priv.key()
	}
	party.store = newTap(memstore.New(recorded.JID))
	if err := party.store.Commit(p.Context(), keys.Changes()); err != nil {
		p.Fatal(err)
	}
	var err error
	if party.m, err = omemo.NewManager(p.Context(), party.store, omemo.Options{}); err != nil {
		p.Fatal(err)
	}
	return party
}

// published remembers a bundle, and that it passes our checks.
func (own *replayed) published(p *replay, text string) {
	if text == "" {
		return
	}
	b, err := parseBundle(text, own.address)
	if err != nil {
		p.Fatalf("bundle of %v: %v", own.address, err)
	}
	own.bundles = append(own.bundles, b)
}

func (p *replay) other(own *replayed) *replayed {
	for _, party := range p.parties {
		if party != own {
			return party
		}
	}
	return nil
}

func (p *replay) conversation() {
	for i := range p.r.Steps {
		step := &p.r.Steps[i]
		switch step.Op {
		case "encrypt":
			p.sent[step.Msg] = step
			p.encrypt(step)
		case "decrypt":
			p.decrypt(step)
		case "rotate_signed_pre_key":
			p.rotate(step)
		case "note":
		default:
			p.Fatalf("step %d: unknown operation %q", step.I, step.Op)
		}
		if p.Failed() {
			p.Fatalf("step %d failed", step.I)
		}
	}
}

func (p *replay) rotate(step *recordedStep) {
	own := p.parties[step.By]
	own.published(p, step.BundleXML)
	if own.m == nil {
		return
	}
	for _, k := range step.SignedPreKeys {
		if !k.Current {
			continue
		}
		id, err := own.m.RotateTo(p.Context(), p.v, k.Priv.key())
		if err != nil || id != k.ID {
			p.Fatalf("step %d: rotated to id %d, %v, want %d", step.I, id, err, k.ID)
		}
	}
}

// material returns what the key element of a message carries.
func (s *recordedStep) material() []byte {
	if s.Material != nil {
		return s.Material
	}
	return append(bytes.Clone(s.ContentKey), s.ContentTag...)
}

// encrypt reproduces a message byte for byte.
func (p *replay) encrypt(step *recordedStep) {
	own := p.parties[step.By]
	if own.m == nil {
		return
	}
	ctx, peer := p.Context(), omemo.Peer{Version: p.v, Address: p.other(own).address}
	var chosen *omemo.Bundle
	if step.NewSession {
		chosen = p.chosen(step)
		list, err := own.m.Sessions(ctx, peer)
		if err != nil {
			p.Fatal(err)
		}
		if len(list) > 0 { // by hand
			if err := own.m.Start(ctx, chosen, step.RNG.Ephemeral.key(), step.RNG.Ratchets[0].key()); err != nil {
				p.Fatalf("step %d: %v", step.I, err)
			}
			chosen = nil
		}
	}
	if chosen != nil && step.Kind == "payload" {
		p.send(step, own, chosen)
		return
	}
	if chosen != nil {
		if err := own.m.Start(ctx, chosen, step.RNG.Ephemeral.key(), step.RNG.Ratchets[0].key()); err != nil {
			p.Fatalf("step %d: %v", step.I, err)
		}
	}
	index, fresh, exact := p.place(step, own, peer)
	if index == 0 && exact && step.Kind == "payload" {
		p.send(step, own, nil)
		return
	}
	key, err := own.m.SealIn(ctx, peer, index, step.material(), fresh, false)
	if !exact {
		key = key.Bare(p.v)
	}
	if err != nil || !bytes.Equal(key.Data, step.KeyBytes) || key.Exchange != step.Kex {
		p.Fatalf("step %d: key element %x, exchange %t, %v", step.I, key.Data, key.Exchange, err)
	}
	p.compare(step, own, index)
}

// chosen returns the bundle that a new session of the recording was built with,
// left with the pre key that was chosen.
func (p *replay) chosen(step *recordedStep) *omemo.Bundle {
	for _, b := range p.other(p.parties[step.By]).bundles {
		for _, k := range b.PreKeys {
			if b.SignedPreKeyID == step.SignedID && k.ID == step.PreKeyID {
				one := *b
				one.PreKeys = []omemo.PublicPreKey{k}
				return &one
			}
		}
	}
	p.Fatalf("step %d: no bundle with signed pre key %d and pre key %d", step.I, step.SignedID, step.PreKeyID)
	return nil
}

// place returns which of the sessions that are held reproduces a message: the
// current one, or an archived one where python holds only that one. Messages
// that the recording leaves out are sealed first. Not exact: the recording has
// left the key exchange away.
func (p *replay) place(step *recordedStep, own *replayed, peer omemo.Peer) (index int, fresh [32]byte, exact bool) {
	list, err := own.m.Sessions(p.Context(), peer)
	if err != nil {
		p.Fatal(err)
	}
	for index, s := range list {
		fresh := own.ratchets[s.ID()]
		for n := s.SendingChain(); n > 0 && n < int(step.N); n++ {
			if index > 0 {
				break
			}
			if _, err := own.m.SealIn(p.Context(), peer, index, step.material(), fresh, false); err != nil {
				p.Fatal(err)
			}
		}
		key, err := own.m.SealIn(p.Context(), peer, index, step.material(), fresh, true)
		if err != nil {
			continue
		}
		if bytes.Equal(key.Data, step.KeyBytes) {
			return index, fresh, true
		}
		if !step.Kex && bytes.Equal(key.Bare(p.v).Data, step.KeyBytes) {
			return index, fresh, false
		}
	}
	p.Fatalf("step %d: none of %d sessions reproduces the key element", step.I, len(list))
	return 0, fresh, false
}

// send reproduces a whole message through Manager.Encrypt.
func (p *replay) send(step *recordedStep, own *replayed, chosen *omemo.Bundle) {
	ctx, other := p.Context(), p.other(own)
	peer := omemo.Peer{Version: p.v, Address: other.address}
	var draws [][32]byte
	var bundles []*omemo.Bundle
	if chosen != nil {
		bundles = append(bundles, chosen)
		pick, id := [32]byte{1}, [32]byte{byte(step.I), 2}
		draws = append(draws, pick, id, step.RNG.Ephemeral.key(), step.RNG.Ratchets[0].key())
	}
	draws = append(draws, step.ContentKey.key())
	if p.v == omemo.Legacy {
		draws = append(draws, step.IV.key())
	}
	if list, _ := own.m.Sessions(ctx, peer); chosen == nil && !list[0].State().CanSend {
		draws = append(draws, own.ratchets[list[0].ID()])
	}
	own.m.SetDraw(func() [32]byte {
		next := draws[0]
		draws = draws[1:]
		return next
	})
	defer own.m.SetDraw(nil)
	text := omemo.Plaintext{Legacy: *step.Plaintext}
	if p.v == omemo.V2 {
		text = omemo.Plaintext{V2: *step.Plaintext}
	}
	sealed, err := own.m.Encrypt(ctx, text, []string{other.JID}, stanzas(step.Msg, other.JID), bundles...)
	if err != nil {
		p.Fatalf("step %d: %v", step.I, err)
	}
	message := sealed.Messages[0]
	if len(draws) != 0 || len(sealed.Messages) != 1 || len(message.Keys) != 1 {
		p.Fatalf("step %d: %d draws left, %d messages", step.I, len(draws), len(sealed.Messages))
	}
	if key := message.Keys[0]; !bytes.Equal(key.Data, step.KeyBytes) || key.Exchange != step.Kex || key.Address != other.address {
		p.Errorf("step %d: key element\n%x, want\n%x", step.I, key.Data, step.KeyBytes)
	}
	if !bytes.Equal(message.Payload, step.Payload) || !bytes.Equal(message.IV, step.IV) || message.Sender != own.address {
		p.Errorf("step %d: payload or IV differs", step.I)
	}
	// The XML is the same up to what XML leaves open.
	e, err := parseXML(step.XML)
	if err != nil {
		p.Fatal(err)
	}
	recorded, err := stanza.ParseEncrypted(e, stanza.OwnKey{JID: other.JID, Device: uint32(other.address.Device)})
	if err != nil || len(recorded.Keys) != 1 || !bytes.Equal(recorded.Keys[0].Data, message.Keys[0].Data) {
		p.Errorf("step %d: recorded XML: %v", step.I, err)
	}
	p.compare(step, own, 0)
}

// message reads a recorded message as its receiver finds it.
func (p *replay) message(from *replayed, to *replayed, text string, sent *recordedStep) (*omemo.Message, error) {
	message := &omemo.Message{Version: p.v, Sender: from.address}
	if text == "" { // key material only
		message.Keys = []omemo.Key{{Address: to.address, Exchange: sent.Kex, Data: sent.KeyBytes}}
		return message, nil
	}
	e, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	encrypted, err := stanza.ParseEncrypted(e, stanza.OwnKey{JID: to.JID, Device: uint32(to.address.Device)})
	if err != nil {
		return nil, err
	}
	message.Sender.Device = omemo.DeviceID(encrypted.Sender)
	message.IV, message.Payload = encrypted.IV, encrypted.Payload
	for _, k := range encrypted.Keys {
		message.Keys = append(message.Keys, omemo.Key{Address: to.address, Exchange: k.Exchange, Data: k.Data})
	}
	return message, nil
}

func (p *replay) decrypt(step *recordedStep) {
	own, sent := p.parties[step.By], p.sent[step.Msg]
	if own.m == nil {
		return
	}
	from, ctx := p.other(own), p.Context()
	text := step.XML
	if text == "" {
		text = sent.XML
	}
	before := own.store.dump()
	message, err := p.message(from, own, text, sent)
	var o *omemo.Opened
	var material []byte
	if err == nil {
		material, _ = own.m.Material(ctx, message)
		o, err = own.m.Decrypt(ctx, message, accept)
	}
	switch {
	case err != nil && step.Expect == "ok":
		p.Fatalf("step %d: %v", step.I, err)
	case err == nil && step.Expect != "ok" && !step.mayDecrypt():
		p.Fatalf("step %d: decrypted, although: %s", step.I, step.Reason)
	case err != nil:
		if after := own.store.dump(); before != after {
			p.Fatalf("step %d: a refused message changed the store:\n%s\n---\n%s", step.I, before, after)
		}
		if strings.HasPrefix(step.Reason, "replay") && !errors.Is(err, omemo.ErrDuplicate) {
			p.Errorf("step %d: a replay gives %v", step.I, err)
		}
		return
	}
	if sent.Plaintext == nil && o.Plaintext != nil || sent.Plaintext != nil && !bytes.Equal(o.Plaintext, *sent.Plaintext) {
		p.Errorf("step %d: text %q", step.I, o.Plaintext)
	}
	if want := step.Material; want != nil && !bytes.Equal(material, want) {
		p.Errorf("step %d: key material %x, want %x", step.I, material, want)
	}
	if step.Expect != "ok" {
		return
	}
	if step.RNG != nil && len(step.RNG.Ratchets) > 0 {
		own.ratchets[o.Session.ID()] = step.RNG.Ratchets[len(step.RNG.Ratchets)-1].key()
	}
	if built := step.SessionBuilt; built != nil && *built != hasEvent(o.Events, omemo.SessionBuilt, omemo.SessionReplaced) {
		p.Errorf("step %d: session built: want %t, events %v", step.I, *built, o.Events)
	}
	if id := step.PreKeyDeleted; id != nil {
		if rows, err := own.store.PreKeys(ctx, p.v, *id); err != nil || len(rows) != 0 {
			p.Errorf("step %d: pre key %d is still there, %v", step.I, *id, err)
		}
	}
	if o.Fingerprint != omemo.Fingerprint(from.Identity.Curve.key()) {
		p.Errorf("step %d: fingerprint %v", step.I, o.Fingerprint)
	}
	p.compareSession(step, own, o.Session)
}

func hasEvent(events []omemo.Event, kinds ...omemo.EventKind) bool {
	for _, e := range events {
		for _, k := range kinds {
			if e.Kind == k {
				return true
			}
		}
	}
	return false
}

// variants decrypts forms of messages that differ from what we write.
func (p *replay) variants(verdicts map[string]verdict) {
	bobs, alices := p.parties["bob"], p.parties["alice"]
	var fresh [32]byte // the newest ratchet key that bob has generated
	for _, item := range p.r.Items {
		if item.ReplyXML != "" {
			peer := omemo.Peer{Version: p.v, Address: alices.address}
			if _, err := bobs.m.SealIn(p.Context(), peer, 0, make([]byte, 32), fresh, false); err != nil {
				p.Fatalf("%s: %v", item.Name, err)
			}
			continue
		}
		if keys := item.RNG.Ratchets; len(keys) > 0 {
			fresh = keys[len(keys)-1].key()
		}
		want := item.Python == true
		if v, ok := verdicts[item.Name]; ok {
			want = v.Accept
		}
		before := bobs.store.dump()
		message, err := p.message(alices, bobs, item.XML, nil)
		var o *omemo.Opened
		if err == nil {
			o, err = bobs.m.Decrypt(p.Context(), message, accept)
		}
		if (err == nil) != want {
			p.Errorf("%s: %v, want accepted %t", item.Name, err, want)
			continue
		}
		if err != nil {
			if after := bobs.store.dump(); before != after {
				p.Errorf("%s: a refused message changed the store", item.Name)
			}
			continue
		}
		if item.Plaintext == nil && o.Plaintext != nil || item.Plaintext != nil && !bytes.Equal(o.Plaintext, *item.Plaintext) {
			p.Errorf("%s: text %q", item.Name, o.Plaintext)
		}
	}
}
