package middleware

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"example.org/omellium/middleware/internal/front"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Policy says what happens to messages that are not encrypted.
type Policy int

// The policies. The zero value is the safe one.
const (
	// Required: nothing with content leaves in clear, and what comes in clear is
	// an event, not a message.
	Required Policy = iota
	// Opportunistic: in clear only with accounts of which no device and no
	// encrypted message was ever seen; that is remembered, and never unlearnt.
	// All others as with Required.
	Opportunistic
	// Off: messages leave in clear. What comes encrypted is still decrypted.
	Off
)

// String returns "required", "opportunistic" or "off".
func (p Policy) String() string {
	switch p {
	case Opportunistic:
		return "opportunistic"
	case Off:
		return "off"
	}
	return "required"
}

// Config says how an account is served. Only Store is needed.
type Config struct {
	// Store keeps the account's state. It says whose account it is, too.
	Store omemo.Store

	// Policy holds for every address that PolicyFor, if it is set, has no other
	// answer for. Addresses are bare JIDs.
	Policy    Policy
	PolicyFor func(bare jid.JID) Policy

	// Trust decides about keys that nobody has decided about; nil is
	// omemo.BlindBeforeVerification.
	Trust omemo.TrustPolicy

	// AskTrust, if it is set, is asked about the devices that would not get a
	// message because nobody has decided about their keys: about all of them at
	// once, before anything leaves. What it decides is recorded; devices that it
	// says nothing about stay undecided and get nothing. Once it has answered, it is
	// not asked about the same keys in the chat again, in one session. If it fails, or
	// the context has ended before the answer is recorded, the message is not sent,
	// and the next one asks again. Other messages to the chat wait for it, messages to
	// others do not; it must not send anything itself. By default nobody is asked:
	// UndecidedDevices tells.
	AskTrust func(ctx context.Context, q TrustQuestion) ([]omemo.Decision, error)

	// AutomaticTrust tells own and contacts' devices whose keys are verified what
	// Decide has decided, and does what such devices say about keys (automatic trust
	// management, XEP-0450): one comparison of fingerprints then serves all devices
	// of an account. Whoever holds one verified device of an account can have
	// further ones trusted in its name, but for keys that Trust distrusts, such as
	// those that are not on an omemo.AllowList. It takes omemo:2. Without it, trust
	// messages go to the application as other content does.
	AutomaticTrust bool

	// MinTrust is what the key of a sender must be worth for its messages to be
	// delivered: undecided, which is the default, trusted blindly, or verified.
	// Messages from distrusted keys never are. Those that are not are read and
	// dropped, with an event.
	MinTrust omemo.Trust

	// Prefer, AllowDowngrade and AllowUnauthenticatedLegacy are those of
	// omemo.Options.
	Prefer                     func(bare jid.JID) omemo.Version
	AllowDowngrade             bool
	AllowUnauthenticatedLegacy bool

	// SplitStanzas sends two stanzas, one of each version, to contacts whose
	// devices need both, for programs that refuse a stanza with both elements
	// (slixmpp-omemo does).
	SplitStanzas func(bare jid.JID) bool

	// StrictRooms keeps a message to a room from being sent if a member of it
	// cannot be served. By default the others get it, and Result says who does
	// not.
	StrictRooms bool

	// AllowPlain names namespaces of signalling without body (receipts, markers,
	// chat states) that may come in clear.
	AllowPlain []string

	// AnswerStrangers sends the empty messages that the protocol asks for to
	// everybody, though they show that this account is online. Bots want it.
	// Otherwise they go to accounts we have written to and to those that may
	// see our presence.
	AnswerStrangers bool

	// Receive, if it is set, gets every decrypted message, in the place of the
	// session's handlers, exactly once: it runs inside the database transaction
	// that commits the message, so that what it writes with tx, the answers it
	// gives with Delivery.Send, and the ratchet are committed together or not at
	// all. It must not use the session or the Middleware, and the store must be a
	// sqlstore.
	//
	// If it fails or panics, nothing has happened. The message counts as one that
	// could not be read, waits in the journal, and is tried again after a second, then
	// after ever longer, up to ten minutes; so an error is for what passes, and what
	// can never be handled should be taken. The journal is bounded, above all to 50
	// messages of a device and 64 KiB each, for a week (omemo.JournalRows and so on):
	// what has no room there is lost if it came live, unless Config.CatchUp brings it
	// from the archive, which then waits at that message.
	Receive func(ctx context.Context, tx *sql.Tx, d Delivery) error

	// Versions are those that this device is found in and that messages leave in;
	// nil is both. It is taken off the lists of others; devices that are only found
	// there are not served (omemo.ErrVersion). What still comes in them is read.
	Versions []omemo.Version

	// SignedPreKeyPeriod and StaleAfter are those of omemo.Options.
	SignedPreKeyPeriod time.Duration
	StaleAfter         time.Duration

	// CatchUp has everything fetched that came while the program was not connected,
	// from the archive of the account's server (XEP-0313) and of the rooms that the
	// program joins: whenever the program becomes available with a priority that is
	// not negative, and whenever it joins a room, from where it was left, page by page
	// and in order. Handlers get the messages as if they had been there, with the time
	// in a <delay/>; what another device of the account has sent comes as a carbon.
	// What the program itself has sent in clear does not come, but only as long as the
	// Middleware lives that has sent it: after a restart, it comes as a carbon. What
	// comes live meanwhile waits its turn. The first time it begins where the archive
	// ended when the device was published.
	//
	// While the program is connected, what the server delivers to other devices of the
	// account alone is not fetched: programs that are not the only one should enable
	// carbons (XEP-0280).
	//
	// By default it is left to programs that query archives themselves. They should
	// leave it so: a message is decrypted once.
	CatchUp bool
	// Archive, if it is set, keeps what messages say: results of the archive that
	// the program asks for, and that were decrypted before or sent by this device,
	// are filled in from it. Without it they are not delivered.
	Archive Archive
	// CatchUpLimit bounds the messages that are fetched from an archive in one
	// connection; the next goes on from there. 0 is DefaultCatchUpLimit.
	CatchUpLimit int

	// Label is a name for this device on our omemo:2 list, 1 to 53 printable
	// characters, signed. By default there is none: python-twomemo before 2.0
	// cannot read a list with one.
	Label string

	// AskOptOut has a contact's wish to go on in plain text (omemo:2) put to the
	// application: nothing is sent to it until AnswerOptOut is called. By default
	// it is refused, as programs want it that nobody watches.
	AskOptOut bool

	// Offline lets Wrap return before own list and bundle are published and read
	// back. The first send waits for that instead.
	Offline bool

	// Fallback is the text shown by legacy clients that cannot decrypt, in the
	// place of the message.
	Fallback string

	// MaxStanza bounds an outgoing stanza, in bytes; 0 is DefaultMaxStanza. What a
	// server announces (XEP-0478) is not looked at: mellium keeps of a stream
	// feature that the application does not negotiate no more than its name. Where
	// a server accepts less, set it; a stanza that is too large may end the stream.
	MaxStanza int
	// Limits bound messages, both ways, and replies to our own requests; zero is
	// stanza.DefaultLimits.
	Limits stanza.Limits
	// FetchTimeout bounds the requests for one recipient's device lists and
	// bundles; 0 is DefaultFetchTimeout.
	FetchTimeout time.Duration
	// ListAge is how old a device list may be that came by asking and that no
	// event keeps current; 0 is DefaultListAge.
	ListAge time.Duration
	// QueueStanzas and QueueBytes bound what waits to be encrypted: beyond that,
	// writing to the session blocks. 0 is DefaultQueueStanzas, DefaultQueueBytes.
	QueueStanzas, QueueBytes int

	// Features are the application's own stream features, so that the session
	// returned by Wrap knows what was negotiated for them.
	Features []xmpp.StreamFeature

	// OnEvent is told what the application may want to know. It may be called by
	// several goroutines at once, and whoever calls it waits for it: the one that
	// reads the connection, those that send, a Wrap or a Close. So it must be quick,
	// and hand on what takes longer to a goroutine of the application's own. It must
	// not call Wrap or Close, which wait for all of these and would never return; nor
	// Send or anything else of Middleware that asks the network or waits for a message
	// to leave, since the answer is read by the goroutine that waits here (Send gives
	// up after FetchTimeout, and nothing is read meanwhile); nor write to the session
	// or close it; nor wait for a session's handler or for Receive.
	OnEvent func(Event)
	// Counters, if it is set, counts events.
	Counters Counters
	// Logger gets what goes wrong, without content, keys or addresses. nil logs
	// nothing.
	Logger *slog.Logger
}

