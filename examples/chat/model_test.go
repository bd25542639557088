package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

const (
	juliet = "juliet@capulet.example"
	romeo  = "romeo@montague.example"
)

func shown(t *testing.T) *model {
	t.Helper()
	m := newModel(t.Context(), &client{addr: jid.MustParse(juliet)})
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 30})
	m.Update(chatMsg(romeo))
	return m
}

func text(body string, info *middleware.Info) textMsg {
	return textMsg{Message: stanza.Message{From: jid.MustParse(romeo + "/x"), To: jid.MustParse(juliet), Type: stanza.ChatMessage}, Body: body, Info: info}
}

func TestMarksOfMessages(t *testing.T) {
	for trust, want := range map[omemo.Trust]string{omemo.Undecided: "🔒?", omemo.TrustedBlindly: "🔒~", omemo.Verified: "🔒✓"} {
		m := shown(t)
		m.Update(text("hello", &middleware.Info{Account: romeo, Trust: trust}))
		if s := m.View(); !strings.Contains(s, want+" romeo: hello") {
			t.Errorf("%v:\n%s", trust, s)
		}
	}
	m := shown(t)
	m.Update(text("bare \u009b31m\u202e", nil))
	if s := m.View(); !strings.Contains(s, "[in clear] romeo: bare 31m") || strings.ContainsAny(s, "\u009b\u202e") {
		t.Errorf("%q", s)
	}
}

func TestNotices(t *testing.T) {
	m := shown(t)
	m.Update(eventMsg{Kind: middleware.NewDevice, Account: romeo, Device: 7})
	m.Update(eventMsg{Kind: middleware.NewDevice, Account: "nurse@capulet.example", Device: 8})
	m.Update(statusMsg("online"))
	m.Update(eventMsg{Kind: middleware.CatchingUp, Account: juliet, Done: 3, Total: 6})
	s := m.View()
	for _, want := range []string{"new device 7 of " + romeo, "new device 8 of nurse", "██████████░░░░░░░░░░ 3/6", juliet + " · online"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	if len(m.chats) != 1 {
		t.Errorf("%d chats", len(m.chats))
	}
	m.Update(eventMsg{Kind: middleware.CaughtUp})
	for _, kind := range []middleware.EventKind{middleware.CaughtUp, middleware.Progress} { // of bundles, say
		m.Update(eventMsg{Kind: kind, Account: juliet, Done: 20, Total: 20})
		if strings.Contains(m.View(), "catching up") {
			t.Errorf("catching up after %v", kind)
		}
	}
	m.Update(eventMsg{Kind: middleware.CatchingUp, Account: juliet, Done: 20})
	if s := m.View(); !strings.Contains(s, "catching up, 20 so far") {
		t.Errorf("no end is known:\n%s", s)
	}
	if m.Update(statusMsg("offline")); strings.Contains(m.View(), "catching up") {
		t.Error("catching up without a connection")
	}
}

// TestPrivateMessagesHaveAChat: what an occupant of a room writes to us alone, and
// what we answer, does not stand among what all of the room read.
func TestPrivateMessagesHaveAChat(t *testing.T) {
	const hall, private = "hall@rooms.capulet.example", "hall@rooms.capulet.example/Romeo"
	message := func(from, to string, typ stanza.MessageType, mark *struct{}, own bool) textMsg {
		account := map[bool]string{false: romeo, true: juliet}[own]
		return textMsg{
			Message: stanza.Message{From: jid.MustParse(from), To: jid.MustParse(to), Type: typ}, Body: "hello", Private: mark,
			Info: &middleware.Info{Account: account, Trust: omemo.Verified},
		}
	}
	for _, tc := range []struct {
		name      string
		joined    bool
		message   textMsg
		chat, who string
	}{
		{"to all", true, message(private, juliet, stanza.GroupChatMessage, nil, false), hall, "Romeo"},
		{"of a room that we are in", true, message(private, juliet, stanza.ChatMessage, nil, false), private, "Romeo"},
		{"with the mark", false, message(private, juliet, stanza.ChatMessage, &struct{}{}, false), private, "Romeo"},
		{"of another device of ours", true, message(juliet+"/x", private, stanza.ChatMessage, nil, true), private, "juliet"},
		{"of a contact", true, message(romeo+"/x", juliet, stanza.ChatMessage, nil, false), romeo, "romeo"},
	} {
		m := shown(t)
		if tc.joined {
			m.Update(eventMsg{Kind: middleware.RoomReady, Account: hall})
		}
		m.Update(tc.message)
		c := m.chat(tc.chat)
		if n := len(c.lines); n == 0 || c.lines[n-1].text != "hello" || c.lines[n-1].who != tc.who || c.room != (tc.chat == hall) {
			t.Errorf("%s: %+v", tc.name, c)
		}
		if want := map[bool]string{true: romeo}[c.name == private && tc.who == "Romeo"]; c.account != want {
			t.Errorf("%s: keys of %q, want %q", tc.name, c.account, want)
		}
		for _, other := range m.chats {
			if other != c && slices.ContainsFunc(other.lines, func(l line) bool { return !l.notice }) {
				t.Errorf("%s: also in %s", tc.name, other.name)
			}
		}
	}
}

// asks puts a question about the first keys that n names, for a chat.
func asks(m *model, chat string, n int) <-chan []omemo.Decision {
	answer := make(chan []omemo.Decision, 1)
	q := middleware.TrustQuestion{Chat: jid.MustParse(chat)}
	for i := range n {
		q.Devices = append(q.Devices, middleware.UndecidedDevice{Peer: omemo.Peer{Address: omemo.Address{JID: chat}}, Fingerprint: omemo.Fingerprint{byte(i + 1)}})
	}
	m.Update(questionMsg{q, answer})
	return answer
}

func press(m *model, keys ...string) {
	special := map[string]tea.KeyType{"down": tea.KeyDown, "enter": tea.KeyEnter, "esc": tea.KeyEsc}
	for _, k := range keys {
		msg := tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)}
		if kind, ok := special[k]; ok {
			msg = tea.KeyMsg{Type: kind}
		}
		m.Update(msg)
	}
}

