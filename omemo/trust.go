package omemo

import "fmt"

// Trust is what is decided about an identity key. Its values are stored: they
// never change.
type Trust int

// The states of a key. A key that nobody decided about is Undecided; the policy
// says what that means.
const (
	Undecided      Trust = 0
	TrustedBlindly Trust = 1 // accepted by policy, by nobody's eyes
	Verified       Trust = 2 // a person compared fingerprints, here or on a verified device
	Distrusted     Trust = 3 // refused by a person, likewise, or by the policy
)

// String returns the name of the state.
func (t Trust) String() string {
	switch t {
	case Undecided:
		return "undecided"
	case TrustedBlindly:
		return "trusted blindly"
	case Verified:
		return "verified"
	case Distrusted:
		return "distrusted"
	}
	return fmt.Sprintf("trust(%d)", int(t))
}

// Sendable reports whether keys of this trust are encrypted to.
func (t Trust) Sendable() bool { return t == TrustedBlindly || t == Verified }

// TrustQuery is what a policy decides about: a key that nobody has decided about.
type TrustQuery struct {
	JID         string
	Device      DeviceID
	Fingerprint Fingerprint
	// Own: another device of our own account.
	Own bool
	// AnyVerified: a key of this account was verified before.
	AnyVerified bool
	// Blind: the key was trusted blindly before. That is recorded when it is first
	// used.
	Blind bool
}

// TrustPolicy says what a key is worth that nobody has decided about. What was
// decided, by a person or by a trust message, comes first, with one exception: a
// trust message makes no key trusted that the policy distrusts, asked as if no key
// of the account were verified or trusted blindly. Blind trust is no decision. A
// policy may be called often; it must not call the Manager.
type TrustPolicy func(TrustQuery) Trust
