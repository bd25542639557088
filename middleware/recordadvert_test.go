package middleware_test

import (
	"errors"
	"reflect"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// What is advertised can be read in the store when the program has stopped.
func TestAdvertIsRecorded(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	both := []omemo.Version{omemo.Legacy, omemo.V2}
	var a *program
	for _, c := range []struct {
		name   string
		config middleware.Config
		want   omemo.Advert
	}{
		{"default", middleware.Config{}, omemo.Advert{Versions: both, SignedPreKeyPeriod: omemo.SignedPreKeyPeriod}},
		{
			"label and period", middleware.Config{Label: "orchard", SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod},
			omemo.Advert{Versions: both, Label: "orchard", SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod},
		},
		{
			"legacy, whose list has no labels", middleware.Config{Versions: []omemo.Version{omemo.Legacy}, Label: "orchard"},
			omemo.Advert{Versions: []omemo.Version{omemo.Legacy}, SignedPreKeyPeriod: omemo.SignedPreKeyPeriod},
		},
		{"omemo:2", middleware.Config{Versions: []omemo.Version{omemo.V2}}, omemo.Advert{Versions: []omemo.Version{omemo.V2}, SignedPreKeyPeriod: omemo.SignedPreKeyPeriod}},
		{"both again", middleware.Config{}, omemo.Advert{Versions: both, SignedPreKeyPeriod: omemo.SignedPreKeyPeriod}},
	} {
		if a != nil {
			a.om.Close()
			c.config.Store = reopened(a.store)
		}
		a = connected(t, srv, romeo, c.config)
		if got, recorded, err := a.om.Manager().Advert(t.Context()); err != nil || !recorded || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %t, %v", c.name, got, recorded, err)
		}
	}
	ok(t, a.om.PurgeVersion(t.Context(), omemo.Legacy))
	if got, _, err := a.om.Manager().Advert(t.Context()); err != nil || !reflect.DeepEqual(got.Versions, []omemo.Version{omemo.V2}) {
		t.Errorf("a version was purged: %+v, %v", got, err)
	}
}

// A label that nobody may have is refused before anything is published.
func TestLabelIsRefusedFirst(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	p := load(t, romeo, middleware.Config{Label: "line\nbreak"})
	if _, err := p.om.Wrap(t.Context(), login(t, srv, romeo)); !errors.Is(err, omemo.ErrLabel) {
		t.Errorf("wrap: %v", err)
	}
	for _, s := range srv.Wire() {
		if fromTo(romeo, "<publish")(s) {
			t.Errorf("published: %s", s.XML)
		}
	}
}
