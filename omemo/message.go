package omemo

// Message is what travels in one <encrypted/> element.
type Message struct {
	Version Version
	Sender  Address
	Keys    []Key
	// IV is legacy's: 12 bytes when written, 12 or 16 when read; nil in omemo:2.
	IV []byte
	// Payload is the encrypted body; nil in an empty message.
	Payload []byte
	// Journal is the row of the journal that the message was kept in, 0 if it
	// comes fresh. It is removed when the message has been decrypted.
	Journal uint64
}

// Key is the key material of a message, sealed for one device.
type Key struct {
	Address
	// Exchange: Data is a key exchange around the sealed key.
	Exchange bool
	// Data is a protobuf of the version, 60 to 300 bytes.
	Data []byte
}

// Plaintext is the content of a message in the form of each version: what is
// nil is not sent in that version.
type Plaintext struct {
	Legacy []byte // text of the body, UTF-8
	V2     []byte // serialized envelope (XEP-0420)
}

func (p Plaintext) of(v Version) []byte {
	if v == V2 {
		return p.V2
	}
	return p.Legacy
}
