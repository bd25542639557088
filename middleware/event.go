package middleware

import (
	"errors"
	"fmt"

	"example.org/omellium/omemo"
)

// EventKind is a kind of event.
type EventKind int

// The events. What an event carries besides its kind stands behind it.
const (
	// About messages that go out.
	Accepted   EventKind = iota + 1 // committed, will leave: Account, ID, Result
	SendFailed                      // did not leave: Account, ID, Err, Result if there is one
	NotSent                         // signalling dropped because no device reads it: Account, ID

	// UndecidedDevices: devices get no messages to a chat because nobody has decided
	// about their keys. Once for each key and chat in a session: Account (the
	// chat), ID, Result (these devices alone).
	UndecidedDevices

	// About messages that come in.
	NotForUs          // no key for this device, as in trust messages for others: Account, Device
	Undecryptable     // refused: Account, Device, ID, Err
	Duplicate         // decrypted before: Account, Device, ID
	PlaintextReceived // came in clear and was not delivered: Account, ID
	SignallingDropped // receipt, marker or chat state that came in clear: Account, ID
	Untrusted         // from a device that is not trusted enough, not delivered: Account, Device, Version, Fingerprint, ID
	Refused           // broke a rule of the protocol or a limit: Account, ID, Err
	DeadLetter        // handed over too often, never again: Err names the message

	// About devices.
	NewDevice        // Account, Device, Version, Fingerprint
	IdentityChanged  // Account, Device, Version, Fingerprint (the new one; the known one stays)
	IdentityShared   // the key of another account, undecided for this one: Account, Device, Version, Fingerprint
	KeyVerified      // a trust message has made a key verified: Account, Fingerprint; Device and Version if it is known
	KeyDistrusted    // a trust message has made a key distrusted: likewise
	SessionBuilt     // Account, Device, Version
	SessionReplaced  // Account, Device, Version
	SessionConfirmed // Account, Device, Version
	ListPublished    // our own device list was published: Version
	ListChanged      // a device list was learnt: Account, Version
	OwnDeviceAdded   // a device stands on our own list that was on none, be it unknown or one that was removed: Account, Device, Version
	OwnDeviceRemoved // our device was missing on our own list, and was put back: Version

	OwnDeviceContested // our device was removed so often that it is not put back for now: Version
	DeviceStale        // not heard of for long, not sent to any more: Account, Device, Version
	DeviceReturned     // a stale device was heard of: Account, Device, Version
	OptOutAsked        // a contact wants to go on in plain text; sending waits for AnswerOptOut: Account, Device
	OptOutRefused      // a contact wants to go on in plain text, and does not get it: Account, Device

	// About rooms.
	RoomReady        // the members of a room are known: Account (the room), Total; see Middleware.RoomMembers
	RoomUnfit        // a room that cannot be written to: Account (the room), Err
	RecipientAdded   // messages to a room are for this account, too, from now on: Account, Room
	RecipientRemoved // not any more: Account, Room
	UnknownOccupant  // nobody knows who has sent a message through a room, not delivered, or not yet: Account (the room), Device, ID

	// About ourselves.
	StateRolledBack  // the store is older than it was: all sessions begin anew
	AnchorMissing    // the file is gone that tells a restored store from the present one (sqlstore.WithAnchor)
	Published        // own bundle was published and read back: Version
	Withdrawn        // a version cannot be served, and was taken off our list: Version, Err
	Progress         // of long work, the first publication, many bundles, or the members of a room: Account, Done, Total
	CatchingUp       // an archive is being read; CaughtUp ends it: Account (the archive), Done, Total if it is known
	ArchiveGap       // an archive does not know the last message any more, and is read by time, or refuses what could not wait: Account (the archive), Err
	ArchiveTruncated // an archive was not read to its end: Account (the archive), Done, Err
	CaughtUp         // archives have been caught up with: used pre keys are deleted
	Trouble          // something failed and will be tried again: Err
)

var eventNames = map[EventKind]string{
	Accepted: "accepted", SendFailed: "send failed", NotSent: "not sent", NotForUs: "not for us",
	Undecryptable: "undecryptable", Duplicate: "duplicate", PlaintextReceived: "plain text received",
	SignallingDropped: "signalling dropped", Untrusted: "untrusted", IdentityShared: "identity shared",
	OwnDeviceAdded:   "own device added",
	UndecidedDevices: "undecided devices", KeyVerified: "key verified", KeyDistrusted: "key distrusted",
	Refused: "refused", DeadLetter: "dead letter", NewDevice: "new device", IdentityChanged: "identity changed",
	SessionBuilt: "session built", SessionReplaced: "session replaced", SessionConfirmed: "session confirmed",
	ListPublished: "list published", ListChanged: "list changed", OwnDeviceRemoved: "own device removed", OwnDeviceContested: "own device contested",
	DeviceStale: "device stale", DeviceReturned: "device returned", OptOutAsked: "opt-out asked", OptOutRefused: "opt-out refused",
	RoomReady: "room ready", RoomUnfit: "room unfit", RecipientAdded: "recipient added",
	RecipientRemoved: "recipient removed", UnknownOccupant: "unknown occupant",
	ArchiveGap: "archive gap", ArchiveTruncated: "archive truncated",
	Withdrawn: "withdrawn", Progress: "progress", CatchingUp: "catching up", CaughtUp: "caught up", StateRolledBack: "state rolled back", AnchorMissing: "anchor missing", Published: "published", Trouble: "trouble",
}

