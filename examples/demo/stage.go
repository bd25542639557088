package main

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// stage is a scene that is being played.
type stage struct {
	*transcript
	srv   *xmpptest.Server
	typed []string
}

// say has one program send a text that the other reads, and checks what the one
// was told about it, what the server saw, and what the other was told.
func (st *stage) say(ctx context.Context, from, to *program, text string, v omemo.Version, exchange, whole bool) error {
	st.text("")
	st.line(from.name+" types", text)
	st.typed = append(st.typed, text)
	if err := from.say(ctx, to, text); err != nil {
		return err
	}
	m, err := to.read(ctx)
	if err != nil {
		return err
	}
	seen, err := st.seen(m.ID, from)
	if err != nil {
		return err
	}
	encrypted, err := checkSeen(seen, to.device, v, exchange)
	if err != nil {
		return err
	}
	if !whole {
		seen = encrypted
	}
	st.line("server sees", pretty(seen))
	if err := checkRead(m, text, from, v); err != nil {
		return fmt.Errorf("%s: %w", to.name, err)
	}
	st.line(to.name+" reads", m.Body)
	st.line("", fmt.Sprintf("in %s from device %d, its key %s", v, m.Info.Device, m.Info.Trust))
	return nil
}

// seen returns the stanza of that id that the server got from a program.
func (st *stage) seen(id string, from *program) (*stanza.Element, error) {
	for _, s := range st.srv.Wire() {
		if s.Direction != xmpptest.FromClient || s.Session != from.session.LocalAddr().String() {
			continue
		}
		e, err := parse(s)
		if err != nil {
			return nil, err
		}
		if value, _ := e.Attribute("id"); value == id && e.Is(stanza.NSClient, "message") {
			return e, nil
		}
	}
	return nil, fmt.Errorf("the server has no message %s of %s", id, from.name)
}

// sessions checks and prints who began the session, and whether it is confirmed.
func (st *stage) sessions(ctx context.Context, v omemo.Version, begins, other *program, confirmed bool) error {
	active, err := begins.with(ctx, v, other)
	if err != nil {
		return err
	}
	passive, err := other.with(ctx, v, begins)
	if err != nil {
		return err
	}
	switch {
	case active.Initiation() != omemo.Active || passive.Initiation() != omemo.Passive:
		return fmt.Errorf("session of %s is %s, of %s %s", begins.name, active.Initiation(), other.name, passive.Initiation())
	case active.Confirmed() != confirmed || !passive.Confirmed():
		return fmt.Errorf("session of %s confirmed: %t, of %s: %t", begins.name, active.Confirmed(), other.name, passive.Confirmed())
	case active.KeyExchange() != passive.KeyExchange():
		return errors.New("the sessions come from different key exchanges")
	case active.Fingerprint() != other.fingerprint || passive.Fingerprint() != begins.fingerprint:
		return errors.New("a session is held with another key than the other side's")
	}
	st.text("")
	if confirmed {
		st.line("session", fmt.Sprintf("%-8s%-9sconfirmed, by the answer", begins.name, active.Initiation()))
		return nil
	}
	st.line("session", fmt.Sprintf("%-8s%-9snot confirmed: the key exchange is repeated with every message\n%-8s%-9sconfirmed by nature",
		begins.name, active.Initiation(), other.name, passive.Initiation()))
	return nil
}

// invitation waits for the message that nobody typed: when content has gone both
// ways in legacy, a device that lists both versions is sent an omemo:2 envelope
// with nothing in it, and knows from then on that omemo:2 is understood here.
func (st *stage) invitation(ctx context.Context, a, b *program) (inviter, invited *program, err error) {
	var seen *stanza.Element
	first, err := st.srv.Await(ctx, func(s xmpptest.Stanza) bool {
		e, err := parse(s)
		if err != nil || s.Direction != xmpptest.FromClient || !e.Is(stanza.NSClient, "message") {
			return false
		}
		seen = e
		return e.Child(stanza.NSV2, "encrypted") != nil
	})
	if err != nil {
		return nil, nil, err
	}
	inviter, invited = a, b
	if first.Session == b.session.LocalAddr().String() {
		inviter, invited = b, a
	}
	encrypted, err := checkSeen(seen, invited.device, omemo.V2, true)
	if err != nil {
		return nil, nil, err
	}
	st.text("")
	st.line(inviter.name, "types nothing: both devices list omemo:2 as well, and now they try it")
	st.line("server sees", pretty(encrypted))
	_, err = invited.events.await(ctx, "the invitation", func(e middleware.Event) bool {
		return (e.Kind == middleware.SessionBuilt || e.Kind == middleware.SessionReplaced) &&
			e.Version == omemo.V2 && e.Device == inviter.device.Device
	})
	if err != nil {
		return nil, nil, err
	}
	st.line(invited.name, "reads nothing, and knows that the other side speaks omemo:2")
	return inviter, invited, nil
}

// proof checks that the server has seen none of the texts.
func (st *stage) proof() error {
	wire := st.srv.Wire()
	size, err := search(wire, st.typed)
	if err != nil {
		return err
	}
	st.text("")
	st.line("proof", fmt.Sprintf("%d texts were typed; %d stanzas with %d bytes crossed the wire, and none holds any of them",
		len(st.typed), len(wire), size))
	return nil
}
