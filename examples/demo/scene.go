package main

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// scene is a conversation of two programs that have never met.
type scene struct {
	title  string
	prefer omemo.Version // for devices that have shown no version yet
	begins string
	other  string
	// opening is said before there is an answer, and closing after it. Closing is
	// in omemo:2 whatever the scene has begun in.
	opening []string
	answer  string
	closing []string
}

var scenes = []scene{
	{
		title: "Legacy, " + omemo.Legacy.Namespace() + ": romeo begins", prefer: omemo.Legacy,
		begins: "romeo", other: "juliet",
		opening: []string{"But soft, what light through yonder window breaks?", "It is the east, and Juliet is the sun."},
		answer:  "What man art thou that so stumblest on my counsel?",
	},
	{
		title: "omemo:2, " + omemo.V2.Namespace() + ": juliet begins", prefer: omemo.V2,
		begins: "juliet", other: "romeo",
		opening: []string{"Wherefore art thou Romeo?", "Deny thy father and refuse thy name."},
		answer:  "Call me but love, and I will be new baptized.",
		closing: []string{"How camest thou hither, tell me, and wherefore?", "With the light wings of love did I fly."},
	},
	{
		title: "From legacy to omemo:2, by themselves: juliet begins", prefer: omemo.Legacy,
		begins: "juliet", other: "romeo",
		opening: []string{"Three words, dear Romeo, and good night indeed."},
		answer:  "So thrive my soul!",
		closing: []string{"A thousand times good night!", "Parting is such sweet sorrow."},
	},
}

// play plays a scene on a server of its own. Everybody has left when it returns.
func (s *scene) play(ctx context.Context, t *transcript) (err error) {
	srv, err := xmpptest.NewServer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	st := &stage{transcript: t, srv: srv}
	begins, err := start(ctx, srv, s.begins, s.prefer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, begins.close()) }()
	other, err := start(ctx, srv, s.other, s.prefer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.close()) }()

	for _, p := range []*program{begins, other} {
		t.line(p.name, fmt.Sprintf("device %d, fingerprint\n%s", p.device.Device, p.fingerprint))
	}
	if err := s.act(ctx, st, begins, other); err != nil {
		return err
	}
	for _, p := range []*program{begins, other} {
		if e, ok := p.events.mishap(); ok {
			return fmt.Errorf("%s was told: %s: %v", p.name, e.Kind, e.Err)
		}
	}
	return st.proof()
}

func (s *scene) act(ctx context.Context, st *stage, begins, other *program) error {
	v := s.prefer
	for i, text := range s.opening {
		if err := st.say(ctx, begins, other, text, v, true, i == 0); err != nil {
			return err
		}
	}
	// Nothing has come back: the active side cannot know that the other has the
	// session, and repeats the key exchange. A passive session is confirmed by
	// nature.
	if err := st.sessions(ctx, v, begins, other, false); err != nil {
		return err
	}
	if err := st.say(ctx, other, begins, s.answer, v, false, false); err != nil {
		return err
	}
	if _, err := begins.events.await(ctx, "the confirmed session", func(e middleware.Event) bool {
		return e.Kind == middleware.SessionConfirmed && e.Version == v && e.Device == other.device.Device
	}); err != nil {
		return err
	}
	if err := st.sessions(ctx, v, begins, other, true); err != nil {
		return err
	}
	if len(s.closing) == 0 {
		return nil
	}
	if v != omemo.V2 {
		inviter, invited, err := st.invitation(ctx, begins, other)
		if err != nil {
			return err
		}
		begins, other = invited, inviter
	}
	if err := st.say(ctx, begins, other, s.closing[0], omemo.V2, false, false); err != nil {
		return err
	}
	return st.say(ctx, other, begins, s.closing[1], omemo.V2, false, false)
}