// TestTheQuestionIsAnsweredInBulk: what was decided, and nothing else, is the
// answer.
func TestTheQuestionIsAnsweredInBulk(t *testing.T) {
	m := shown(t)
	answer := asks(m, romeo, 3)
	press(m, "down", "v", "d", "B", "enter")
	got := <-answer
	want := map[omemo.Fingerprint]omemo.Trust{{1}: omemo.TrustedBlindly, {2}: omemo.Distrusted, {3}: omemo.TrustedBlindly}
	if len(got) != len(want) || slices.ContainsFunc(got, func(d omemo.Decision) bool { return want[d.Fingerprint] != d.Trust }) {
		t.Errorf("%+v", got)
	}
	if m.dialog != nil {
		t.Error("the dialog is still there")
	}
}

func TestEscDecidesNothing(t *testing.T) {
	m := shown(t)
	answer := asks(m, romeo, 2)
	press(m, "v", "D", "esc")
	select {
	case got := <-answer:
		if len(got) != 0 {
			t.Errorf("%+v", got)
		}
	default:
		t.Error("the message still waits")
	}
	m.Update(keysMsg{&dialog{keys: []keyRow{{}}}})
	press(m, "v")
	if _, cmd := m.Update(tea.KeyMsg{Type: tea.KeyEsc}); cmd != nil || m.dialog != nil {
		t.Error("something is decided, or the dialog is still there")
	}
}

// TestQuestionsWaitForEachOther: each message that waits for an answer gets its
// own, whatever else is open.
func TestQuestionsWaitForEachOther(t *testing.T) {
	m := shown(t)
	m.Update(keysMsg{&dialog{title: "Keys"}})
	first, second := asks(m, romeo, 1), asks(m, "nurse@capulet.example", 1)
	m.Update(keysMsg{&dialog{title: "Keys"}})
	if s := m.View(); !strings.Contains(s, "3 more to decide") {
		t.Errorf("the head does not say it:\n%s", s)
	}
	press(m, "esc", "v", "enter", "d", "enter", "esc")
	for _, q := range []struct {
		answer <-chan []omemo.Decision
		want   omemo.Decision
	}{
		{first, omemo.Decision{JID: romeo, Fingerprint: omemo.Fingerprint{1}, Trust: omemo.Verified}},
		{second, omemo.Decision{JID: "nurse@capulet.example", Fingerprint: omemo.Fingerprint{1}, Trust: omemo.Distrusted}},
	} {
		select {
		case got := <-q.answer:
			if len(got) != 1 || got[0] != q.want {
				t.Errorf("%+v, want %+v", got, q.want)
			}
		default:
			t.Errorf("no answer about %s: its message waits for ever", q.want.JID)
		}
	}
	if m.dialog != nil || len(m.waiting) > 0 {
		t.Error("a dialog is left")
	}
}

// TestTypingDoesNotDecide: a question that comes in the middle of a line opens
// when the line has ended.
func TestTypingDoesNotDecide(t *testing.T) {
	m := shown(t)
	press(m, "w")
	answer := asks(m, romeo, 1)
	press(m, "V", "v", "enter")
	if m.dialog == nil || len(m.dialog.changed) != 0 {
		t.Fatalf("%+v", m.dialog)
	}
	press(m, "d", "enter")
	if got := <-answer; len(got) != 1 || got[0].Trust != omemo.Distrusted {
		t.Errorf("%+v", got)
	}
}

// TestAQuestionIsWithdrawn: when the message does not wait any more, nobody is
// made to believe that an answer counts.
func TestAQuestionIsWithdrawn(t *testing.T) {
	m := shown(t)
	asks(m, "nurse@capulet.example", 1)
	ctx, cancel := context.WithCancel(t.Context())
	m.client.show = func(msg tea.Msg) {
		m.Update(msg)
		cancel() // when the question has come
	}
	if _, err := m.client.ask(ctx, middleware.TrustQuestion{Chat: jid.MustParse(romeo)}); err == nil {
		t.Error("an answer")
	}
	if len(m.waiting) != 0 || m.dialog == nil || strings.Contains(m.dialog.title, romeo) {
		t.Errorf("%+v, %d waiting", m.dialog, len(m.waiting))
	}
	press(m, "esc")
	asks(m, romeo, 1)
	m.Update(withdrawnMsg{m.dialog.answer})
	if m.dialog != nil {
		t.Error("it is still open")
	}
}
