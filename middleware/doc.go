// Package middleware encrypts the messages of programs written on mellium.im/xmpp
// and decrypts those they receive (OMEMO, XEP-0384, both versions in use), without
// any other change to the program than three statements:
//
//	store, err := sqlite.Open(ctx, "bot.db", addr.Bare().String())
//	om, err := middleware.New(ctx, middleware.Config{Store: store})
//	session, err = om.Wrap(ctx, session)
//
// [Wrap] puts a second session in front of the real one and returns it. All that
// the program sends through it, by whichever method of the session or of its
// handlers, passes the middleware as whole stanzas; so does all that arrives.
//
// # The way out
//
// A message waits in the queue of its recipient; its class and the [Policy] say
// whether it must be encrypted; device lists and missing bundles are fetched; it
// is sealed for every trusted device, rendered, committed together with the
// ratchets, and only then written. What fails comes back to the program as an
// error stanza and as an [Event]. There is no way back into plain text.
//
// # The way in
//
// A message is read whole, under limits; where it comes from is checked; it is
// unwrapped if it is a carbon or a result of an archive; its key is opened, its
// content verified; everything is committed, and the plain stanza is handed to
// the program in the order of the stream, with [Info] as last child. It stays in
// the store until the program's handler has returned.
//
// # Files
//
// middleware.go, identity.go and link.go hold an account and one connection of it.
// class.go decides what a stanza is; outgoing.go, incoming.go, arrival.go and
// undecryptable.go are the two ways, rewrite.go the forms a message has on them;
// beside.go says what of a message leaves beside them;
// ask.go asks about undecided devices, decide.go and trustmessage.go decide
// about keys and tell others; directory.go keeps device lists, resources.go says
// when one may have changed unheard; setup.go,
// advert.go, ownlist.go, withdraw.go, leaving.go, reannounce.go, overlap.go and unheard.go
// bring our own device in order and keep it so, life.go, prune.go, revoke.go,
// optout.go and catchup.go are what an application may do with it and others;
// worker.go does what is owed; inbox.go and outbox.go are what survives a crash; archiverun.go
// catches up with an archive, hearing.go says when, archivequery.go asks it,
// archivepage.go commits and delivers what it answers, intake.go keeps what comes
// live behind that, owncopy.go and ownclear.go recognise what was sent here, and
// recall.go fills pages in that were read before; announce.go
// and request.go speak with the server; event.go, observe.go and trace.go tell what
// happens.
package middleware
