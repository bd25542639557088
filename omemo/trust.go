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
	Verified       Trust = 2 // a person compared fingerprints
	Distrusted     Trust = 3 // refused by a person
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

// TrustQuery is what a policy decides about: a key that no decision is recorded
// for.
type TrustQuery struct {
	JID         string
	Device      DeviceID
	Fingerprint Fingerprint
	// Own: another device of our own account.
	Own bool
	// AnyVerified: a key of this account was verified before.
	AnyVerified bool
}

// TrustPolicy says what an undecided key is worth. Recorded decisions come
// first: a policy is not asked about them.
type TrustPolicy func(TrustQuery) Trust

// BlindBeforeVerification trusts the keys of an account blindly until one of
// them was verified; later ones stay undecided. It is the default.
func BlindBeforeVerification(q TrustQuery) Trust {
	if q.AnyVerified {
		return Undecided
	}
	return TrustedBlindly
}

// Manual leaves every key undecided until a person decides.
func Manual(TrustQuery) Trust { return Undecided }

// ManualOwn returns a policy that leaves other devices of our own account
// undecided, because a server can add one, and asks others about the rest.
func ManualOwn(others TrustPolicy) TrustPolicy {
	return func(q TrustQuery) Trust {
		if q.Own {
			return Undecided
		}
		return others(q)
	}
}
