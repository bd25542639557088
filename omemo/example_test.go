package omemo_test

import (
	"context"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// Two managers talk, without XML and without a network between them.
func ExampleManager() {
	ctx := context.Background()
	juliet, err := omemo.NewManager(ctx, memstore.New("juliet@example.org"), omemo.Options{})
	if err != nil {
		panic(err)
	}
	romeo, err := omemo.NewManager(ctx, memstore.New("romeo@example.net"), omemo.Options{})
	if err != nil {
		panic(err)
	}

	// What juliet would learn from the server: romeo's device list and a bundle.
	device, err := romeo.Device(ctx)
	if err != nil {
		panic(err)
	}
	if err := juliet.SetList(ctx, device.JID, omemo.V2, []omemo.DeviceID{device.Device}); err != nil {
		panic(err)
	}
	bundle, err := romeo.Bundle(ctx, omemo.V2)
	if err != nil {
		panic(err)
	}

	render := func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		return []omemo.Outgoing{{ID: "1", Chat: device.JID, Stanza: []byte("<message>…</message>")}}, nil
	}
	text := omemo.Plaintext{V2: []byte("O Romeo, Romeo!")}
	sealed, err := juliet.Encrypt(ctx, text, []string{device.JID}, render, bundle)
	if err != nil {
		panic(err)
	}
	fmt.Println("key exchange sent along:", sealed.Devices[0].Exchange)

	verify := func(o *omemo.Opened) (omemo.Delivery, error) {
		return omemo.Delivery{Stanza: o.Plaintext}, nil
	}
	opened, err := romeo.Decrypt(ctx, sealed.Messages[0], verify)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s, %s session\n", opened.Plaintext, opened.Session.Initiation())
	// Output:
	// key exchange sent along: true
	// O Romeo, Romeo!, passive session
}

// A person compares fingerprints and says so. Keys that turn up later are not
// trusted blindly any more.
func ExampleManager_SetTrust() {
	ctx := context.Background()
	m, err := omemo.NewManager(ctx, memstore.New("juliet@example.org"), omemo.Options{})
	if err != nil {
		panic(err)
	}
	shown := "8e982734d2bbf4d70e347e358dcb1665627709c8a5420f751ddc6214ee1af71d"
	compared, err := omemo.ParseFingerprint(shown)
	if err != nil {
		panic(err)
	}
	if err := m.SetTrust(ctx, "romeo@example.net", compared, omemo.Verified); err != nil {
		panic(err)
	}
	later := omemo.Address{JID: "romeo@example.net", Device: 31415}
	trust, err := m.TrustOf(ctx, later, omemo.Fingerprint{1})
	if err != nil {
		panic(err)
	}
	fmt.Println(compared)
	fmt.Println(trust)
	// Output:
	// 8e982734 d2bbf4d7 0e347e35 8dcb1665 627709c8 a5420f75 1ddc6214 ee1af71d
	// undecided
}