// String returns the name of the kind.
func (k EventKind) String() string {
	if name, ok := eventNames[k]; ok {
		return name
	}
	return fmt.Sprintf("event(%d)", int(k))
}

// Event is something that an application may want to know. It never holds
// content or secrets.
type Event struct {
	Kind        EventKind
	Account     string // bare JID
	Room        string // bare JID
	Device      omemo.DeviceID
	Version     omemo.Version
	Fingerprint omemo.Fingerprint
	ID          string // stanza id
	Err         error
	Result      *Result
	Done, Total int // steps of long work
}

// Errors of this package.
var (
	// ErrReplaced: another session of the same account was wrapped.
	ErrReplaced = errors.New("middleware: session was replaced by a newer one of the account")
	// ErrClosed: the Middleware was closed.
	ErrClosed = errors.New("middleware: closed")
	// ErrOffline: there is no session to send on.
	ErrOffline = errors.New("middleware: no session")
	// ErrRoomUnsupported is what ErrRoomAnonymous, ErrRoomOpen and ErrRoomTooLarge
	// unwrap to: a room that cannot be written to encrypted.
	ErrRoomUnsupported = errors.New("middleware: room cannot be encrypted")
	// ErrNotJoined: a message to a room that the program has not joined through
	// the session.
	ErrNotJoined = errors.New("middleware: room was not joined")
	// ErrRoomChanged: who is a member of a room has changed, and is not known yet
	// where it cannot be waited for: the answer of Delivery.Send, in the first
	// moments.
	ErrRoomChanged = errors.New("middleware: members of the room have changed")
	// ErrRoomAnonymous: a room that does not show its occupants' addresses, so
	// that nobody knows whom to encrypt for.
	ErrRoomAnonymous = fmt.Errorf("%w: it is anonymous", ErrRoomUnsupported)
	// ErrRoomOpen: a room that everybody can join, so that nobody knows whom to
	// encrypt for.
	ErrRoomOpen = fmt.Errorf("%w: it is open to everybody", ErrRoomUnsupported)
	// ErrRoomTooLarge: a room of more than 1000 members.
	ErrRoomTooLarge = fmt.Errorf("%w: it has too many members", ErrRoomUnsupported)
	// ErrRoomMember: a member of a room cannot be served, and Config.StrictRooms
	// is set.
	ErrRoomMember = errors.New("middleware: member of the room cannot be served")
	// ErrOccupant: nobody knows who is behind a nick.
	ErrOccupant = errors.New("middleware: unknown occupant of a room")
	// ErrTooLarge: the encrypted stanza would exceed Config.MaxStanza.
	ErrTooLarge = errors.New("middleware: encrypted stanza too large")
	// ErrNotReady: own list or bundle could not be published.
	ErrNotReady = errors.New("middleware: own device could not be published")
	// ErrRolledBack: a message was dropped because the store had been rolled back.
	ErrRolledBack = errors.New("middleware: message of a state that was rolled back")
	// ErrDistrusted: a message that waited to be sent again was dropped, because a
	// key that it is encrypted for was distrusted meanwhile. If it was written before
	// the connection was lost, it may have arrived.
	ErrDistrusted = errors.New("middleware: message for a key that is distrusted now")
	// ErrArchiveGap: messages between the last that was read and the oldest in the
	// archive may be lost.
	ErrArchiveGap = errors.New("middleware: archive has lost the position")
	// ErrArchiveTruncated: more than Config.CatchUpLimit messages in an archive.
	ErrArchiveTruncated = errors.New("middleware: too much in the archive for one connection")
	// ErrArchiveLoop: an archive that repeats itself, or never comes to an end.
	ErrArchiveLoop = errors.New("middleware: archive does not come to an end")
	// ErrOwnStore: New was given no store.
	ErrOwnStore = errors.New("middleware: a store is needed")
	// ErrMessage: a message that cannot be sent as it is.
	ErrMessage = errors.New("middleware: message cannot be sent")

	errPanic = errors.New("middleware: internal error")
)

func (m *Middleware) emit(e Event) {
	m.config.Logger.Debug("omemo", "event", e)
	m.traces.event(e)
	if m.config.Counters != nil {
		m.config.Counters.Add(e.Kind.String(), 1)
	}
	if m.config.OnEvent != nil {
		m.config.OnEvent(e)
	}
}

// coreEvents passes events of the core on.
func (m *Middleware) coreEvents(events []omemo.Event) {
	kinds := map[omemo.EventKind]EventKind{
		omemo.NewDevice: NewDevice, omemo.SessionBuilt: SessionBuilt, omemo.SessionReplaced: SessionReplaced,
		omemo.SessionConfirmed: SessionConfirmed, omemo.IdentityChanged: IdentityChanged,
		omemo.IdentityShared: IdentityShared, omemo.KeyVerified: KeyVerified, omemo.KeyDistrusted: KeyDistrusted,
		omemo.DeviceStale: DeviceStale, omemo.DeviceReturned: DeviceReturned,
	}
	for _, e := range events {
		m.emit(Event{
			Kind: kinds[e.Kind], Account: e.Peer.JID, Device: e.Peer.Address.Device, Version: e.Peer.Version,
			Fingerprint: e.Fingerprint,
		})
	}
}
