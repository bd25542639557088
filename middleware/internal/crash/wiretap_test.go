package crash

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware/xmpptest"
)

// canary is in every text that is to be encrypted, and in nothing else.
const canary = "canary"

const (
	nsClient  = "jabber:client"
	nsLegacy  = "eu.siacs.conversations.axolotl"
	nsV2      = "urn:xmpp:omemo:2"
	nsArchive = "urn:xmpp:mam:2"
)

// wiretap reads all that clients write, as a server would that is up to no good.
// It knows the formats from the specification and nothing of the code under
// test. It also keeps the messages for one account, as an archive does.
type wiretap struct {
	mu        sync.Mutex
	stanzas   map[string][]byte   // message id → the message, byte by byte
	keys      map[ratchetKey]seal // what each message key was used for
	resent    int                 // messages that were seen again
	faults    []string
	archived  []archived // messages for the account that has an archive
	archive   string     // that account, or nothing
	archiveID int
	swallow   bool // nothing reaches the server
}

// ratchetKey names a message key: nobody but one device makes it, once.
type ratchetKey struct {
	ratchet string
	n       uint64
}

// seal is what a message key was used for.
type seal struct {
	to         string // device id
	ciphertext string
}

type archived struct {
	id, stanzaID string
	message      []byte
}

func newWiretap(archive string) *wiretap {
	return &wiretap{stanzas: make(map[string][]byte), keys: make(map[ratchetKey]seal), archive: archive}
}

// filter returns the tap in the form of a filter of the server.
func (w *wiretap) filter(srv *xmpptest.Server) xmpptest.Filter {
	return func(_ context.Context, st xmpptest.Stanza) [][]byte {
		if st.Direction != xmpptest.FromClient {
			return [][]byte{st.XML}
		}
		w.observe(st)
		if w.swallows() {
			return nil
		}
		if w.archive != "" && bytes.Contains(st.XML, []byte(nsArchive)) && bytes.HasPrefix(st.XML, []byte("<iq")) {
			if err := w.answer(srv, st); err != nil {
				w.fault("archive: %v", err)
			}
			return nil
		}
		return [][]byte{st.XML}
	}
}

func (w *wiretap) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// setSwallow has the server lose all that it is sent, or no longer.
func (w *wiretap) setSwallow(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swallow = on
}

func (w *wiretap) swallows() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.swallow
}

// verdict returns what was found to be wrong.
func (w *wiretap) verdict() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) > 0 {
		return errors.New(strings.Join(w.faults, "; "))
	}
	return nil
}

// used returns how many message keys were used, and how many messages were seen
// again.
func (w *wiretap) used() (keys, resent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.keys), w.resent
}

// observe checks one stanza of a client.
func (w *wiretap) observe(st xmpptest.Stanza) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fault := func(format string, args ...any) {
		w.faults = append(w.faults, fmt.Sprintf("%s: %s", st.Session, fmt.Sprintf(format, args...)))
	}
	if bytes.Contains(st.XML, []byte(canary)) {
		fault("plain text on the wire: %s", st.XML)
	}
	m, err := parseMessage(st.XML)
	if err != nil {
		fault("%v", err)
		return
	}
	if m == nil {
		return
	}
	if known, ok := w.stanzas[m.id]; ok {
		w.resent++
		if !bytes.Equal(known, st.XML) {
			fault("message %s was sent again with other bytes", m.id)
		}
	}
	w.stanzas[m.id] = st.XML
	for _, k := range m.keys {
		w.note(k)
	}
	w.store(st, m)
}

// note takes note of what a message key was used for. The caller holds w.mu.
func (w *wiretap) note(k tappedKey) {
	if known, ok := w.keys[k.name]; ok && known != k.seal {
		w.faults = append(w.faults, fmt.Sprintf("message key %d of a chain was used twice", k.name.n))
	}
	w.keys[k.name] = k.seal
}

// use is note for what does not come in a stanza.
func (w *wiretap) use(k tappedKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(k)
}

// store archives a message for the account that has an archive.
func (w *wiretap) store(st xmpptest.Stanza, m *tapped) {
	to, err := jid.Parse(m.to)
	if err != nil || to.Bare().String() != w.archive || w.swallow {
		return
	}
	message := bytes.Replace(st.XML, []byte("<message"), fmt.Appendf(nil, "<message from=%q", st.Session), 1)
	if !bytes.Contains(st.XML[:bytes.IndexByte(st.XML, '>')], []byte("xmlns=")) {
		message = bytes.Replace(message, []byte("<message"), fmt.Appendf(nil, "<message xmlns=%q", nsClient), 1)
	}
	w.archiveID++
	w.archived = append(w.archived, archived{fmt.Sprint(w.archiveID), m.id, message})
}

