package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/mattn/go-runewidth"
	"github.com/muesli/termenv"
	"mellium.im/xmpp/jid"

	"example.org/omellium/omemo"
)

// screenshot draws an example of the screen: the picture in README.
func screenshot() string {
	defer lipgloss.SetColorProfile(lipgloss.ColorProfile())
	lipgloss.SetColorProfile(termenv.TrueColor)
	m := newModel(context.Background(), &client{addr: jid.MustParse("juliet@capulet.example")})
	m.status, m.width, m.height, m.busy, m.done, m.total = "online", 110, 22, true, 340, 500
	const romeo = "romeo@montague.example"
	for _, l := range []line{
		{who: "romeo", text: "What light through yonder window breaks?", encrypted: true, trust: omemo.TrustedBlindly},
		{notice: true, text: "new device 1178092643 of romeo@montague.example: " + omemo.Fingerprint{9, 4, 7, 31: 3}.String()},
		{notice: true, text: "key verified by another device: " + omemo.Fingerprint{1, 2, 3, 31: 8}.String()},
		{who: "romeo", text: "It is the east, and Juliet is the sun.", encrypted: true, trust: omemo.Verified},
		{who: "me", text: "Wherefore art thou Romeo?", own: true, encrypted: true, trust: omemo.Verified},
		{who: "romeo", text: "file balcony.jpg", encrypted: true, trust: omemo.Verified},
		{who: "romeo", text: "I have night's cloak to hide me from their eyes", encrypted: true, trust: omemo.Undecided},
	} {
		m.add(romeo, l)
	}
	m.chat("nurse@capulet.example").unread = 2
	m.chat("hall@rooms.capulet.example").room = true
	m.input = []rune("Good night, good night!")
	return svg(m.View())
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
