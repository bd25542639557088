// Package xmpptest is a small XMPP server inside the process, for tests and demos: what
// net/http/httptest is for HTTP.
//
//	srv, err := xmpptest.NewServer()
//	err = srv.AddAccount("romeo@example.net", "password")
//	session, err := srv.Client(ctx, "romeo@example.net/orchard", "password")
//
// It is not a server for the network: passwords are kept in clear, every limit is generous, nothing
// is stored on disk, and all of its traffic is kept in memory so that a test can read it.
//
// # What it serves
//
// Streams with SASL PLAIN, resource binding and, with [TLS], STARTTLS (RFC 6120); messages, presence,
// rosters and subscriptions (RFC 6121); service discovery (XEP-0030); ping (XEP-0199); entity
// capabilities (XEP-0115); message carbons (XEP-0280); personal eventing (XEP-0163, XEP-0060) with
// publish-options, node configuration, retraction and notifications filtered by "+notify". Every
// account's domain is served; there are no other servers to reach. Rooms (XEP-0045) are served at the
// domains that [Server.AddRooms] names: affiliations, configuration, nicks, history, subjects and
// private messages, but neither passwords nor moderation. [Archives] keeps messages (XEP-0313). Slots
// for files (XEP-0363) are given by the services that [Server.AddUploads] names. Stream management and
// explicit pubsub subscriptions are not served.
//
// Clients connect through an in-process connection ([Server.Dial], [Server.Client]) or over TCP on
// the loopback interface ([Server.Addr]). A server whose Addr was never called makes no system call,
// so that it can be used inside a testing/synctest bubble.
//
// A mellium client never sends the resource that it wants. The server therefore binds the resource
// of the address in the stream header when the request names none, and a random one otherwise. A
// new session with the address of an older one replaces it.
//
// # Looking and interfering
//
// [Server.Wire] returns every stanza that crossed a connection, exactly as it did, and
// [Server.Await] waits for one. A [Filter] sees each stanza before the server or a client does, and
// drops, delays, rewrites or repeats it. [Server.Inject] sends a client whatever a malicious server
// could, [Server.HangPEP] makes an account's pubsub service fall silent and [Server.Disconnect] cuts
// connections. [RefuseMaxItems] and [ForbidStrangers] are habits of real servers.
package xmpptest
