package media

import "errors"

// Errors of this package. Others come from the network and the file system.
var (
	// ErrForged: what was fetched is not the file that the sender has shared. It is
	// damaged, cut short, or another one. Nothing of it can be used.
	ErrForged = errors.New("media: not the file that was shared")
	// ErrLink: an aesgcm:// URL, or the address of a file, that is refused.
	ErrLink = errors.New("media: link refused")
	// ErrSharing: a <file-sharing/> element that is refused.
	ErrSharing = errors.New("media: file sharing refused")
	// ErrNotEncrypted: a <file-sharing/> element without any source that is encrypted
	// in a way that we know and can be fetched by HTTPS.
	ErrNotEncrypted = errors.New("media: no encrypted source")
	// ErrSize: a file is not as long as was said, or longer than can be encrypted.
	ErrSize = errors.New("media: wrong size")
	// ErrTooLarge: a file is larger than the server or the program allows.
	ErrTooLarge = errors.New("media: file too large")
	// ErrNoService: the server offers no upload of files.
	ErrNoService = errors.New("media: no upload service")
	// ErrUpload: the server did not take a file.
	ErrUpload = errors.New("media: upload refused")
	// ErrFetch: a file could not be fetched from its server.
	ErrFetch = errors.New("media: not fetched")
	// ErrAddress: a file is stored at an address that a Fetcher does not connect to.
	ErrAddress = errors.New("media: address refused")
)
