package omemo_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
)

var updateKit = flag.Bool("update-kit", false, "write testdata/kit anew")

// kitFile is one file of testdata/kit: see README.md there.
type kitFile struct {
	Format    int       `json:"format"`
	Namespace string    `json:"namespace"`
	Receiver  kitKeys   `json:"receiver"`
	Cases     []kitCase `json:"cases"`
}

type kitKeys struct {
	JID      string            `json:"jid"`
	Device   omemo.DeviceID    `json:"device"`
	Seed     string            `json:"identity_seed"`
	SignedID uint32            `json:"signed_pre_key_id"`
	Signed   string            `json:"signed_pre_key"`
	PreKeys  map[uint32]string `json:"pre_keys"`
}

type kitCase struct {
	Name    string      `json:"name"`
	Reason  string      `json:"reason"`
	Stanzas []kitStanza `json:"stanzas"`
}

type kitStanza struct {
	XML     string `json:"xml"`
	Verdict string `json:"verdict"`
	Text    string `json:"text,omitempty"`
}

// The verdicts.
const (
	kitRead      = "read"
	kitEmpty     = "empty"
	kitDuplicate = "duplicate"
	kitRefused   = "refused"
	kitNotForUs  = "not for us"
)

// fixed returns bytes that depend on nothing but a name.
func fixed(name string) [32]byte { return sha256.Sum256([]byte("omellium test kit " + name)) }

// sequence returns a source of keys that is the same in every run.
func sequence(name string) func() [32]byte {
	var n uint64
	return func() [32]byte {
		n++
		return fixed(name + string(binary.BigEndian.AppendUint64(nil, n)))
	}
}

// kitAccount returns a manager with keys that depend on nothing but its address.
func kitAccount(t *testing.T, v omemo.Version, jid string, device omemo.DeviceID) (*omemo.Manager, kitKeys) {
	t.Helper()
	seed := fixed(jid + " identity")
	k := omemo.Keys{
		JID: jid, Device: device, Seed: &seed, Version: v,
		SignedID: 7, Signed: fixed(jid + " signed"), PreKeys: map[uint32][32]byte{},
	}
	out := kitKeys{JID: jid, Device: device, Seed: hex.EncodeToString(seed[:]), SignedID: 7, Signed: hex.EncodeToString(k.Signed[:]), PreKeys: map[uint32]string{}}
	for id := uint32(1); id <= 4; id++ {
		key := fixed(jid + " pre key " + string(rune('0'+id)))
		k.PreKeys[id] = key
		out.PreKeys[id] = hex.EncodeToString(key[:])
	}
	store := memstore.New(jid)
	if err := store.Commit(t.Context(), k.Changes()); err != nil {
		t.Fatal(err)
	}
	m, err := omemo.NewManager(t.Context(), store, omemo.Options{Prefer: func(string) omemo.Version { return omemo.V2 }})
	if err != nil {
		t.Fatal(err)
	}
	return m, out
}

const (
	kitSender   = "romeo@example.net"
	kitReceiver = "juliet@example.net"
)

// kitPen writes messages of one sender to the receiver.
type kitPen struct {
	t *testing.T
	v omemo.Version
	m *omemo.Manager
	b *omemo.Bundle
}

func newPen(t *testing.T, v omemo.Version, name string) *kitPen {
	t.Helper()
	m, _ := kitAccount(t, v, kitSender, 1001)
	m.SetDraw(sequence(name))
	receiver, _ := kitAccount(t, v, kitReceiver, 2002)
	receiver.SetDraw(sequence("bundle"))
	b, err := receiver.Bundle(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	b.PreKeys = b.PreKeys[:1] // the choice would be random
	if err := m.SetList(t.Context(), kitReceiver, v, []omemo.DeviceID{2002}); err != nil {
		t.Fatal(err)
	}
	return &kitPen{t, v, m, b}
}

// seal encrypts a plain text as it stands.
func (p *kitPen) seal(plaintext string) *omemo.Message {
	p.t.Helper()
	form := omemo.Plaintext{V2: []byte(plaintext)}
	if p.v == omemo.Legacy {
		form = omemo.Plaintext{Legacy: []byte(plaintext)}
	}
	sealed, err := p.m.Encrypt(p.t.Context(), form, []string{kitReceiver}, stanzas("kit", kitReceiver), p.b)
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed.Messages[0]
}

// say encrypts a text, in an envelope where there is one.
func (p *kitPen) say(text string) *omemo.Message {
	p.t.Helper()
	if p.v == omemo.V2 {
		text = kitEnvelope("<body xmlns='jabber:client'>"+text+"</body>", "<from jid='"+kitSender+"'/><to jid='"+kitReceiver+"'/>")
	}
	return p.seal(text)
}

func kitEnvelope(content, affixes string) string {
	return "<envelope xmlns='urn:xmpp:sce:1'><content>" + content + "</content><rpad>padding</rpad>" + affixes + "</envelope>"
}

func kitElement(m *omemo.Message) *stanza.Element {
	e := stanza.Encrypted{Namespace: m.Version.Namespace(), Sender: uint32(m.Sender.Device), IV: m.IV, Payload: m.Payload}
	for _, k := range m.Keys {
		e.Keys = append(e.Keys, stanza.Key{JID: k.JID, Device: uint32(k.Device), Exchange: k.Exchange, Data: k.Data})
	}
	return e.Element()
}

func kitXML(children ...*stanza.Element) string {
	e := stanza.NewElement(stanza.NSClient, "message", children...).
		SetAttribute("from", kitSender+"/phone").SetAttribute("to", kitReceiver).SetAttribute("type", "chat").SetAttribute("id", "kit")
	return string(e.AppendXML(nil))
}

// written returns the stanza of a message.
func written(m *omemo.Message) string { return kitXML(kitElement(m)) }

func TestKitIsCurrent(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			_, keys := kitAccount(t, v, kitReceiver, 2002)
			file := kitFile{Format: 1, Namespace: v.Namespace(), Receiver: keys, Cases: kitCases(t, v)}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", " ")
			if err := e.Encode(file); err != nil {
				t.Fatal(err)
			}
			path := kitPath(v)
			if *updateKit {
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			have, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(have, b.Bytes()) {
				t.Errorf("%s is not what the generator makes: go test ./omemo -run TestKit -update-kit", path)
			}
		})
	}
}

