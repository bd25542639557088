package omemo

import (
	"context"
	"time"
)

// Store keeps the state of one account. It belongs to one owner at a time: a
// Store that is open is exclusive, so what was read stays true until the owner
// itself commits something else.
//
// Reads are batched: one call for all devices of a message. Rows that do not
// exist are left out of the answer. All writing is one method, Commit.
//
// Implementations are memstore and sqlstore; storetest checks any other.
type Store interface {
	// Load returns what a Manager starts from. A store without an account
	// returns a State whose Account is nil.
	Load(ctx context.Context) (State, error)
	// PreKeys returns the own pre keys of a version; all of them if no id is
	// given.
	PreKeys(ctx context.Context, v Version, ids ...uint32) ([]PreKeyRow, error)
	// Sessions returns the sessions held with the peers, current and archived.
	Sessions(ctx context.Context, peers []Peer) ([]SessionRow, error)
	// Skipped returns skipped message keys.
	Skipped(ctx context.Context, ids []SkippedID) ([]SkippedRow, error)
	// Ended returns marks of receiving chains that have ended.
	Ended(ctx context.Context, ids []ChainID) ([]EndedChain, error)
	// Accounts returns what is known about accounts: the contacts, their
	// devices in both versions, and the decisions about their keys. Without a
	// JID it returns all there is.
	Accounts(ctx context.Context, jids ...string) (Accounts, error)
	// Inbox returns up to limit messages after a sequence number, in order.
	Inbox(ctx context.Context, after uint64, limit int) ([]InboxRow, error)
	// Outbox returns up to limit stanzas after a sequence number, in order.
	Outbox(ctx context.Context, after uint64, limit int) ([]OutboxRow, error)
	// Journal returns the messages of a device that could not be opened yet, in
	// order; of every device if the address is zero.
	Journal(ctx context.Context, from Address) ([]JournalRow, error)
	// Owed returns the work that is owed, oldest first.
	Owed(ctx context.Context) ([]OwedRow, error)
	// Cursors returns all archive positions.
	Cursors(ctx context.Context) ([]Cursor, error)
	// Occupants returns who had the nicks of rooms; of all rooms if none is
	// named.
	Occupants(ctx context.Context, rooms ...string) ([]OccupantRow, error)
	// Echoes returns own messages that have not come back from their rooms; all
	// of them if no hash is given.
	Echoes(ctx context.Context, hashes ...[32]byte) ([]EchoRow, error)
	// Statements returns what devices of accounts have said about keys and waits
	// for their own to be verified; of all accounts if none is named.
	Statements(ctx context.Context, jids ...string) ([]StatementRow, error)
	// Commit writes everything in c, durably, or nothing. When it returns an
	// error other than ErrFenced and ErrClosed, the caller may try again; the
	// store has then made sure that the first attempt has had no effect.
	Commit(ctx context.Context, c *Changes) error
	// Close gives the account up. A store that can lose it before has a method
	// Lost() <-chan struct{}, whose channel is closed then.
	Close() error
}

// State is what a Manager starts from.
type State struct {
	JID     string // canonical bare JID that the store was opened for
	Account []byte // record of the account; nil if there is none
	Inbox   uint64 // highest sequence number ever used in the inbox
	Outbox  uint64 // highest sequence number ever used in the outbox
	// RolledBack: the store has found itself older than it once was: somebody
	// has restored a copy. See Manager.Quarantine.
	RolledBack bool
	// AnchorMissing: what would have told so is gone, so that nobody knows.
	AnchorMissing bool
}

// Accounts is the answer to a question about several accounts.
type Accounts struct {
	Contacts []Contact
	Devices  []Device
	Trust    []TrustRecord
}

// Changes is all that one message, or one piece of upkeep, does to a store. It
// is plain data. Removals are done before insertions; a row that exists is
// overwritten.
type Changes struct {
	Account []byte // new record of the account; nil: unchanged

	PreKeys     []PreKeyRow
	DropPreKeys []PreKeyID

	// Sessions that are archived (Archived > 0) stand before the one that
	// becomes current: at no point have two of a peer been current.
	Sessions     []SessionRow
	DropSessions []uint64 // with their skipped message keys

	Skipped     []SkippedRow
	DropSkipped []SkippedID
	TrimSkipped []Trim // done last
	Ended       []EndedChain
	PruneEnded  time.Time // drop marks of chains that ended before; zero: none

	Contacts     []Contact
	DropContacts []string // JIDs: the contact, the decisions about its keys, and its statements
	Devices      []Device
	DropDevices  []Peer
	Trust        []TrustRecord

	Inbox       []InboxRow
	DropInbox   []uint64
	Outbox      []OutboxRow
	DropOutbox  []uint64
	Journal     []JournalRow
	DropJournal []uint64
	Owed        []OwedRow
	DropOwed    []OwedID
	Cursors     []Cursor
	DropCursors []string // archives

	Occupants     []OccupantRow
	DropOccupants []OccupantID
	Echoes        []EchoRow
	DropEchoes    [][32]byte

	Statements     []StatementRow
	DropStatements []StatementID

	// Renewed: nothing is left of the sending state of before, so that
	// State.RolledBack need not be told any more.
	Renewed bool

	// Within runs inside the transaction, before anything is written. It may
	// write with tx and add to the changes; an error undoes everything. tx is
	// a *sql.Tx in sqlstore; a store without transactions of that kind fails
	// with ErrNoTransaction.
	Within func(ctx context.Context, tx any, c *Changes) error
}

