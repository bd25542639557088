package attack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// badInputs is how many changed forms of each wire object are read that are XML.
const badInputs = 2500

// depth counts how far the changed forms of an object got.
type depth struct {
	tried    int // of these, many are no XML
	harmless int // they say what the genuine one says, or something else that is well formed
	bad      int // XML, and nothing that may change anything
	read     int // of the bad: past the parser of their own form as well
}

// TestBadInputs reads changed forms of every object of the wire where it would be
// read: messages and pages of an archive, bundles by a manager that takes whatever
// it can open; lists, events and envelopes by a middleware, from its stream.
// Nothing panics, and nothing changes the state of an account but what says the
// same as the genuine object.
func TestBadInputs(t *testing.T) {
	total := 0
	for _, v := range omemo.Versions() {
		idle, online := unconnected(t, v), newStage(t, v) // nothing but the test writes to the store of the first
		victim := &device{t: t, account: juliet, m: idle.om.Manager(), Address: idle.victim}
		// The message after the answer is no key exchange any more.
		open := func(m *omemo.Message, by *device) {
			_, err := by.m.Decrypt(t.Context(), m, taken)
			ok(t, err)
		}
		open(idle.romeo.plain(idle, v, "hello"), victim)
		open(victim.plain(&stage{victim: idle.romeo.Address}, v, "answer"), idle.romeo)
		evil := newDevice(t, mallory)
		pool := idle.bundle(v)
		keys := pool.PreKeys
		exchange := func() *omemo.Message {
			if len(keys) == 0 {
				pool = idle.bundle(v)
				keys = pool.PreKeys
			}
			pool.PreKeys, keys = keys[:1], keys[1:]
			ok(t, evil.m.ForgetSessions(t.Context(), omemo.Peer{Version: v, Address: idle.victim}))
			return evil.plain(idle, v, "text", pool)
		}
		session := func() *omemo.Message { return idle.romeo.plain(idle, v, "text") }
		objects := []struct {
			name string
			read func(t *testing.T, r *rand.Rand) depth
		}{
			{"message in a session", func(t *testing.T, r *rand.Rand) depth { return badMessages(t, r, idle, 1, session) }},
			{"key exchange", func(t *testing.T, r *rand.Rand) depth { return badMessages(t, r, idle, 1, exchange) }},
			{"archive page", func(t *testing.T, r *rand.Rand) depth { return badMessages(t, r, idle, 10, session) }},
			{"bundle", func(t *testing.T, r *rand.Rand) depth { return badBundles(t, r, idle) }},
			{"device list", func(t *testing.T, r *rand.Rand) depth { return badEvents(t, r, online, true) }},
			{"event", func(t *testing.T, r *rand.Rand) depth { return badEvents(t, r, online, false) }},
			{"envelope", func(t *testing.T, r *rand.Rand) depth { return badEnvelopes(t, r, online) }},
		}
		if v == omemo.Legacy {
			objects = objects[:6] // it has no envelope
		}
		for _, o := range objects {
			t.Run(fmt.Sprintf("%v, %s", v, o.name), func(t *testing.T) {
				d := o.read(t, rand.New(rand.NewPCG(30_000, uint64(len(o.name)))))
				t.Logf("%d tried, %d harmless; %d bad that are XML, of these %d read by their own parser", d.tried, d.harmless, d.bad, d.read)
				total += d.bad
			})
		}
		online.honest(online.romeo)
		open(idle.romeo.plain(idle, v, "goodbye"), victim)
	}
	if t.Logf("%d bad inputs", total); total < 30_000 {
		t.Errorf("%d inputs", total)
	}
}

// taken accepts whatever could be opened.
func taken(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, nil }

// plain seals a text that stands in no envelope.
func (d *device) plain(s *stage, v omemo.Version, text string, bundles ...*omemo.Bundle) *omemo.Message {
	return d.seal(s, v, omemo.Plaintext{Legacy: []byte(text), V2: []byte(text)}, s.victim.JID, bundles...)
}

