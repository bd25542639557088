package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// badInputs is how many changed forms of each wire object are read.
const badInputs = 3000

// mutation is a change of bytes that is the same in every run.
func mutation(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) < 2 {
			return b
		}
		at, to := r.IntN(len(b)), r.IntN(len(b))
		if at > to {
			at, to = to, at
		}
		switch r.IntN(7) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b = b[:to]
		case 2:
			b = slices.Delete(b, at, min(to, at+20))
		case 3:
			b = slices.Insert(b, at, b[at:min(to, at+40)]...)
		case 4:
			b[at] = byte(r.UintN(256))
		case 5:
			b = slices.Insert(b, at, []byte([]string{"<", ">", "&", "'", "\"", "\x00", "\xff", "/>", "xmlns=''", "-1", "0"}[r.IntN(11)])...)
		default:
			b[at], b[to] = b[to], b[at]
		}
	}
	return b
}

var errVerify = errors.New("not committed")

// TestBadInputs reads changed forms of every object of the wire: nothing panics,
// and nothing changes the state of an account.
func TestBadInputs(t *testing.T) {
	total := 0
	for _, v := range omemo.Versions() {
		s := newStage(t, v)
		evil := newDevice(t, mallory)
		message := func(d *device) []byte {
			return element(d.seal(s, v, omemo.Plaintext{Legacy: []byte("x"), V2: []byte("x")}, juliet)).AppendXML(nil)
		}
		decrypt := func(sender omemo.Address, honest []byte) func([]byte) {
			own := stanza.OwnKey{JID: juliet, Device: uint32(s.victim.Device)}
			parsed, err := stanza.ParseElement(honest, stanza.DefaultLimits)
			ok(t, err)
			genuine, err := stanza.ParseEncrypted(parsed, own)
			ok(t, err)
			return func(b []byte) {
				e, err := stanza.ParseElement(b, stanza.DefaultLimits)
				if err != nil {
					return
				}
				x, err := stanza.ParseEncrypted(e, own)
				if err != nil || len(x.Keys) == 0 || x.Payload == nil && bytes.Equal(x.Keys[0].Data, genuine.Keys[0].Data) {
					return // without its payload, the message is an honest empty one
				}
				m := &omemo.Message{Version: v, Sender: omemo.Address{JID: sender.JID, Device: omemo.DeviceID(x.Sender)}, IV: x.IV, Payload: x.Payload}
				for _, k := range x.Keys {
					m.Keys = append(m.Keys, omemo.Key{Exchange: k.Exchange, Data: k.Data})
				}
				// A message that says the same as the honest one is not committed here.
				_, _ = s.om.Manager().Decrypt(context.Background(), m, func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, errVerify })
			}
		}
		event, err := stanza.ParseElement([]byte(listEvent(romeo, devicelist.Node(v), "current", list(v, 1, 2, 3))), stanza.DefaultLimits)
		ok(t, err)
		session, exchange := message(s.romeo), message(evil)
		objects := []struct {
			name string
			b    []byte
			read func([]byte)
		}{
			{"message in a session", session, decrypt(s.romeo.Address, session)},
			{"key exchange", exchange, decrypt(evil.Address, exchange)},
			{"device list", []byte(list(v, 1, 22, 333)), func(b []byte) {
				if e, err := stanza.ParseElement(b, stanza.DefaultLimits); err == nil {
					_, _ = devicelist.Parse(e)
				}
			}},
			{"bundle", bundleXML(s.romeo.bundle(v)), func(b []byte) {
				if e, err := stanza.ParseElement(b, stanza.DefaultLimits); err == nil {
					if parsed, err := bundle.Parse(e, s.romeo.Address); err == nil && parsed.Verify() == nil {
						_, _ = parsed.Fingerprint()
					}
				}
			}},
			{"event", event.AppendXML(nil), func(b []byte) {
				if e, err := stanza.ParseElement(b, stanza.DefaultLimits); err == nil {
					_, _ = devicelist.ParseEvent(e)
				}
			}},
			{"envelope", envelope(t, romeo, juliet, "text"), func(b []byte) {
				if e, err := stanza.ParseEnvelope(b); err == nil {
					_ = e.Verify(stanza.Expect{From: romeo, To: juliet, Time: time.Now(), Window: time.Hour})
				}
			}},
		}
		for _, o := range objects {
			t.Run(fmt.Sprintf("%v, %s", v, o.name), func(t *testing.T) {
				r := rand.New(rand.NewPCG(30_000, uint64(len(o.name))))
				before := s.store.dump()
				for range badInputs {
					o.read(mutation(r, o.b))
				}
				if after := s.store.dump(); after != before {
					t.Errorf("the store has changed:\n%s", difference(before, after))
				}
				total += badInputs
			})
		}
		s.honest(s.romeo)
	}
	if total < 30_000 {
		t.Errorf("%d inputs", total)
	}
}

