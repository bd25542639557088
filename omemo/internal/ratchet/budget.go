package ratchet

// Budget is how many message keys may still be skipped for one stanza before anything in it is authenticated: for all
// its keys and all the sessions they are tried in together, at most [MaxSkip]. The zero value is all of it.
type Budget struct {
	spent uint32
}

// take takes n steps of a chain out of the budget. It takes none if fewer are left.
func (b *Budget) take(n uint32) bool {
	if n > MaxSkip-b.spent {
		return false
	}
	b.spent += n
	return true
}
