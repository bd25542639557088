package omemo

import (
	"cmp"
	"math"
	"slices"

	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// MaxCandidates is how many keys of a legacy message that carry our device id
// are tried: ids are unique only within an account, and legacy does not name the
// account.
const MaxCandidates = 8

// candidate is a session in which a key of the message has opened.
type candidate struct {
	opened
	header   ratchet.Header
	exchange bool
	built    bool // the session is new
	preKey   *PreKeyRow
}

// inOrder returns the keys of a message in the order in which they are tried. Those
// of receiving chains that are open come first, as they are hardly for anybody
// else; then smaller numbers before greater ones, see spend.
func (u *unit) inOrder(peer Peer, keys []Key) []Key {
	if len(keys) == 1 {
		return keys
	}
	type place struct {
		Key
		unknown int
		n       uint32
	}
	places := make([]place, len(keys))
	for i, key := range keys {
		places[i] = place{key, 1, math.MaxUint32}
		if _, in, err := key.parse(peer.Version); err == nil {
			places[i].n = in.Header.N
			if slices.ContainsFunc(u.list(peer), func(s *Session) bool { return s.state.Knows(in.Header.Key) }) {
				places[i].unknown = 0
			}
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.unknown, b.unknown), cmp.Compare(a.n, b.n))
	})
	sorted := make([]Key, len(keys))
	for i := range places {
		sorted[i] = places[i].Key
	}
	return sorted
}

// parse reads the message in a key, and the key exchange around it if it says that
// there is one.
func (k Key) parse(v Version) (x wire.Exchange, in wire.Message, err error) {
	format, data := v.profile().format, k.Data
	if k.Exchange {
		if x, err = format.ParseExchange(data); err != nil {
			return wire.Exchange{}, wire.Message{}, err
		}
		data = x.Message
	}
	in, err = format.ParseMessage(data)
	return x, in, err
}