// badMessages has the victim's manager open changed forms of messages, one by one
// or in pages.
func badMessages(t *testing.T, r *rand.Rand, s *stage, page int, genuine func() *omemo.Message) (d depth) {
	own := stanza.OwnKey{JID: juliet, Device: uint32(s.victim.Device)}
	manager := s.om.Manager()
	message := genuine()
	e := element(message)
	sender := message.Sender
	state := func() string { // of one message, that nothing was written says it all
		if page == 1 {
			return ""
		}
		return withoutJournal(s.store.dump())
	}
	start := state()
	var items []omemo.PageItem
	for d.bad < badInputs {
		d.tried++
		parsed, err := stanza.ParseElement(mutatedElement(r, e, true), stanza.DefaultLimits)
		if err != nil {
			continue
		}
		if bytes.Equal(parsed.AppendXML(nil), e.AppendXML(nil)) {
			d.harmless++
			continue
		}
		d.bad++
		x, err := stanza.ParseEncrypted(parsed, own)
		if err != nil {
			continue
		}
		d.read++
		m := &omemo.Message{Version: s.v, Sender: omemo.Address{JID: sender.JID, Device: omemo.DeviceID(x.Sender)}, IV: x.IV, Payload: x.Payload}
		for _, k := range x.Keys {
			m.Keys = append(m.Keys, omemo.Key{Exchange: k.Exchange, Data: k.Data})
		}
		items = append(items, omemo.PageItem{Message: m, Verify: taken})
		if len(items) < page {
			continue
		}
		commits := s.store.count()
		results := make([]omemo.PageResult, 1)
		if page == 1 {
			results[0].Opened, results[0].Err = manager.Decrypt(t.Context(), m, taken)
		} else {
			results, err = manager.DecryptPage(t.Context(), items)
			ok(t, err)
		}
		opened, kept := 0, 0
		for i, result := range results {
			if result.Kept {
				kept++ // from another device, by its number: there may be a session some day
			}
			if result.Err != nil {
				continue
			}
			// Only as what it was; or as an empty one, when its payload was taken away.
			// Nothing authenticates the number of a device whose exchange it is: its
			// list and its bundle tell.
			text, from := string(result.Opened.Plaintext), result.Opened.Sender
			if text != "text" && (text != "" || items[i].Message.Payload != nil) || from != sender && (from.JID != sender.JID || !result.Opened.Built) {
				t.Fatalf("opened as %q from %v", text, from)
			}
			opened++
		}
		items = nil
		d.bad, d.read, d.harmless = d.bad-opened-kept, d.read-opened-kept, d.harmless+opened+kept
		switch {
		case opened > 1:
			t.Fatalf("opened %d times", opened)
		case opened == 1:
			e, start = element(genuine()), state()
		case kept == 0 && s.store.count() != commits, kept > 0 && state() != start:
			t.Fatalf("a bad message has changed the store:\n%s", difference(start, s.store.dump()))
		}
	}
	return d
}

// withoutJournal leaves out of a dump what is kept to be opened later.
func withoutJournal(dump string) string {
	lines := slices.DeleteFunc(strings.Split(dump, "\n"), func(l string) bool { return strings.HasPrefix(l, "journal ") })
	return strings.Join(lines, "\n")
}

