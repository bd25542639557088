package omemo

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// DeviceID numbers a device within its account: 1 to 2^31-1 (XEP-0384, section
// 5.1). Larger 32-bit values are read, never created.
type DeviceID uint32

// MaxDeviceID is the largest device id that this package creates.
const MaxDeviceID DeviceID = 1<<31 - 1

// Address names a device. JID is a canonical bare JID: prepared by the caller,
// compared byte by byte.
type Address struct {
	JID    string
	Device DeviceID
}

// String returns "jid/device" for logs.
func (a Address) String() string { return fmt.Sprintf("%s/%d", a.JID, a.Device) }

// Peer is a device in one version: what a session is held with.
type Peer struct {
	Version Version
	Address
}

// String returns "version:jid/device" for logs.
func (p Peer) String() string { return p.Version.String() + ":" + p.Address.String() }

// Fingerprint is the public identity key of a device in its Curve25519 form
// (32 bytes, little endian). It is the same in both versions.
type Fingerprint [32]byte

// String returns 8 groups of 8 lowercase hexadecimal digits (XEP-0384, section
// 7.3).
func (f Fingerprint) String() string {
	digits := hex.EncodeToString(f[:])
	groups := make([]string, 8)
	for i := range groups {
		groups[i] = digits[8*i : 8*i+8]
	}
	return strings.Join(groups, " ")
}

// IsZero reports whether the fingerprint is not known.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// ParseFingerprint reads 64 hexadecimal digits in any grouping. The 66 digits
// that legacy clients show, with 05 in front, are read too.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	b, err := hex.DecodeString(strings.ToLower(strings.Join(strings.Fields(s), "")))
	if len(b) == 33 && b[0] == 0x05 {
		b = b[1:]
	}
	if err != nil || len(b) != len(f) {
		return f, fmt.Errorf("omemo: a fingerprint has 64 hexadecimal digits: %q", s)
	}
	copy(f[:], b)
	return f, nil
}

// Device is what is known about a device in one version.
type Device struct {
	Peer
	// Identity is the identity key as it travels in this version: Curve25519 in
	// legacy, Ed25519 in omemo:2. Zero until a bundle or a key exchange was seen.
	Identity [32]byte
	// Fingerprint is Identity in the form that both versions share.
	Fingerprint Fingerprint
	// Active: the device stands on the newest device list of this version.
	Active bool
	// Received: it has sent us an authenticated message with content in this
	// version, the only evidence that it speaks it.
	Received bool
	// Sent: content has been encrypted to it in this version.
	Sent bool
	// Invited: it has been sent the one omemo:2 envelope with empty content.
	Invited bool
	// Introduced is when a session was last begun because the device had sent a
	// message in one that we do not have.
	Introduced time.Time
	// Label is the name that the device list gives the device, omemo:2 only, and
	// LabelSignature what it says is the device's signature of it. They prove
	// nothing: show VerifiedLabel.
	Label          string
	LabelSignature [64]byte
	// FirstSeen and LastSeen are when it was first heard of and when it last
	// sent an authenticated message.
	FirstSeen, LastSeen time.Time
	// Stale: the device has not been heard of for long, though much was sent to
	// it: nothing is, as long as the account has others. See Options.StaleAfter.
	Stale bool
	// BundleFailures counts the bundles in a row that could not be had, and
	// BundleTried is when the last was asked for: see RetryBundle.
	BundleFailures int
	BundleTried    time.Time
	// Conflict is another identity key that was presented for this device, in
	// the fingerprint's form. The known one stays; an application decides.
	Conflict Fingerprint
}

// RetryBundle returns when a device whose bundle could not be had may be asked
// again: after a minute, doubled with each failure, at most a day.
func (d *Device) RetryBundle() time.Time {
	if d.BundleFailures == 0 {
		return time.Time{}
	}
	wait := time.Minute << min(d.BundleFailures-1, 11)
	return d.BundleTried.Add(min(wait, 24*time.Hour))
}

// retries reports whether the bundle may be asked for. A clock that was set back
// must not put it off for ever.
func (d *Device) retries(now time.Time) bool {
	return d.BundleFailures == 0 || now.Sub(d.BundleTried).Abs() >= d.RetryBundle().Sub(d.BundleTried)
}

// Contact is what is known about an account as a whole.
type Contact struct {
	JID string
	// Lists holds when the device list of each version was last learnt.
	Lists map[Version]time.Time
	// Seen: a device or an encrypted message of this account was seen once.
	// It is never unlearnt, so that nothing on the network can talk an
	// opportunistic program back into plain text.
	Seen bool
	// Written: the application has sent to this account.
	Written bool
	// OptOut: the account has asked to go on in plain text, and what the
	// application has answered.
	OptOut OptOut
}

// TrustRecord is a decision about one identity key of one account.
type TrustRecord struct {
	JID         string
	Fingerprint Fingerprint
	Trust       Trust
	Since       time.Time
	// By is the key of the device whose trust message decided; zero: this
	// program did.
	By Fingerprint
}
