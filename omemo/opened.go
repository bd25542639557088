package omemo

import (
	"context"
	"time"
)

// Opened is a decrypted message.
type Opened struct {
	Version     Version
	Sender      Address
	Fingerprint Fingerprint
	Trust       Trust // of the sender's key at this moment
	// Plaintext is the text of the body in legacy, the serialized envelope in
	// omemo:2; nil in an empty message.
	Plaintext []byte
	// Event names the message: the same message has the same name however often
	// and by whatever way it comes.
	Event string
	// Session is the session after this message.
	Session *Session
	// Exchange: the key came in a key exchange. Built: that made the session.
	Exchange, Built bool
	// FirstSeen: the identity key of the device was not known before.
	FirstSeen bool
	// Authenticated is false for legacy messages under AllowUnauthenticatedLegacy in the
	// old key form: the text is not authenticated.
	Authenticated bool
	// Delivery is what Verify made of the message, with its row in the inbox.
	Delivery Delivery
	// Owed: work was written down; see Owed and Answer.
	Owed   bool
	Events []Event
}

// Delivery is what is to become of a decrypted message.
type Delivery struct {
	// Stanza is handed to the application; nil: nothing is.
	Stanza []byte
	// OptOut: the message is its sender's wish to go on in plain text, which
	// blocks sending until SetOptOut was called.
	OptOut bool
	// Statements are those of a trust message, and Stated is when it says that it
	// was written. They are done, or kept until the sender's key is verified.
	Statements []Statement
	Stated     time.Time
	// Seq is its number in the inbox, set by Decrypt.
	Seq uint64
	// Within runs in the store's transaction before anything is written. It may
	// write with tx, and seal answers that are committed with the message.
	Within func(ctx context.Context, tx any, seal Sealer) error
}

// Sealer seals inside a commit that is under way.
type Sealer struct {
	Encrypt      SealFunc // as Manager.Encrypt
	EncryptGroup SealFunc // as Manager.EncryptGroup
}

// SealFunc seals a message for recipients, and renders it.
type SealFunc func(p Plaintext, to []string, r Render, bundles ...*Bundle) (*Sealed, error)

// Verify checks the decrypted content (envelope, affixes) and says what is to
// become of it. It runs before the commit; if it fails, nothing has happened,
// and the same message can be opened again. It is not called for empty messages.
type Verify func(*Opened) (Delivery, error)
