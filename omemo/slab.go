package omemo

// slabValues is how many values share memory at most. It is freed when none of
// them is in use any more.
const slabValues = 64

// slab is memory for values that are made together and used for as long. The zero
// slab makes each by itself.
type slab struct {
	values int // still to be made
	free   []byte
}

// take returns an empty slice that has room for n bytes.
func (s *slab) take(n int) []byte {
	if n > len(s.free) {
		s.free = make([]byte, n*max(1, min(s.values, slabValues)))
	}
	s.values--
	b := s.free[:0:n]
	s.free = s.free[n:]
	return b
}
