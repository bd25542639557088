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
		answer    func(middleware.TrustQuestion) ([]omemo.Decision, error)
		want      error
		questions int // about two messages
	}{
		"fails":      {func(middleware.TrustQuestion) ([]omemo.Decision, error) { return nil, no }, no, 2},
		"nothing":    {func(middleware.TrustQuestion) ([]omemo.Decision, error) { return nil, nil }, omemo.ErrUntrusted, 1},
		"undecided":  {decide(omemo.Undecided), omemo.ErrUntrusted, 1},
		"distrusted": {decide(omemo.Distrusted), omemo.ErrUntrusted, 1},
		"another key": {func(q middleware.TrustQuestion) ([]omemo.Decision, error) {
			return []omemo.Decision{{JID: q.Devices[0].Peer.JID, Fingerprint: omemo.Fingerprint{1}, Trust: omemo.Verified}}, nil
		}, middleware.ErrAnswer, 2},
		"another account": {func(q middleware.TrustQuestion) ([]omemo.Decision, error) {
			return []omemo.Decision{{JID: "juliet@example.net", Fingerprint: q.Devices[0].Fingerprint, Trust: omemo.Verified}}, nil
		}, middleware.ErrAnswer, 2},
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, "romeo@example.net", "juliet@example.net")
			start(t, srv, "romeo@example.net", chat(omemo.V2))
			a := &asker{answer: row.answer}
			c := chat(omemo.V2)
			c.Trust, c.AskTrust = omemo.Manual, a.ask
			p := start(t, srv, "juliet@example.net", c)
			for range 2 {
				if _, err := p.om.Send(t.Context(), to("romeo@example.net"), text("canary")); !errors.Is(err, row.want) {
					t.Errorf("%v", err)
				}
			}
			if n := len(a.asked()); n != row.questions {
				t.Errorf("%d questions, want %d", n, row.questions)
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

// TestQuestionsWithoutAnAnswerAreAskedAgain: the message that asked is not sent, and
// the next one does not leave without the devices in question.
func TestQuestionsWithoutAnAnswerAreAskedAgain(t *testing.T) {
	closed := errors.New("the window was closed")
	for name, row := range map[string]struct {
		fail func(ctx context.Context, gaveUp func()) error
		want error
	}{
		"an error": {func(context.Context, func()) error { return closed }, closed},
		"the sender has gone": {func(ctx context.Context, gaveUp func()) error {
			gaveUp()
			<-ctx.Done()
			return ctx.Err()
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, romeo, juliet)
			first, _ := second(t, srv, juliet+"/1", chat(omemo.V2))
			second(t, srv, juliet+"/2", chat(omemo.V2))
			ctx, gaveUp := context.WithCancel(t.Context())
			defer gaveUp()
			a := &asker{answer: decide(omemo.Verified)}
			asked := false // by one message after the other
			c := chat(omemo.V2)
			c.Trust = omemo.Manual
			c.AskTrust = func(ctx context.Context, q middleware.TrustQuestion) ([]omemo.Decision, error) {
				if !asked {
					asked = true
					return nil, row.fail(ctx, gaveUp)
				}
				return a.ask(ctx, q)
			}
			p := connected(t, srv, romeo, c)
			ok(t, p.om.Manager().SetTrust(t.Context(), juliet, fingerprintOf(t, first), omemo.Verified))
			if _, err := p.om.Send(ctx, to(juliet), text("unanswered")); !errors.Is(err, row.want) {
				t.Fatal(err)
			}
			for _, body := range []string{"answered", "not asked again"} {
				result, err := p.om.Send(t.Context(), to(juliet), text(body))
				if err != nil || slices.ContainsFunc(result.Devices, func(d omemo.DeviceResult) bool { return d.Err != nil }) {
					t.Fatalf("%v, %+v", err, result)
				}
			}
			if n := len(a.asked()); n != 1 {
				t.Errorf("%d further questions", n)
			}
		})
	}
}
