package omemo

import (
	"encoding/binary"
	"fmt"
	"time"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
)

// Records are flat: fixed fields in a fixed order, big endian, after one byte
// that numbers the format. A format that was released is read for ever.
const (
	accountFormat = 2 // 1 ends before the advert
	sessionFormat = 1
)

// Flags of a session record.
const (
	flagPassive = 1 << iota
	flagConfirmed
	flagByHand
	flagHeartbeat
	flagPreKey
	flagCanSend
	flagCanReceive
	flagPrevious
	flagShortPN
)

// record is an account in its stored form.
func (a *account) record() []byte {
	b := []byte{accountFormat}
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.jid)))
	b = append(b, a.jid...)
	b = binary.BigEndian.AppendUint32(b, uint32(a.device))
	kind, secret := a.identity.Secret()
	b = append(append(b, kind), secret[:]...)
	clear(secret[:])
	var quarantined int64
	if !a.quarantined.IsZero() {
		quarantined = a.quarantined.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(quarantined))
	for _, k := range []*ownKeys{&a.legacy, &a.v2} {
		b = binary.BigEndian.AppendUint32(b, k.nextSigned)
		b = binary.BigEndian.AppendUint32(b, k.nextPreKey)
		for _, s := range []signedPreKey{k.signed, k.previous} {
			b = binary.BigEndian.AppendUint32(b, s.id)
			if s.id != 0 {
				private := s.key.Bytes()
				b = append(b, private[:]...)
				b = binary.BigEndian.AppendUint64(b, uint64(s.created.UnixNano()))
			}
		}
	}
	return appendAdvert(b, a.advert)
}

// parseAccount reads an account record of any format. The error is ErrCorrupt or ErrNewer.
func parseAccount(b []byte) (*account, error) {
	r := reader{b: b}
	format := r.byte()
	if format != 1 && format != accountFormat {
		return nil, formatError("account", format, accountFormat)
	}
	a := &account{jid: string(r.take(int(r.uint16()))), device: DeviceID(r.uint32())}
	kind := r.byte()
	secret := r.key()
	switch kind {
	case 0:
		a.identity = curve.IdentityFromSeed(&secret)
	case 1:
		a.identity = curve.IdentityFromScalar(&secret)
	default:
		r.bad = true
	}
	clear(secret[:])
	if n := int64(r.uint64()); n != 0 {
		a.quarantined = time.Unix(0, n)
	}
	for _, k := range []*ownKeys{&a.legacy, &a.v2} {
		k.nextSigned, k.nextPreKey = r.uint32(), r.uint32()
		for _, s := range []*signedPreKey{&k.signed, &k.previous} {
			if s.id = r.uint32(); s.id != 0 {
				private := r.key()
				s.key = curve.NewPrivate(&private)
				clear(private[:])
				s.created = time.Unix(0, int64(r.uint64()))
			}
		}
	}
	if format > 1 {
		a.advert = r.advert()
	}
	if r.bad || len(r.b) != 0 || a.legacy.signed.id == 0 || a.v2.signed.id == 0 {
		return nil, fmt.Errorf("%w: account", ErrCorrupt)
	}
	return a, nil
}

// The lengths of a session record: of what it always has, and at most.
const (
	recordSize    = 1 + 2 + 32 + 4 + 4 + 32 + 32 + 32 + 32 + 4 + 4
	maxRecordSize = recordSize + 32 + chainSize + chainSize + 4
	chainSize     = 32 + 32 + 4
)

