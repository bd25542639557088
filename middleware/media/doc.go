// Package media shares files with the devices that a message is encrypted to. A
// file is encrypted once, with a key of its own, and uploaded to an HTTP server
// (XEP-0363); the key travels in the encrypted message:
//
//	file, err := (&media.Uploader{Session: session}).UploadFile(ctx, "summit.jpg")
//	err = session.Send(ctx, to.Wrap(file.TokenReader()))
//
// The message holds the file in both forms in use: an aesgcm:// URL as its body
// (XEP-0454), and <file-sharing/> (XEP-0447) with an encrypted source (XEP-0448)
// and metadata (XEP-0446). A device of omemo:2 gets both, within the envelope. A
// device of legacy gets the URL: that version encrypts the text of the body and
// nothing else, and the middleware sends nothing else. Both forms hold the key, so
// such a message must leave through a session that encrypts.
//
// A received message is decoded into a struct with a field of type [Received] for
// <file-sharing/>; if there is none, [ParseBody] reads the body. Nothing is fetched
// unless the program asks a [Fetcher] to: that tells the server named in the
// message, which the sender may own, the address of the program and when it reads.
//
// # What is promised
//
// Files of any size pass in constant memory. Nothing of a file is handed out
// before all of it was authenticated: [Fetcher.Save] writes to a temporary file
// that gets its name only then, and is removed otherwise (so does [File.Save], for a
// program that fetches by other means); a crash can leave one, with
// a leading dot and the ending .part, that has to be thrown away.
//
// The server that stores a file learns its size, the ending of its name, when it is
// fetched and from where; not its name, its type or its content. Whoever has the
// message can read the file for as long as it is stored: a file has no forward
// secrecy of its own.
//
// # Files
//
// key.go holds the ciphers and what a file is encrypted with; gcm.go and field.go
// are AES-GCM in pieces, encrypt.go, decrypt.go and cbc.go its two directions and
// the other cipher. link.go and sharing.go are the two forms of a file in a
// message, metadata.go and hash.go parts of the latter. service.go and upload.go
// speak with the server; fetch.go, address.go, save.go and name.go receive.
package media
