//go:build live

package interop

import (
	"slices"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo/memstore"
)

// One room with a Go program, the bot, python-omemo in legacy alone and in both
// versions, and Profanity: everybody reads everybody. A member that was not there
// reads the archive of the room later, in the order of the room and each message
// once, and is there for what comes then.
func TestRoomOfAll(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, oldUser, bothUser := s.Account(t, "program"), s.Account(t, "legacy"), s.Account(t, "both")
		botUser, user, awayUser := s.Account(t, "bot"), s.Account(t, "user"), s.Account(t, "away")
		lab.Befriend(t, one, oldUser, bothUser, botUser, user, awayUser)
		owner := newProgram(t, s, one)
		h := newHall(t, owner, "anyone")
		h.affiliate("member", oldUser, bothUser, botUser, user, awayUser)

		store := memstore.New(awayUser.JID)
		c := middleware.Config{Store: store, AnswerStrangers: true, CatchUp: true}
		away := newConfigured(t, s, awayUser, c, nil)
		away.appear(t)
		away.enter(t, h.jid, "Away")
		old := lab.Python(t, s, oldUser, lab.PythonOptions{Versions: []string{lab.Legacy}})
		both := lab.Python(t, s, bothUser, lab.PythonOptions{Versions: []string{lab.V2, lab.Legacy}})
		old.Join(t, h.jid, "Old")
		both.Join(t, h.jid, "Both")

		// Profanity chooses pre keys when it joins: it comes last. The bot answers at once.
		says := func(p *program) func(string) {
			return func(body string) { _, err := p.tell(t, h.jid, body); ok(t, err) }
		}
		hears := func(p *program) func(*lab.Account, string) {
			return func(of *lab.Account, body string) { p.hears(t, h.jid, of.JID, body) }
		}
		members := []member{
			{one, owner.Device, says(owner), hears(owner)},
			{awayUser, away.Device, says(away), hears(away)},
			{oldUser, old.Device, func(body string) { old.Send(t, h.jid, body) }, func(_ *lab.Account, body string) { old.AwaitBody(t, h.jid, body) }},
			{bothUser, both.Device, func(body string) { both.Send(t, h.jid, body) }, func(_ *lab.Account, body string) { both.AwaitBody(t, h.jid, body) }},
		}
		acquaint(t, owner, members...)
		bot := newRoomBot(t, s, botUser, h.jid+"/Echo")
		bot.awaitLog(t, `event="room ready" account=`+h.jid)
		echoed := func(body string) {
			for _, p := range []*program{owner, away} {
				if !lab.Until(deadline, func() bool { return count(p.Bodies(h.jid), body) == 2 }) {
					t.Fatalf("the bot has not repeated %q to %s", body, p.Account.JID)
				}
			}
		}
		owner.awaitOffers(t, append(slices.Clone(members[1:]), member{account: botUser, device: bot.Device}), func() {
			body := texts("welcome", one, 1)[0]
			says(owner)(body)
			echoed(body)
		})
		peer := lab.Profanity(t, s, user)
		peer.Join(t, h.jid, "Peer")
		peer.AwaitSession(t, one.JID, owner.Device)
		peer.AwaitSession(t, awayUser.JID, away.Device)
		peer.AwaitSession(t, botUser.JID, bot.Device)
		peer.AwaitSession(t, oldUser.JID, old.Device)
		peer.AwaitSession(t, bothUser.JID, both.Device)
		greeting := texts("greeting", user, 1)[0]
		peer.Say(t, greeting)
		for _, m := range members {
			m.reads(user, greeting)
		}
		echoed(greeting)

		// Everybody says something and everybody reads it, the member that comes
		// and goes while it is there.
		round := func(name string, reader *program) []string {
			said := []string{texts(name, one, 1)[0], texts(name, oldUser, 1)[0], texts(name, bothUser, 1)[0], texts(name, user, 1)[0]}
			for i, body := range said {
				switch i {
				case 0:
					r, err := owner.tell(t, h.jid, body)
					reaches(t, r, err, oldUser, bothUser, botUser, user, awayUser)
				case 1:
					old.Send(t, h.jid, body)
				case 2:
					both.Send(t, h.jid, body)
				case 3:
					peer.Say(t, body)
				}
				owner.hearsFirst(t, h.jid, []*lab.Account{one, oldUser, bothUser, user}[i].JID, body)
				if i != 1 {
					old.AwaitBody(t, h.jid, body)
				}
				if i != 2 {
					both.AwaitBody(t, h.jid, body)
				}
				peer.AwaitShown(t, body)
				// And the bot, which repeats it.
				if !lab.Until(deadline, func() bool { return count(owner.Bodies(h.jid), body) == 2 }) {
					t.Fatalf("the bot has not repeated %q", body)
				}
				if reader != nil && !lab.Until(deadline, func() bool { return count(reader.Bodies(h.jid), body) == 2 }) {
					t.Fatalf("the member that came back has not read %q", body)
				}
			}
			return said
		}
		first := round("first", away)
		ok(t, away.om.Close())
		before := len(owner.Bodies(h.jid))
		missed := slices.Concat(round("missed", nil), round("more", nil))

		c.Store = store.Reopen()
		away = newConfigured(t, s, awayUser, c, nil)
		away.appear(t)
		away.enter(t, h.jid, "Away")
		want := owner.Bodies(h.jid)[before:]
		if !lab.Until(deadline, func() bool { return len(away.Bodies(h.jid)) >= len(want) }) {
			t.Fatalf("of the archive came %q", away.Bodies(h.jid))
		}
		last := round("last", away)
		want = owner.Bodies(h.jid)[before:]
		if got := away.Bodies(h.jid); !slices.Equal(got, want) {
			t.Errorf("the member that came back has %q, want %q", got, want)
		}
		if bad := slices.Concat(old.Undecryptable(), both.Undecryptable()); len(bad) > 0 {
			t.Errorf("undecryptable: %+v", bad)
		}
		secretIn(t, s, h.jid, first, missed, last)
	})
}

// count returns how often a text is among others.
func count(all []string, body string) (n int) {
	for _, b := range all {
		if b == body {
			n++
		}
	}
	return n
}