// empty reports whether there is nothing to commit.
func (c *Changes) empty() bool {
	return c.Account == nil && c.Within == nil && c.PruneEnded.IsZero() &&
		len(c.PreKeys)+len(c.DropPreKeys)+len(c.Sessions)+len(c.DropSessions)+
			len(c.Skipped)+len(c.DropSkipped)+len(c.TrimSkipped)+len(c.Ended)+
			len(c.Contacts)+len(c.Devices)+len(c.DropDevices)+len(c.Trust)+
			len(c.Inbox)+len(c.DropInbox)+len(c.Outbox)+len(c.DropOutbox)+
			len(c.Journal)+len(c.DropJournal)+len(c.Owed)+len(c.DropOwed)+len(c.Cursors)+len(c.DropCursors)+
			len(c.Occupants)+len(c.DropOccupants)+len(c.Echoes)+len(c.DropEchoes)+
			len(c.Statements)+len(c.DropStatements) == 0
}

// PreKeyRow is an own one-time pre key.
type PreKeyRow struct {
	Version Version
	ID      uint32
	Private [32]byte // secret
	// Used is when it was used; zero while it is published. A used one is kept
	// while the archive is caught up with.
	Used time.Time
}

// PreKeyID names an own pre key.
type PreKeyID struct {
	Version Version
	ID      uint32
}

// SessionRow is a session.
type SessionRow struct {
	ID uint64 // random, 63 bits
	Peer
	// Archived is 0 for the current session of the peer; for the others it
	// rises with the time they were replaced.
	Archived uint64
	Record   []byte // secret; at most 400 bytes
}

// SkippedID names a skipped message key.
type SkippedID struct {
	Session uint64
	Ratchet [32]byte // public ratchet key of the chain
	N       uint32   // number of the message in its chain
}

// SkippedRow is a skipped message key. Within a session, rows are ordered by
// the order in which they were committed.
type SkippedRow struct {
	SkippedID
	Key [32]byte // secret
}

// Trim keeps the newest skipped message keys of a session.
type Trim struct {
	Session uint64
	Keep    int
}

// ChainID names a receiving chain of a peer.
type ChainID struct {
	Peer
	Ratchet [32]byte
}

// EndedChain tells a replayed message from one that cannot be opened after its
// chain is gone. Of a dropped session that we have begun there is another, with
// the ephemeral key of its key exchange in the place of the ratchet key.
type EndedChain struct {
	ChainID
	Next uint32 // number of the first message of the chain that was never received; 0 with an ephemeral key
	When time.Time
}

// InboxRow is a decrypted message on its way to the application.
type InboxRow struct {
	Seq      uint64
	Event    string // stable event id
	Stanza   []byte // secret: the plain stanza as the application reads it
	Received time.Time
	Attempts int  // times it was handed over without being acknowledged
	Dead     bool // handed over too often; kept, not delivered
}

// OutboxRow is a stanza on its way to the server: the exact bytes.
type OutboxRow struct {
	Seq     uint64
	ID      string // stanza id
	Chat    string // bare JID it is addressed to
	Stanza  []byte
	Devices []Peer // whom it was encrypted for
	Created time.Time
}

// JournalRow is a message that could not be opened when it came.
type JournalRow struct {
	ID       uint64 // rises with the order of arrival
	From     Address
	Reason   string
	Stanza   []byte
	Received time.Time
}

// OwedKind is a kind of work that is owed. Its values are stored.
type OwedKind int

// The kinds of owed work.
const (
	OwedCompletion OwedKind = 1 // empty message that ends the repetition of a key exchange
	OwedHeartbeat  OwedKind = 2 // empty message that moves the ratchet on
	OwedInvite     OwedKind = 3 // omemo:2 envelope with empty content
	OwedBundle     OwedKind = 4 // publish the bundle of Peer.Version
	OwedDevices    OwedKind = 5 // fetch lists and bundle of Peer and compare
	OwedSession    OwedKind = 6 // empty message that begins a session, where the device's messages find none
)

// OwedID names a piece of owed work. Session is set for completions and
// heartbeats: they go out in the session that received the message.
type OwedID struct {
	Kind OwedKind
	Peer
	Session uint64
}

// OwedRow is a piece of owed work.
type OwedRow struct {
	OwedID
	Since time.Time
}

// Cursor is a position in an archive.
type Cursor struct {
	Archive  string // JID of the archive
	Position string // id of the last message that was committed
	When     time.Time
}

// StatementID names what a device has said about a key.
type StatementID struct {
	JID         string      // account of the device
	Fingerprint Fingerprint // its key
	Owner       string      // account of the key that the statement is about
	Key         Fingerprint
}

// StatementRow is a statement of a trust message (XEP-0450) that waits for the key
// of the device which has made it to be verified.
type StatementRow struct {
	StatementID
	Trusted bool
	Stated  time.Time // as the message says
}