// badBundles has the victim's manager write to a device with changed forms of its
// bundle.
func badBundles(t *testing.T, r *rand.Rand, s *stage) (d depth) {
	const account = "rosaline@example.net"
	owner := newDevice(t, account)
	genuine := owner.bundle(s.v)
	genuine.PreKeys = genuine.PreKeys[:5]
	e := bundle.Element(genuine)
	ok(t, s.om.Manager().SetList(t.Context(), account, s.v, []omemo.DeviceID{owner.Device}))
	write := func(b *omemo.Bundle) error {
		p := omemo.Plaintext{Legacy: []byte(canary)}
		if s.v == omemo.V2 {
			p = omemo.Plaintext{V2: []byte(canary)}
		}
		_, err := s.om.Manager().Encrypt(t.Context(), p, []string{account}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
			return []omemo.Outgoing{{ID: "1", Chat: account, Stanza: []byte("<message/>"), Transient: true}}, nil
		}, b)
		return err
	}
	for d.bad < badInputs {
		d.tried++
		parsed, err := stanza.ParseElement(mutatedElement(r, e, false), stanza.DefaultLimits)
		if err != nil {
			continue
		}
		b, err := bundle.Parse(parsed, owner.Address)
		if err == nil && sameKeys(&b, genuine) {
			d.harmless++ // pre keys and ids are not signed
			continue
		}
		d.bad++
		if err != nil {
			continue
		}
		d.read++
		commits := s.store.count()
		if write(&b) == nil || s.store.count() != commits {
			t.Fatalf("a bad bundle is used: %s", parsed.AppendXML(nil))
		}
	}
	ok(t, write(genuine))
	return d
}

// badEvents has the victim receive changed forms of an event, or of the list in it.
func badEvents(t *testing.T, r *rand.Rand, s *stage, payload bool) (d depth) {
	event, err := stanza.ParseElement([]byte(listEvent(romeo, devicelist.Node(s.v), "current", list(s.v, s.romeo.Device, 22, 333))), stanza.DefaultLimits)
	ok(t, err)
	part := event // is changed
	name := map[omemo.Version]string{omemo.Legacy: "list", omemo.V2: "devices"}[s.v]
	if payload {
		walk(event, func(c *stanza.Element) {
			if c.Name.Local == name {
				part = c
			}
		})
	}
	before, whole := string(part.AppendXML(nil)), string(event.AppendXML(nil))
	if !strings.Contains(whole, before) {
		t.Fatalf("%s does not contain %s", whole, before)
	}
	var bad []string
	for d.bad < badInputs {
		d.tried++
		raw := strings.Replace(whole, before, string(mutatedElement(r, part, false)), 1)
		parsed, err := stanza.ParseElement([]byte(raw), stanza.DefaultLimits)
		if err != nil {
			continue
		}
		news, err := devicelist.ParseEvent(parsed)
		if err == nil && news != nil {
			d.harmless++ // it is a list, or says that there is another one
			for _, device := range news.List.Devices {
				if !strings.Contains(raw, fmt.Sprintf("%d", device.ID)) {
					t.Fatalf("device %d is read from %s", device.ID, raw)
				}
			}
			continue
		}
		d.bad++
		if err != nil {
			d.read++
		}
		bad = append(bad, raw)
	}
	s.in(t, "from the stream", func() { s.repelsAll(bad) })
	return d
}

// badEnvelopes has the victim receive changed forms of an envelope in genuine
// messages.
func badEnvelopes(t *testing.T, r *rand.Rand, s *stage) (d depth) {
	e, err := stanza.ParseElement(envelope(t, romeo, juliet, "text"), stanza.DefaultLimits)
	ok(t, err)
	s.in(t, "from the stream", func() {
		for d.bad < badInputs {
			var bad []string
			for len(bad) < 500 {
				d.tried++
				raw := mutatedElement(r, e, false)
				if _, err := stanza.ParseElement(raw, stanza.DefaultLimits); err != nil {
					continue
				}
				x, err := stanza.ParseEnvelope(raw)
				if err == nil {
					err = x.Verify(stanza.Expect{From: romeo, To: juliet})
					if err == nil {
						d.harmless++ // whoever writes in a session says what he likes
						continue
					}
					d.read++
				}
				d.bad++
				m := s.romeo.stanza(s, juliet, element(s.romeo.seal(s, s.v, omemo.Plaintext{V2: raw}, juliet)))
				bad = append(bad, string(m.AppendXML(nil)))
			}
			s.repelsAll(bad)
			s.honest(s.romeo)
			s.settle()
		}
	})
	return d
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
