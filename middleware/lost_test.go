package middleware_test

import (
	"encoding/xml"
	"errors"
	"testing"
	"testing/synctest"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
)

// A store that goes to another owner ends the session, without a message that
// would have to come first and could not be kept; and no other can be begun.
func TestLostStoreEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo)
		store := memstore.New(romeo)
		c := chat(omemo.V2)
		c.Store = store
		a := load(t, romeo, c)
		session, err := a.om.Wrap(t.Context(), login(t, srv, romeo))
		ok(t, err)
		served := make(chan error, 1)
		go func() {
			served <- session.Serve(xmpp.HandlerFunc(func(xmlstream.TokenReadEncoder, *xml.StartElement) error { return nil }))
		}()
		synctest.Wait()
		select {
		case err := <-served:
			t.Fatalf("ended before: %v", err)
		default:
		}
		next := store.Reopen()
		if err := <-served; !errors.Is(err, omemo.ErrFenced) {
			t.Errorf("ended with %v", err)
		}
		if e := a.awaitEvent(middleware.Trouble); !errors.Is(e.Err, omemo.ErrFenced) {
			t.Errorf("event: %v", e.Err)
		}
		if _, err := a.om.Wrap(t.Context(), login(t, srv, romeo)); !errors.Is(err, omemo.ErrFenced) {
			t.Errorf("wrapped again: %v", err)
		}
		// The next owner is not disturbed by that.
		if _, err := next.Load(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