// TestWork sends the largest stanzas that are read at all, of many shapes. None
// has anything asked of the network, none may allocate more than it should.
func TestWork(t *testing.T) {
	for _, v := range omemo.Versions() {
		s := newStage(t, v)
		for name, raw := range largest(s, v) {
			s.in(t, v.String()+", "+name, func() {
				s.srv.ForgetWire()
				_, delivered := s.suffers(raw)
				for _, e := range delivered {
					if e.Child(middleware.NSInfo, "info") != nil {
						s.t.Errorf("delivered: %.200s", e.AppendXML(nil))
					}
				}
				s.quietAbout("<iq")
			})
		}
		s.honest(s.romeo)
	}
}

// largest returns stanzas of almost 512 KiB.
func largest(s *stage, v omemo.Version) map[string]string {
	const size = 500 << 10
	ns, sid, rid := v.Namespace(), fmt.Sprint(s.romeo.Device), fmt.Sprint(s.victim.Device)
	group := func(keys string) string {
		if v == omemo.V2 {
			return "<keys jid='" + juliet + "'>" + keys + "</keys>"
		}
		return keys
	}
	encrypted := func(keys, payload string) string {
		return "<encrypted xmlns='" + ns + "'><header sid='" + sid + "'>" + keys + "<iv>AAAAAAAAAAAAAAAA</iv></header>" + payload + "</encrypted>"
	}
	raw := func(inner string) string {
		return "<message xmlns='jabber:client' from='" + romeo + "/phone' to='" + juliet + "' type='chat' id='" + s.id("large") + "'>" + inner + "</message>"
	}
	key := "<key rid='" + rid + "'>" + strings.Repeat("MwohBQ", 10) + "</key>"
	other := "<key rid='1'>" + strings.Repeat("A", 40) + "</key>"
	return map[string]string{
		"payload for us":     raw(encrypted(group(key), "<payload>"+strings.Repeat("A", size)+"</payload>")),
		"payload for others": raw(encrypted(group(other), "<payload>"+strings.Repeat("A", size)+"</payload>")),
		"keys of others":     raw(encrypted(group(strings.Repeat(other, 7000)), "<payload>AAAA</payload>")),
		"our key among them": raw(encrypted(group(strings.Repeat(other, 7000)+key), "<payload>AAAA</payload>")),
		"a large key":        raw(encrypted(group("<key rid='"+rid+"'>"+strings.Repeat("A", size)+"</key>"), "")),
		"white space":        raw(encrypted(group("<key rid='"+rid+"'>"+strings.Repeat(" ", size)+"</key>"), "")),
		"a body":             raw("<body>" + strings.Repeat("x", size) + "</body>"),
		"small elements":     raw("<x>" + strings.Repeat("<a/>", 19_900) + "</x>"),
		"a list":             listEvent(romeo, devicelist.Node(v), "current", bigList(v, 15_000)),
		"attributes":         raw(strings.Repeat("<x"+manyAttributes(60)+"/>", 600)),
		"a carbon":           carbon(juliet, "received", raw(encrypted(group(key), "<payload>"+strings.Repeat("A", size)+"</payload>"))),
	}
}
