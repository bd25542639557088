package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// bundle checks our bundle as others get it.
func (d *doctor) bundle(ctx context.Context, v omemo.Version) error {
	theirs, err := readBundle(ctx, d.pep, d.own.Device, v)
	if unread(err) {
		d.unread("bundle", v, err)
		return nil
	}
	if !d.serves(v) {
		fault := ""
		if !errors.Is(err, pep.ErrNone) {
			fault = "there is one, but its program does not serve this version"
		}
		d.add("bundle withdrawn", v, fault, func(ctx context.Context) error { return bundle.Retract(ctx, d.pep, v, d.own.Device) })
		return nil
	}
	ours, e := d.manager.Bundle(ctx, v)
	if e != nil {
		return e
	}
	publish := func(ctx context.Context) error {
		ours, err := d.manager.Bundle(ctx, v)
		if err != nil {
			return err
		}
		return bundle.Publish(ctx, d.pep, ours)
	}
	theirs.Owner = ours.Owner
	ahead := d.rolledBack
	if err == nil && !ahead {
		if ahead, e = d.manager.Ahead(ctx, &theirs); e != nil {
			return e
		}
	}
	if ahead { // an old copy must not take the place of what is newer
		publish = nil
	}
	if err := d.signedPreKey(ctx, v, publish); err != nil {
		return err
	}
	if err != nil {
		d.add("bundle", v, err.Error(), publish)
		return nil
	}
	d.add("bundle", v, "", nil)
	check := func(name, fault string, sound bool) {
		if sound {
			fault = ""
		}
		d.add(name, v, fault, publish)
	}
	check("bundle identity", "it is not the identity key of this device", theirs.IdentityKey == ours.IdentityKey)
	check("bundle signature", "it does not hold: nobody can use it", theirs.Verify() == nil)
	check("pre keys", strconv.Itoa(len(theirs.PreKeys))+" are too few", len(theirs.PreKeys) >= fewestPreKeys)
	if ahead && !d.rolledBack {
		check("bundle is ours", "it names keys that the store has not made yet: the store is an old copy, or two programs use one device", false)
		return nil
	}
	check("bundle is ours", "it holds other keys than the store", theirs.SameKeys(ours))
	return nil
}

// signedPreKey checks how old the signed pre key of a version is, by the period that
// the program has chosen.
func (d *doctor) signedPreKey(ctx context.Context, v omemo.Version, publish func(context.Context) error) error {
	due, err := d.manager.SignedPreKeyDue(ctx, v)
	if err != nil {
		return err
	}
	fault, fix := "", publish
	if !time.Now().Before(due) {
		fault = "to be rotated since " + due.Format(time.DateOnly)
	}
	if publish != nil {
		fix = func(ctx context.Context) error {
			_, err := d.manager.Upkeep(ctx) // rotates what is due
			return errors.Join(err, publish(ctx))
		}
	}
	d.add("signed pre key", v, fault, fix)
	return nil
}
