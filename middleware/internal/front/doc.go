// Package front puts a second session in front of a negotiated client-to-server
// session, and itself between the two. The application gets the second one, the
// front session: a real *xmpp.Session over a pipe in memory. Whatever the
// application writes to it, by whichever method, arrives at a Handler as whole
// elements, and so does everything that comes from the wire; the Handler decides
// what goes on to the other side.
//
// It knows how mellium works and nothing of OMEMO.
//
//	application ─ front session ─ pipe ─┬─ Outgoing ─→ Send ────┬─ real session ─ wire
//	                                    └─ Deliver ←── Incoming ┘
//
// Three goroutines run it. The parser reads what the application writes and
// queues it; the dispatcher takes it from the queue, one element after the
// other, to Handler.Outgoing; the wire reader takes what arrives to
// Handler.Incoming and waits for nobody. A fourth waits for the end.
//
// # Acknowledgement
//
// One Read of the pipe returns bytes of at most one stanza. mellium's Serve
// reads on only after the handler of the stanza before has returned, so the Read
// of the next stanza acknowledges the one before. A handler that fails or panics
// is followed by no Read.
//
// # The end
//
// The front ends when the application closes its stream or its connection, when
// the wire ends, when Fail is called, or when the application is too slow. In
// each case the application can write no more, what it has written is taken to
// Handler.Outgoing (Config.CloseTimeout), the real stream is closed, and so is
// the real connection when the peer has closed its stream too
// (Config.CloseTimeout again). Then no goroutine is left.
package front
