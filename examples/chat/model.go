package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/media"
	"example.org/omellium/omemo"
)

// line is a line of a conversation.
type line struct {
	who, text string
	own       bool
	encrypted bool
	trust     omemo.Trust
	notice    bool
}

// chat is a conversation with a contact or in a room.
type chat struct {
	name    string
	room    bool
	account string // behind the nick of an occupant, as of the last message
	lines   []line
	unread  int
}

// model is the screen.
type model struct {
	ctx           context.Context
	client        *client
	own           string
	status        string
	chats         []*chat
	front         int
	input         []rune
	width, height int
	done, total   int // of catching up; total 0: it is not known
	busy          bool
	dialog        *dialog
	waiting       []*dialog // until the one that is open is done
}

func newModel(ctx context.Context, c *client) *model {
	return &model{ctx: ctx, client: c, own: c.addr.Bare().String(), width: 80, height: 24}
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return nil }

// chat returns a conversation, which begins if there was none.
func (m *model) chat(name string) *chat {
	i := slices.IndexFunc(m.chats, func(c *chat) bool { return c.name == name })
	if i < 0 {
		m.chats = append(m.chats, &chat{name: name})
		i = len(m.chats) - 1
	}
	return m.chats[i]
}

func (m *model) current() *chat {
	if len(m.chats) == 0 {
		return nil
	}
	return m.chats[m.front]
}

func (m *model) add(name string, l line) {
	c := m.chat(name)
	l.who, l.text = printable(l.who), printable(l.text)
	c.lines = append(c.lines, l)
	if c != m.current() && !l.own {
		c.unread++
	}
}

// printable drops what a terminal would obey instead of showing it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsGraphic(r):
			return -1
		}
		return r
	}, s)
}

// note shows something in a chat, or in the one in front if there is no such chat.
func (m *model) note(name, format string, args ...any) {
	known := slices.ContainsFunc(m.chats, func(c *chat) bool { return c.name == name })
	if c := m.current(); !known && c != nil {
		name = c.name
	} else if name == "" {
		name = m.own
	}
	m.add(name, line{notice: true, text: fmt.Sprintf(format, args...)})
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	defer m.next()
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case statusMsg:
		m.status, m.busy = string(msg), false
	case chatMsg:
		m.chat(string(msg))
	case noteMsg:
		m.note(msg.chat, "%s", msg.text)
	case textMsg:
		m.text(incoming(msg))
	case sentMsg:
		m.add(msg.chat, msg.line)
	case eventMsg:
		m.event(middleware.Event(msg))
	case questionMsg:
		m.waiting = append(m.waiting, ask(msg))
	case withdrawnMsg:
		m.withdraw(msg.answer)
	case keysMsg:
		if m.dialog != nil { // its question must be answered
			m.waiting = append(m.waiting, msg.dialog)
		} else {
			m.dialog = msg.dialog
		}
	case tea.KeyMsg:
		return m, m.key(msg)
	}
	return m, nil
}

// text shows a message that came, or that another device of ours has sent.
func (m *model) text(in incoming) {
	from, room := m.partner(in, in.From), in.Type == stanza.GroupChatMessage
	l := line{who: in.From.Localpart(), text: in.Body}
	if file, err := media.ParseBody(in.Body); err == nil {
		l.text = "file " + file.Name
	}
	if in.Type == stanza.ErrorMessage {
		m.note(from, "not delivered")
		return
	}
	if in.Info != nil {
		l.encrypted, l.trust, l.own = true, in.Info.Trust, in.Info.Account == m.own
	}
	name := from
	switch {
	case room:
		l.who = in.From.Resourcepart()
		if in.Info != nil && in.Info.Own {
			return // it was shown when it was sent
		}
	case in.From.Bare().String() == m.own:
		name, l.own = m.partner(in, in.To), true
	case name != in.From.Bare().String():
		l.who = in.From.Resourcepart()
		if in.Info != nil {
			m.chat(name).account = in.Info.Account
		}
	}
	m.add(name, l)
}

// partner names the chat of a message with an address: an occupant of a room has
// one of its own, because what is answered in the room's is for everybody there.
func (m *model) partner(in incoming, j jid.JID) string {
	bare := j.Bare().String()
	known := slices.ContainsFunc(m.chats, func(c *chat) bool { return c.room && c.name == bare })
	if in.Type != stanza.GroupChatMessage && j.Resourcepart() != "" && (known || in.Private != nil) {
		return j.String()
	}
	return bare
}

