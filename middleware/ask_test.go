package middleware_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

// asker answers questions about undecided devices, and keeps them.
type asker struct {
	mu        sync.Mutex
	questions []middleware.TrustQuestion
	answer    func(middleware.TrustQuestion) ([]omemo.Decision, error)
}

func (a *asker) ask(_ context.Context, q middleware.TrustQuestion) ([]omemo.Decision, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.questions = append(a.questions, q)
	return a.answer(q)
}

func (a *asker) asked() []middleware.TrustQuestion {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.questions)
}

// decide answers with one state for all devices of the question.
func decide(t omemo.Trust) func(middleware.TrustQuestion) ([]omemo.Decision, error) {
	return func(q middleware.TrustQuestion) (all []omemo.Decision, err error) {
		for _, d := range q.Devices {
			all = append(all, omemo.Decision{JID: d.Peer.JID, Fingerprint: d.Fingerprint, Trust: t})
		}
		return all, nil
	}
}

// TestUndecidedDevicesAreAskedAboutTogether: one question for one chat, before
// anything leaves, and what it decides holds.
func TestUndecidedDevicesAreAskedAboutTogether(t *testing.T) {
	scene := func(t *testing.T, v omemo.Version) (*program, *asker, []*program) {
		srv := network(t, "romeo@example.net", "juliet@example.net")
		first, _ := second(t, srv, "romeo@example.net/1", chat(v))
		other, _ := second(t, srv, "romeo@example.net/2", chat(v))
		a := &asker{answer: decide(omemo.Verified)}
		c := chat(v)
		c.Trust, c.AskTrust = omemo.Manual, a.ask
		own, _ := second(t, srv, "juliet@example.net/other", chat(v))
		return connected(t, srv, "juliet@example.net/desk", c), a, []*program{first, other, own}
	}
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			p, a, devices := scene(t, v)
			result, err := p.om.Send(t.Context(), to("romeo@example.net"), text("hello"))
			ok(t, err)
			for _, d := range result.Devices {
				if d.Err != nil || d.Trust != omemo.Verified {
					t.Errorf("%v: %v, %v", d.Peer, d.Trust, d.Err)
				}
			}
			asked := a.asked()
			if len(asked) != 1 || !asked[0].Chat.Equal(jid.MustParse("romeo@example.net")) || len(asked[0].Devices) != len(devices) {
				t.Fatalf("questions: %+v", asked)
			}
			for _, d := range asked[0].Devices {
				f, err := devices[slices.IndexFunc(devices, func(p *program) bool { return deviceOf(t, p) == d.Peer.Address.Device })].om.Manager().Fingerprint(t.Context())
				ok(t, err)
				if f != d.Fingerprint || d.Own != (d.Peer.JID == "juliet@example.net") {
					t.Errorf("%+v, fingerprint %v", d, f)
				}
			}
			if _, err := p.om.Send(t.Context(), to("romeo@example.net"), text("again")); err != nil || len(a.asked()) != 1 {
				t.Errorf("%v, %d questions", err, len(a.asked()))
			}
		})
	}
}

func TestAnswersThatKeepAMessageBack(t *testing.T) {
	no := errors.New("not now")
	for name, row := range map[string]struct {
		answer func(middleware.TrustQuestion) ([]omemo.Decision, error)
		want   error
	}{
		"fails":      {func(middleware.TrustQuestion) ([]omemo.Decision, error) { return nil, no }, no},
		"nothing":    {func(middleware.TrustQuestion) ([]omemo.Decision, error) { return nil, nil }, omemo.ErrUntrusted},
		"undecided":  {decide(omemo.Undecided), omemo.ErrUntrusted},
		"distrusted": {decide(omemo.Distrusted), omemo.ErrUntrusted},
		"another key": {func(q middleware.TrustQuestion) ([]omemo.Decision, error) {
			return []omemo.Decision{{JID: q.Devices[0].Peer.JID, Fingerprint: omemo.Fingerprint{1}, Trust: omemo.Verified}}, nil
		}, middleware.ErrAnswer},
		"another account": {func(q middleware.TrustQuestion) ([]omemo.Decision, error) {
			return []omemo.Decision{{JID: "juliet@example.net", Fingerprint: q.Devices[0].Fingerprint, Trust: omemo.Verified}}, nil
		}, middleware.ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, "romeo@example.net", "juliet@example.net")
			start(t, srv, "romeo@example.net", chat(omemo.V2))
			a := &asker{answer: row.answer}
			c := chat(omemo.V2)
			c.Trust, c.AskTrust = omemo.Manual, a.ask
			p := start(t, srv, "juliet@example.net", c)
			for range 2 {
				if _, err := p.om.Send(t.Context(), to("romeo@example.net"), text("canary")); !errors.Is(err, row.want) && !errors.Is(err, omemo.ErrUntrusted) {
					t.Errorf("%v", err)
				}
			}
			if n := len(a.asked()); n != 1 {
				t.Errorf("%d questions", n)
			}
			for _, s := range srv.Wire() {
				if fromTo("juliet@example.net", "<message")(s) {
					t.Errorf("left: %s", s.XML)
				}
			}
		})
	}
}

