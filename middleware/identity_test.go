package middleware_test

import (
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// TestADeviceIDThatIsTakenWhileTheWireIsRead: another device of the account has
// published our device id before us. We take another one, while messages come in
// and the application asks for it.
func TestADeviceIDThatIsTakenWhileTheWireIsRead(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	other := client(t, srv, romeo)
	c := chat(omemo.V2)
	c.Offline = true
	a := load(t, romeo, c)
	taken := device(t, a)
	b, err := newManager(t, romeo).Bundle(t.Context(), omemo.V2)
	ok(t, err)
	b.Owner.Device = taken
	ok(t, bundle.Publish(t.Context(), other, b))
	list := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: taken}}}
	ok(t, devicelist.Publish(t.Context(), other, list))

	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if u, err := a.om.OwnURI(t.Context()); err != nil || len(u.Devices) != 1 {
				t.Errorf("%v, %v", u, err)
				return
			}
		}
	}()
	a.attach(login(t, srv, romeo), nil)
	for range 20 {
		ok(t, devicelist.Publish(t.Context(), other, listed(t, other, "", omemo.V2))) // the reader looks for us on it
	}
	a.awaitVersion(middleware.ListPublished, omemo.V2)
	close(stop)
	<-done
	now := device(t, a)
	u, err := a.om.OwnURI(t.Context())
	if now == taken || err != nil || u.Devices[0].ID != now {
		t.Errorf("device %d, was %d; URI %v, %v", now, taken, u, err)
	}
	// The other device may have published what it had read before us.
	until(t, "both devices are listed", func() bool {
		ids := listed(t, other, "", omemo.V2)
		return ids.Contains(now) && ids.Contains(taken)
	})
}