// Defaults of Config.
const (
	DefaultMaxStanza    = 256 << 10
	DefaultFetchTimeout = 15 * time.Second
	DefaultListAge      = 10 * time.Minute
	DefaultCatchUpLimit = 100_000
	DefaultQueueStanzas = front.DefaultQueueStanzas
	DefaultQueueBytes   = front.DefaultQueueBytes
	DefaultFallback     = "This message is encrypted with OMEMO, which your client cannot read."
)

func (c *Config) setDefaults() {
	setDefault(&c.MaxStanza, DefaultMaxStanza)
	setDefault(&c.FetchTimeout, DefaultFetchTimeout)
	setDefault(&c.ListAge, DefaultListAge)
	setDefault(&c.CatchUpLimit, DefaultCatchUpLimit)
	setDefault(&c.QueueStanzas, DefaultQueueStanzas)
	setDefault(&c.QueueBytes, DefaultQueueBytes)
	setDefault(&c.Fallback, DefaultFallback)
	setDefault(&c.Limits, stanza.DefaultLimits)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// policy returns the policy for an account.
func (c *Config) policy(bare jid.JID) Policy {
	if c.PolicyFor != nil {
		return c.PolicyFor(bare)
	}
	return c.Policy
}

// options returns the part of the configuration that the core needs.
func (c *Config) options() omemo.Options {
	o := omemo.Options{
		Policy:                     c.Trust,
		AllowDowngrade:             c.AllowDowngrade,
		AllowUnauthenticatedLegacy: c.AllowUnauthenticatedLegacy,
		Versions:                   c.Versions,
		SignedPreKeyPeriod:         c.SignedPreKeyPeriod,
		StaleAfter:                 c.StaleAfter,
	}
	if c.Prefer != nil {
		o.Prefer = func(account string) omemo.Version {
			j, err := jid.Parse(account)
			if err != nil {
				return 0
			}
			return c.Prefer(j)
		}
	}
	return o
}