// answer answers a query of the archive (XEP-0313) with all that it holds.
func (w *wiretap) answer(srv *xmpptest.Server, st xmpptest.Stanza) error {
	var iq struct {
		ID    string `xml:"id,attr"`
		Query struct {
			ID string `xml:"queryid,attr"`
		} `xml:"urn:xmpp:mam:2 query"`
	}
	if err := xml.Unmarshal(st.XML, &iq); err != nil {
		return err
	}
	w.mu.Lock()
	messages := slices.Clone(w.archived)
	w.mu.Unlock()
	var page strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&page, `<message from=%q to=%q><result xmlns=%q queryid=%q id=%q><forwarded xmlns="urn:xmpp:forward:0">`+
			`<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z"/>%s</forwarded></result></message>`,
			w.archive, st.Session, nsArchive, iq.Query.ID, m.id, m.message)
	}
	fmt.Fprintf(&page, `<iq type="result" from=%q to=%q id=%q><fin xmlns=%q complete="true"/></iq>`,
		w.archive, st.Session, iq.ID, nsArchive)
	err := srv.Inject(st.Session, page.String())
	if errors.Is(err, xmpptest.ErrNoSession) {
		return nil // it has gone
	}
	return err
}

// forget drops a message from the archive, and with it all that is older than
// the newest hundred and was not asked to be kept.
func (w *wiretap) forget(stanzaID string, keep map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	older := len(w.archived) - 100
	kept := w.archived[:0]
	for i, a := range w.archived {
		if a.stanzaID != stanzaID && (i >= older || keep[a.stanzaID]) {
			kept = append(kept, a)
		}
	}
	w.archived = kept
}

// tapped is what can be told about an encrypted message from outside.
type tapped struct {
	id, to string
	keys   []tappedKey
}

type tappedKey struct {
	name ratchetKey
	seal seal
}

// parseMessage reads a stanza. It returns nil for what is no encrypted message.
func parseMessage(raw []byte) (*tapped, error) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	d.DefaultSpace = nsClient
	var m *tapped
	var key *xml.StartElement
	for {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("stanza: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			switch {
			case m == nil && t.Name.Local != "message":
				return nil, nil
			case m == nil:
				m = &tapped{id: value(t, "id"), to: value(t, "to")}
			case t.Name.Local == "key" && (t.Name.Space == nsLegacy || t.Name.Space == nsV2):
				start := t.Copy()
				key = &start
			}
		case xml.EndElement:
			key = nil
		case xml.CharData:
			if key == nil {
				continue
			}
			b, err := base64.StdEncoding.DecodeString(string(t))
			if err != nil {
				return nil, fmt.Errorf("key: %w", err)
			}
			k, err := parseKey(key.Name.Space, isExchange(*key), b)
			if err != nil {
				return nil, err
			}
			k.seal.to = value(*key, "rid")
			m.keys = append(m.keys, k)
		}
	}
	if m == nil || len(m.keys) == 0 {
		return nil, nil
	}
	return m, nil
}

func value(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

func isExchange(key xml.StartElement) bool {
	v := value(key, "prekey") + value(key, "kex")
	return v == "true" || v == "1"
}

// parseKey reads the protobufs of both versions: in legacy a version byte stands
// before each message and the MAC of 8 bytes behind it.
func parseKey(space string, exchange bool, b []byte) (k tappedKey, err error) {
	legacy := space == nsLegacy
	if exchange {
		field := protowire.Number(5)
		if legacy {
			if len(b) < 1 {
				return k, errShort
			}
			b, field = b[1:], 4
		}
		f, err := fields(b)
		if err != nil {
			return k, err
		}
		b = f[field].bytes
	}
	n, dh, ciphertext := protowire.Number(1), protowire.Number(3), protowire.Number(4)
	if legacy {
		if len(b) < 9 {
			return k, errShort
		}
		b = b[1 : len(b)-8]
		n, dh = 2, 1
	} else {
		f, err := fields(b)
		if err != nil {
			return k, err
		}
		b = f[2].bytes
	}
	f, err := fields(b)
	if err != nil {
		return k, err
	}
	if len(f[dh].bytes) == 0 || len(f[ciphertext].bytes) == 0 {
		return k, errShort
	}
	return tappedKey{ratchetKey{string(f[dh].bytes), f[n].number}, seal{ciphertext: string(f[ciphertext].bytes)}}, nil
}

var errShort = errors.New("key: a field is missing")

type field struct {
	number uint64
	bytes  []byte
}

func fields(b []byte) (map[protowire.Number]field, error) {
	all := make(map[protowire.Number]field)
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		all[number] = f
	}
	return all, nil
}
