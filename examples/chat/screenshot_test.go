package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/mattn/go-runewidth"
	"github.com/muesli/termenv"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo/memstore"
)

var picture = flag.String("screenshot", "", "write the screen of TestTalk as SVG to this file")

// TestTalk has Juliet and two devices of Romeo talk, and draws what her screen shows
// at the end: the picture in README.
func TestTalk(t *testing.T) {
	srv, err := xmpptest.NewServer()
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	for _, account := range []string{juliet, romeo} {
		ok(t, srv.AddAccount(account, "secret"))
	}
	ok(t, srv.Befriend(juliet, romeo))
	connect := func(account string, config middleware.Config, h xmpp.Handler) (*middleware.Middleware, *xmpp.Session) {
		om, err := middleware.New(t.Context(), config)
		ok(t, err)
		t.Cleanup(func() { om.Close() })
		session, err := srv.Client(t.Context(), account, "secret")
		ok(t, err)
		session, err = om.Wrap(t.Context(), session)
		ok(t, err)
		serve(t, session, h)
		return om, session
	}

	var mu sync.Mutex              // the screen's loop
	news := make(chan struct{}, 1) // it has changed
	c := &client{addr: jid.MustParse(juliet)}
	m := newModel(t.Context(), c)
	m.Update(tea.WindowSizeMsg{Width: 110, Height: 15})
	c.show = func(msg tea.Msg) {
		mu.Lock()
		defer mu.Unlock()
		m.Update(msg)
		select {
		case news <- struct{}{}:
		default: // one is told of already
		}
	}
	shows := func(expression string) {
		t.Helper()
		re := regexp.MustCompile(expression)
		for end := time.After(time.Minute); ; {
			mu.Lock()
			view := m.View()
			mu.Unlock()
			if re.MatchString(view) {
				return
			}
			select {
			case <-news:
			case <-end:
				t.Fatalf("no %s in\n%s", expression, view)
			}
		}
	}
	do := func(cmd func() tea.Cmd) {
		mu.Lock()
		f := cmd()
		mu.Unlock()
		if f != nil {
			c.show(f())
		}
	}
	c.om, c.session = connect(juliet, c.config(memstore.New(juliet)), xmpp.HandlerFunc(c.handle))
	ok(t, c.begin(t.Context(), c.session))
	c.show(statusMsg("online"))
	device := func() func(string) {
		om, session := connect(romeo, middleware.Config{Store: memstore.New(romeo)}, nil)
		ok(t, session.Send(t.Context(), stanza.Presence{}.Wrap(nil)))
		return func(text string) {
			t.Helper()
			body := xmlstream.Wrap(xmlstream.Token(xml.CharData(text)), xml.StartElement{Name: xml.Name{Local: "body"}})
			_, err := om.Send(t.Context(), stanza.Message{To: jid.MustParse(juliet), Type: stanza.ChatMessage}, body)
			ok(t, err)
		}
	}
	says := func(text string) { do(func() tea.Cmd { return m.enter(text) }) }

	first := device()
	first("What light through yonder window breaks?")
	shows("🔒~ romeo: What light")
	do(func() tea.Cmd { return m.showKeys(false) })
	shows("trusted blindly")
	do(func() tea.Cmd { return m.dialogKey(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("v")}) })
	do(func() tea.Cmd { return m.dialogKey(tea.KeyMsg{Type: tea.KeyEnter}) })
	first("It is the east, and Juliet is the sun.")
	shows("🔒✓ romeo: It is the east")
	says("Wherefore art thou Romeo?")
	shows("🔒✓ me: Wherefore")
	second := device()
	second("I have night's cloak to hide me from their eyes")
	shows("new device")
	shows("🔒\\? romeo: I have night's cloak")
	mu.Lock()
	defer mu.Unlock()
	m.input = []rune("Good night, good night!")
	defer lipgloss.SetColorProfile(lipgloss.ColorProfile())
	lipgloss.SetColorProfile(termenv.TrueColor)
	drawn := svg(m.View())
	for d := xml.NewDecoder(strings.NewReader(drawn)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if *picture != "" {
		ok(t, os.WriteFile(*picture, []byte(drawn), 0o644))
	}
}

var sequence = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// svg draws what a terminal would show.
func svg(view string) string {
	const w, h = 8.4, 18.0
	lines := strings.Split(view, "\n")
	var b strings.Builder
	width := 0
	for y, l := range lines {
		x := 0
		style, reverse := "", false
		put := func(s string) {
			if reverse {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#ddd"/>`, 10+float64(x)*w, 8+float64(y)*h, float64(runewidth.StringWidth(s))*w, h)
			}
			for _, r := range s {
				if r != ' ' {
					fill := style
					if reverse {
						fill = ` fill="#111"`
					}
					fmt.Fprintf(&b, `<text x="%.1f" y="%.1f"%s>`, 10+float64(x)*w, 22+float64(y)*h, fill)
					_ = xml.EscapeText(&b, []byte(string(r)))
					b.WriteString("</text>")
				}
				x += runewidth.RuneWidth(r)
			}
		}
		at := 0
		for _, found := range sequence.FindAllStringSubmatchIndex(l, -1) {
			put(l[at:found[0]])
			at = found[1]
			codes := l[found[2]:found[3]]
			var r, g, c int
			switch _, err := fmt.Sscanf(codes, "38;2;%d;%d;%d", &r, &g, &c); {
			case err == nil:
				style = fmt.Sprintf(` fill="#%02x%02x%02x"`, r, g, c)
			case codes == "2":
				style = ` fill="#888"`
			case codes == "7":
				reverse = true
			case codes == "1":
				style = ` font-weight="bold"`
			default:
				style, reverse = "", false
			}
		}
		put(l[at:])
		width = max(width, x)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="monospace" font-size="14" fill="#eee">`+
		`<rect width="100%%" height="100%%" rx="8" fill="#16161e"/>`, 20+float64(width)*w, 20+float64(len(lines))*h) + b.String() + "</svg>\n"
}
