package omemo

import "errors"

// Errors of a message that came in. ErrRefused is the one error for every
// cryptographic refusal: which check failed is nobody's business.
var (
	ErrNotForUs        = errors.New("omemo: message holds no key for this device")
	ErrOwnMessage      = errors.New("omemo: message was sent by this device")
	ErrNoSession       = errors.New("omemo: no session with the sending device")
	ErrDuplicate       = errors.New("omemo: message was already decrypted")
	ErrKeyExchange     = errors.New("omemo: key exchange names a key that this device does not have")
	ErrIdentityChanged = errors.New("omemo: device presents another identity key than before")
	ErrRefused         = errors.New("omemo: message refused")
	// ErrVerify: the content was refused by the caller. It wraps the reason.
	ErrVerify = errors.New("omemo: content refused")
)

// Errors of a message that was to go out.
var (
	ErrNoDevices = errors.New("omemo: recipient has no device that can be served")
	ErrUntrusted = errors.New("omemo: no device of the recipient is trusted")
	ErrNoBundle  = errors.New("omemo: no bundle of the device")
	ErrBundle    = errors.New("omemo: bundle refused")
	ErrNoForm    = errors.New("omemo: message has no form for the version that serves the device")
	ErrDowngrade = errors.New("omemo: device has spoken omemo:2 and is now listed for legacy only")
)

// Errors of a store.
var (
	// ErrCommit: nothing was written, and nothing may leave. It wraps the reason.
	ErrCommit = errors.New("omemo: commit failed")
	// ErrNoAccount: the store holds no account yet.
	ErrNoAccount = errors.New("omemo: store holds no account")
	// ErrWrongAccount: the store belongs to another account.
	ErrWrongAccount = errors.New("omemo: store belongs to another account")
	// ErrLocked: another process owns the database.
	ErrLocked = errors.New("omemo: store is in use by another process")
	// ErrFenced: this owner's lease was taken over; nothing was written, and
	// nothing will be.
	ErrFenced = errors.New("omemo: store was taken over by another owner")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("omemo: store is closed")
	// ErrNewer: the database was written by a newer version of this module.
	ErrNewer = errors.New("omemo: store was written by a newer version")
	// ErrExport: what is to be imported is not an export.
	ErrExport = errors.New("omemo: not an export")
	// ErrCorrupt: a stored record cannot be read.
	ErrCorrupt = errors.New("omemo: stored record is damaged")
	// ErrNoTransaction: the store has no transaction to run a function in.
	ErrNoTransaction = errors.New("omemo: store has no database transaction")
)

// DeviceError is the reason why one device was not served.
type DeviceError struct {
	Peer Peer
	Err  error
}

func (e *DeviceError) Error() string { return e.Peer.String() + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *DeviceError) Unwrap() error { return e.Err }
