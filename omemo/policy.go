package omemo

import (
	"maps"
	"slices"
)

// Blind trusts every key blindly. It is for tests, and for programs that protect
// from nobody but listeners.
func Blind(TrustQuery) Trust { return TrustedBlindly }

// BlindBeforeVerification trusts the keys of an account blindly until one of
// them was verified; later ones stay undecided, earlier ones as they were. It is
// the default.
func BlindBeforeVerification(q TrustQuery) Trust {
	if q.AnyVerified && !q.Blind {
		return Undecided
	}
	return TrustedBlindly
}

// TOAKAFA trusts only authenticated keys after the first authentication
// (XEP-0450, section 7.2): as BlindBeforeVerification, but once a key of an account
// was verified, those that had been trusted blindly are not any more.
func TOAKAFA(q TrustQuery) Trust {
	if q.AnyVerified {
		return Undecided
	}
	return TrustedBlindly
}

// Manual leaves every key undecided until a person decides. Keys that an earlier
// policy has trusted blindly stay so.
func Manual(q TrustQuery) Trust {
	if q.Blind {
		return TrustedBlindly
	}
	return Undecided
}

// ManualOwn returns a policy that leaves other devices of our own account
// undecided, because a server can add one, and asks others about the rest.
func ManualOwn(others TrustPolicy) TrustPolicy {
	return func(q TrustQuery) Trust {
		if q.Own {
			return Manual(q)
		}
		return others(q)
	}
}

// AllowList returns the policy of programs that serve those who stand in their
// configuration, and nobody else. The keys of the map are canonical bare JIDs, our
// own among them if its other devices are to be served. An account with
// fingerprints is served on these keys alone, which are as good as verified; one
// without, on any key, trusted blindly. All other keys are distrusted: nothing is
// sent to them, and what they send is refused. What is taken off the list is no
// longer trusted. Trust messages add nothing to the list; a person's decision about
// a key (Manager.SetTrust) comes before it.
func AllowList(allowed map[string][]Fingerprint) TrustPolicy {
	kept := make(map[string][]Fingerprint, len(allowed))
	for jid, keys := range maps.All(allowed) {
		kept[jid] = slices.Clone(keys)
	}
	return func(q TrustQuery) Trust {
		keys, listed := kept[q.JID]
		switch {
		case !listed:
			return Distrusted
		case len(keys) == 0:
			return TrustedBlindly
		case slices.Contains(keys, q.Fingerprint):
			return Verified
		}
		return Distrusted
	}
}
