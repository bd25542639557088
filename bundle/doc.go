// Package bundle reads, publishes and fetches the bundles of devices (XEP-0384,
// section 5.3.2), in both versions.
//
// It checks the form of a bundle, not its signature: omemo.Bundle.Verify does.
package bundle

import (
	"errors"
	"strconv"

	"example.org/omellium/omemo"
)

// MaxPreKeys bounds the pre keys of a bundle. Clients publish 100.
const MaxPreKeys = 1_000

// ErrMalformed: a bundle lacks a part, has one twice, or one of the wrong length.
var ErrMalformed = errors.New("bundle: malformed")

// NodeV2 holds the bundles of all devices of an account in omemo:2, the item's
// id being the device id.
const NodeV2 = "urn:xmpp:omemo:2:bundles"

// NodeLegacyPrefix and a device id in decimal name the node that holds the
// bundle of this device in legacy.
const NodeLegacyPrefix = "eu.siacs.conversations.axolotl.bundles:"

// Node returns the node that holds a device's bundle.
func Node(v omemo.Version, id omemo.DeviceID) string {
	if v == omemo.V2 {
		return NodeV2
	}
	return NodeLegacyPrefix + decimal(uint32(id))
}

// item returns the id under which a device's bundle is published.
func item(v omemo.Version, id omemo.DeviceID) string {
	if v == omemo.V2 {
		return decimal(uint32(id))
	}
	return "current"
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