func kitPath(v omemo.Version) string {
	name := "omemo2.json"
	if v == omemo.Legacy {
		name = "legacy.json"
	}
	return filepath.Join("testdata", "kit", name)
}

// TestKit reads the files as another implementation would: each case with the
// receiver's keys and nothing else, its stanzas one after the other.
func TestKit(t *testing.T) {
	for _, v := range omemo.Versions() {
		b, err := os.ReadFile(kitPath(v))
		if err != nil {
			t.Fatal(err)
		}
		var file kitFile
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		if len(file.Cases) < 30 {
			t.Errorf("%d cases", len(file.Cases))
		}
		for _, c := range file.Cases {
			t.Run(v.String()+"/"+c.Name, func(t *testing.T) {
				m, _ := kitAccount(t, v, file.Receiver.JID, file.Receiver.Device)
				for i, s := range c.Stanzas {
					if verdict, text := judge(t, m, s.XML); verdict != s.Verdict || text != s.Text {
						t.Errorf("stanza %d: %s %q, want %s %q (%s)", i, verdict, text, s.Verdict, s.Text, c.Reason)
					}
				}
			})
		}
	}
}

// judge has the receiver read a stanza.
func judge(t *testing.T, m *omemo.Manager, raw string) (verdict, text string) {
	t.Helper()
	e, err := stanza.ParseElement([]byte(raw), stanza.DefaultLimits)
	if err != nil {
		return kitRefused, ""
	}
	found, err := stanza.Find(e)
	if err != nil || len(found) == 0 {
		return kitRefused, ""
	}
	for _, element := range found {
		x, err := stanza.ParseEncrypted(element, stanza.OwnKey{JID: kitReceiver, Device: 2002})
		if err != nil {
			return kitRefused, ""
		}
		if len(x.Keys) == 0 {
			continue
		}
		message := &omemo.Message{Version: omemo.Legacy, Sender: omemo.Address{JID: kitSender, Device: omemo.DeviceID(x.Sender)}, IV: x.IV, Payload: x.Payload}
		if x.Namespace == stanza.NSV2 {
			message.Version = omemo.V2
		}
		for _, k := range x.Keys {
			message.Keys = append(message.Keys, omemo.Key{Exchange: k.Exchange, Data: k.Data})
		}
		o, err := m.Decrypt(t.Context(), message, func(o *omemo.Opened) (omemo.Delivery, error) {
			text = string(o.Plaintext)
			if o.Version == omemo.Legacy {
				if !stanza.ValidText(text) {
					return omemo.Delivery{}, stanza.ErrMarkup
				}
				return omemo.Delivery{}, nil
			}
			envelope, err := stanza.ParseEnvelope(o.Plaintext)
			if err == nil {
				err = envelope.Verify(stanza.Expect{From: kitSender, To: kitReceiver, Time: time.Now()})
			}
			if err == nil {
				text, _ = envelope.Body()
			}
			return omemo.Delivery{}, err
		})
		switch {
		case errors.Is(err, omemo.ErrDuplicate):
			return kitDuplicate, ""
		case err != nil:
			return kitRefused, ""
		case o.Plaintext == nil:
			return kitEmpty, ""
		}
		return kitRead, text
	}
	return kitNotForUs, ""
}
