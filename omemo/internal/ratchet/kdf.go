package ratchet

import "crypto/sha256"

// kdfRoot is KDF_RK of the specification: HKDF-SHA-256 with the root key as salt.
func kdfRoot(label string, root, secret *[32]byte) (nextRoot, chain [32]byte) {
	var out [64]byte
	prk := hmacSHA256(root, secret[:])
	expand(out[:], &prk, label)
	return [32]byte(out[:32]), [32]byte(out[32:])
}

// kdfChain is KDF_CK of the specification: HMAC-SHA-256 of one byte, 1 for the message key and 2 for the chain key.
func kdfChain(chain *[32]byte) (next, message [32]byte) {
	s := scratches.Get().(*scratch)
	defer s.done()
	s.load(chain)
	s.messageKey(&message)
	s.chainKey(&next)
	return next, message
}

// messageKey is the half of kdfChain that gives the key of the message. The chain key is loaded.
func (s *scratch) messageKey(message *[32]byte) {
	s.buffer[0] = 1
	s.hmac(&s.key, 1)
	copy(message[:], s.buffer[:])
}

// chainKey is the half of kdfChain that gives the next chain key. The chain key is loaded.
func (s *scratch) chainKey(next *[32]byte) {
	s.buffer[0] = 2
	s.hmac(&s.key, 1)
	copy(next[:], s.buffer[:])
}

// expand is HKDF-Expand (RFC 5869 section 2.3). The output is at most 255 times 32 bytes long, the label at most 63.
func expand(out []byte, prk *[32]byte, label string) {
	s := scratches.Get().(*scratch)
	defer s.done()
	s.expand(out, prk, label)
}

func (s *scratch) expand(out []byte, prk *[32]byte, label string) {
	s.load(prk)
	previous := 0
	for counter := byte(1); len(out) > 0; counter++ {
		n := previous + copy(s.buffer[previous:], label)
		s.buffer[n] = counter
		s.hmac(&s.key, n+1)
		out = out[copy(out, s.buffer[:sha256.Size]):]
		previous = sha256.Size
	}
}

// derive is HKDF-SHA-256 of a message key, the salt 32 zero bytes.
func derive(out []byte, key *[32]byte, label string) {
	s := scratches.Get().(*scratch)
	defer s.done()
	copy(s.buffer[:], key[:])
	s.hmac(&zeroKey, len(key))
	prk := [32]byte(s.buffer[:])
	s.expand(out, &prk, label)
}
