// Package pep publishes to and reads from personal eventing nodes (XEP-0163),
// as far as OMEMO needs it: publishing with options and repairing nodes that
// others created with the wrong ones, fetching one item, retracting, deleting,
// and reading events.
//
// It works on a Requester, because the reply to a request counts only if it
// comes from the address that was asked. Matching ids is not enough: ids can be
// guessed or seen, and whoever answers first would supply another account's
// device list.
//
// Accounts are named by their canonical bare JID; the empty string is the own
// account.
package pep

// Namespaces used by this package.
const (
	NS       = "http://jabber.org/protocol/pubsub"
	NSOwner  = "http://jabber.org/protocol/pubsub#owner"
	NSEvent  = "http://jabber.org/protocol/pubsub#event"
	NSErrors = "http://jabber.org/protocol/pubsub#errors"

	nsForm           = "jabber:x:data"
	nsPublishOptions = "http://jabber.org/protocol/pubsub#publish-options"
	nsNodeConfig     = "http://jabber.org/protocol/pubsub#node_config"
	nsStanzaErrors   = "urn:ietf:params:xml:ns:xmpp-stanzas"
)