// row is a session in its stored form: at most 351 bytes, of the slab.
func (s *Session) row(records *slab) SessionRow {
	st := &s.state
	var flags uint16
	for i, set := range []bool{
		s.initiation == Passive, s.confirmed, s.byHand, s.heartbeat, s.exchange.HasPreKey,
		st.CanSend, st.CanReceive, st.HasPrevious, st.ShortPN,
	} {
		if set {
			flags |= 1 << i
		}
	}
	size := maxRecordSize
	if !st.HasPrevious {
		size -= chainSize + 4
	}
	b := append(records.take(size), sessionFormat)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, s.identity[:]...)
	b = binary.BigEndian.AppendUint32(b, s.exchange.SignedPreKeyID)
	b = binary.BigEndian.AppendUint32(b, s.exchange.PreKeyID)
	b = append(b, s.exchange.Ephemeral[:]...)
	b = append(b, st.Root[:]...)
	own := st.Own.Bytes()
	b = append(b, own[:]...)
	clear(own[:])
	b = append(b, st.Remote[:]...)
	b = binary.BigEndian.AppendUint32(b, st.Sent)
	b = binary.BigEndian.AppendUint32(b, st.PreviousSent)
	if st.CanSend {
		b = append(b, st.Sending[:]...)
	}
	if st.CanReceive {
		b = appendChain(b, &st.Receiving)
	}
	if st.HasPrevious {
		b = appendChain(b, &st.Previous)
		b = binary.BigEndian.AppendUint32(b, st.PreviousPN)
	}
	return SessionRow{ID: s.id, Peer: s.peer, Archived: s.archived, Record: b}
}

func appendChain(b []byte, c *ratchet.Chain) []byte {
	b = append(b, c.Remote[:]...)
	b = append(b, c.Key[:]...)
	return binary.BigEndian.AppendUint32(b, c.Next)
}

// session reads a session row. The own identity completes the key exchange of an
// active session.
func (r *SessionRow) session(own *account) (*Session, error) {
	in := reader{b: r.Record}
	if format := in.byte(); format != sessionFormat {
		return nil, formatError("session", format, sessionFormat)
	}
	flags := in.uint16()
	s := &Session{id: r.ID, peer: r.Peer, archived: r.Archived, initiation: Active}
	if flags&flagPassive != 0 {
		s.initiation = Passive
	}
	s.confirmed = flags&flagConfirmed != 0
	s.byHand = flags&flagByHand != 0
	s.heartbeat = flags&flagHeartbeat != 0
	s.identity = in.key()
	s.exchange = KeyExchange{SignedPreKeyID: in.uint32(), PreKeyID: in.uint32(), Ephemeral: in.key()}
	s.exchange.HasPreKey = flags&flagPreKey != 0
	if s.exchange.Identity = s.identity; s.initiation == Active {
		s.exchange.Identity = own.identityKey(s.peer.Version)
	}
	st := &s.state
	st.Root = in.key()
	private := in.key()
	st.Own = curve.NewPrivate(&private)
	clear(private[:])
	st.Remote = in.key()
	st.Sent, st.PreviousSent = in.uint32(), in.uint32()
	if st.CanSend = flags&flagCanSend != 0; st.CanSend {
		st.Sending = in.key()
	}
	if st.CanReceive = flags&flagCanReceive != 0; st.CanReceive {
		st.Receiving = in.chain()
	}
	if st.HasPrevious = flags&flagPrevious != 0; st.HasPrevious {
		st.Previous = in.chain()
		st.PreviousPN = in.uint32()
	}
	st.ShortPN = flags&flagShortPN != 0
	if in.bad || len(in.b) != 0 || !s.peer.Version.Valid() {
		return nil, fmt.Errorf("%w: session with %v", ErrCorrupt, r.Peer)
	}
	return s, nil
}

func formatError(what string, format, known byte) error {
	if format > known {
		return fmt.Errorf("%w: %s record of format %d", ErrNewer, what, format)
	}
	return fmt.Errorf("%w: %s record of format %d", ErrCorrupt, what, format)
}

// reader takes fields off a record. After a short read, bad is set and all that
// follows is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		r.b = nil
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) key() (k [32]byte) {
	copy(k[:], r.take(len(k)))
	return k
}

func (r *reader) chain() ratchet.Chain {
	return ratchet.Chain{Remote: r.key(), Key: r.key(), Next: r.uint32()}
}
