// Package devicelist reads, publishes and fetches the device lists of accounts
// (XEP-0384, section 5.3.1), in both versions.
package devicelist

import "example.org/omellium/omemo"

// Limits of a list. Above them it is refused as a whole: to process a part would
// let whoever wrote it choose which devices are seen.
const (
	MaxDevices = 256
	MaxBytes   = 256 << 10
)

// MaxLabel is the greatest length of a label, in code points (XEP-0384, section
// 5.3.1). Longer ones are not read.
const MaxLabel = 53

// Features to announce. A client that announces a node's name with "+notify" is
// sent the lists of its contacts when they change, and when it comes online
// (XEP-0163, section 4).
const (
	NodeLegacy          = "eu.siacs.conversations.axolotl.devicelist"
	NodeV2              = "urn:xmpp:omemo:2:devices"
	FeatureNotifyLegacy = NodeLegacy + "+notify"
	FeatureNotifyV2     = NodeV2 + "+notify"
)

// Node returns the node of a version's lists.
func Node(v omemo.Version) string {
	if v == omemo.V2 {
		return NodeV2
	}
	return NodeLegacy
}

// NodeVersion returns the version whose lists a node holds, and whether there is
// one.
func NodeVersion(node string) (omemo.Version, bool) {
	switch node {
	case NodeV2:
		return omemo.V2, true
	case NodeLegacy:
		return omemo.Legacy, true
	}
	return 0, false
}