func (m *model) event(e middleware.Event) {
	switch e.Kind {
	case middleware.NewDevice:
		m.note(e.Account, "new device %d of %s: %s", e.Device, e.Account, e.Fingerprint)
	case middleware.IdentityChanged:
		m.note(e.Account, "device %d of %s presents another key (F2 shows it): %s", e.Device, e.Account, e.Fingerprint)
	case middleware.KeyVerified, middleware.KeyDistrusted:
		m.note(e.Account, "%v by another device: %s", e.Kind, e.Fingerprint)
	case middleware.OwnDeviceAdded:
		m.note("", "a device was added to this account: %d", e.Device)
	case middleware.PlaintextReceived, middleware.Undecryptable, middleware.Untrusted:
		m.note(e.Account, "a message was not shown: %v", e.Kind)
	case middleware.RoomReady:
		m.chat(e.Account).room = true
		m.note(e.Account, "joined, %d members", e.Total)
	case middleware.RoomUnfit:
		m.note(e.Account, "cannot be written to: %v", e.Err)
	case middleware.RecipientAdded, middleware.RecipientRemoved:
		m.note(e.Room, "%v: %s", e.Kind, e.Account)
	case middleware.CatchingUp:
		m.done, m.total, m.busy = e.Done, e.Total, true
	case middleware.CaughtUp:
		m.busy = false
	}
}

func (m *model) key(k tea.KeyMsg) tea.Cmd {
	if k.Type == tea.KeyCtrlC {
		return tea.Quit
	}
	if m.dialog != nil {
		return m.dialogKey(k)
	}
	switch k.Type {
	case tea.KeyTab:
		if len(m.chats) > 0 {
			m.turn((m.front + 1) % len(m.chats))
		}
	case tea.KeyF2, tea.KeyF3:
		return m.showKeys(k.Type == tea.KeyF3)
	case tea.KeyBackspace:
		m.input = m.input[:max(0, len(m.input)-1)]
	case tea.KeySpace, tea.KeyRunes:
		m.input = append(m.input, k.Runes...)
	case tea.KeyEnter:
		text := strings.TrimSpace(string(m.input))
		m.input = nil
		return m.enter(text)
	}
	return nil
}

func (m *model) turn(i int) {
	m.front = i
	m.chats[i].unread = 0
}

const help = "/chat JID  /join ROOM/NICK  /file PATH  /keys  /me (our URI and QR code)  /verify URI  /quit"

// enter does what was typed.
func (m *model) enter(text string) tea.Cmd {
	word, rest, _ := strings.Cut(text, " ")
	c := m.current()
	switch {
	case text == "":
	case word == "/quit":
		return tea.Quit
	case word == "/keys", word == "/me":
		return m.showKeys(word == "/me")
	case word == "/chat", word == "/join":
		j, err := jid.Parse(rest)
		if err != nil || j.Localpart() == "" || (word == "/join") != (j.Resourcepart() != "") {
			m.note("", "%s", help)
			return nil
		}
		c := m.chat(j.Bare().String())
		m.turn(slices.Index(m.chats, c))
		if word == "/join" {
			c.room = true
			return m.try(c.name, func(ctx context.Context) error { return m.client.join(ctx, j) })
		}
	case word == "/verify":
		return m.try("", func(ctx context.Context) error {
			_, err := m.client.om.VerifyURI(ctx, rest)
			if err == nil {
				m.client.show(noteMsg{text: "verified what the URI names"})
			}
			return err
		})
	case word == "/file" && c != nil:
		return m.send(c, "", rest)
	case strings.HasPrefix(word, "/") || c == nil:
		m.note("", "%s", help)
	default:
		return m.send(c, text, "")
	}
	return nil
}

type sentMsg struct {
	chat string
	line line
}

func (m *model) send(c *chat, text, path string) tea.Cmd {
	return func() tea.Msg {
		to, err := jid.Parse(c.name)
		var sent line
		if err == nil {
			sent, err = m.client.send(m.ctx, to, c.room, text, path)
		}
		if err != nil {
			return noteMsg{c.name, "not sent: " + err.Error()}
		}
		return sentMsg{c.name, sent}
	}
}

func (m *model) try(name string, f func(context.Context) error) tea.Cmd {
	return func() tea.Msg {
		if err := f(m.ctx); err != nil {
			return noteMsg{name, err.Error()}
		}
		return nil
	}
}