// TestNobodyIsAsked: by default a message leaves for those that are trusted, and
// an event names the others, once.
func TestNobodyIsAsked(t *testing.T) {
	srv := network(t, "romeo@example.net", "juliet@example.net")
	first, _ := second(t, srv, "romeo@example.net/1", chat(omemo.V2))
	other, _ := second(t, srv, "romeo@example.net/2", chat(omemo.V2))
	c := chat(omemo.V2)
	c.Trust = omemo.Manual
	p := connected(t, srv, "juliet@example.net/desk", c)
	f, err := first.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	if _, err := p.om.Send(t.Context(), to("romeo@example.net"), text("no")); !errors.Is(err, omemo.ErrUntrusted) {
		t.Fatal(err)
	}
	e := p.awaitEvent(middleware.UndecidedDevices)
	if e.Account != "romeo@example.net" || e.Result == nil || len(e.Result.Devices) != 2 {
		t.Errorf("%+v", e)
	}
	ok(t, p.om.Manager().SetTrust(t.Context(), "romeo@example.net", f, omemo.Verified))
	for range 2 {
		result, err := p.om.Send(t.Context(), to("romeo@example.net"), text("yes"))
		ok(t, err)
		for _, d := range result.Devices {
			if (d.Err == nil) != (d.Peer.Address.Device == deviceOf(t, first)) || d.Err != nil && d.Peer.Address.Device != deviceOf(t, other) {
				t.Errorf("%v: %v", d.Peer, d.Err)
			}
		}
	}
	if n := p.count(middleware.UndecidedDevices); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// verifyIn answers questions about one chat, and dismisses the others.
func verifyIn(chat string) func(middleware.TrustQuestion) ([]omemo.Decision, error) {
	return func(q middleware.TrustQuestion) ([]omemo.Decision, error) {
		if q.Chat.String() != chat {
			return nil, nil
		}
		return decide(omemo.Verified)(q)
	}
}

// TestVerifiedAfterTheQuestionWasDismissed: a key is known, and nobody wanted the
// bundle of its device; whoever verifies it for a message has it served with that
// message.
func TestVerifiedAfterTheQuestionWasDismissed(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run("in an earlier session/"+v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			b := connected(t, srv, juliet, chat(v))
			a := &asker{answer: verifyIn("")}
			c := chat(v)
			c.Trust, c.AskTrust = omemo.Manual, a.ask
			p := load(t, romeo, c).attach(login(t, srv, romeo+"/x"), nil)
			if _, err := p.om.Send(t.Context(), to(juliet), text("dismissed")); !errors.Is(err, omemo.ErrUntrusted) {
				t.Fatal(err)
			}
			p.leave(srv)
			a.mu.Lock()
			a.answer = verifyIn(juliet)
			a.mu.Unlock()
			p.attach(login(t, srv, romeo+"/x"), nil)
			result, err := p.om.Send(t.Context(), to(juliet), text("verified"))
			if err != nil || len(result.Devices) != 1 || result.Devices[0].Err != nil {
				t.Fatalf("%v, %+v", err, result)
			}
			b.awaitText("verified")
			if n := len(a.asked()); n != 2 {
				t.Errorf("%d questions", n)
			}
		})
		t.Run("in another chat/"+v.String(), func(t *testing.T) {
			srv := building(t, fit)
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			n := connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			a := &asker{answer: verifyIn(hall)}
			c := chat(v)
			c.Trust, c.AskTrust = omemo.Manual, a.ask
			p := connected(t, srv, romeo, c).join(hall, "Romeo")
			if _, err := p.om.Send(t.Context(), to(juliet), text("dismissed")); !errors.Is(err, omemo.ErrUntrusted) {
				t.Fatal(err)
			}
			result := p.speak(hall, "verified")
			if got := served(result); !slices.Equal(got, []string{juliet, nurse}) || len(result.Unserved) != 0 {
				t.Errorf("reaches %v, not %v", got, unserved(result))
			}
			b.awaitText("verified")
			n.awaitText("verified")
		})
	}
}
