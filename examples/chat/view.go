package main

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/charmbracelet/lipgloss"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
)

// side is the width of the list of chats.
const side = 26

var (
	faint  = lipgloss.NewStyle().Faint(true)
	strong = lipgloss.NewStyle().Bold(true)
	bar    = lipgloss.NewStyle().Reverse(true)
)

func colored(c color.RGBA) lipgloss.Style {
	return lipgloss.NewStyle().Foreground(lipgloss.Color(fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)))
}

// name shows a name in the colour that it has on every client (XEP-0392).
func name(s string) string { return colored(verify.Color(s, verify.None)).Render(s) }

// mark shows how a message came: locked or not, and what the key of its sender
// was worth.
func mark(l line) string {
	if !l.encrypted {
		return "[in clear]"
	}
	return map[omemo.Trust]string{
		omemo.Undecided: "🔒?", omemo.TrustedBlindly: "🔒~", omemo.Verified: "🔒✓", omemo.Distrusted: "🔒✗",
	}[l.trust]
}

// View implements tea.Model.
func (m *model) View() string {
	height := max(3, m.height-3)
	var body string
	if m.dialog != nil {
		body = m.dialog.view(m.width, height)
	} else {
		left := lipgloss.NewStyle().Width(side).Height(height).MaxHeight(height).Render(m.list())
		right := lipgloss.NewStyle().Width(m.width - side - 1).Height(height).MaxHeight(height).Render(m.conversation(height))
		body = lipgloss.JoinHorizontal(lipgloss.Top, left, " ", right)
	}
	return bar.Width(m.width).Render(m.head()) + "\n" + body + "\n" + "> " + string(m.input) + "█\n" +
		faint.Render("Tab next chat · F2 keys · F3 our code · /help · Ctrl-C ends")
}

func (m *model) head() string {
	s := fmt.Sprintf(" %s · %s", m.own, m.status)
	switch {
	case m.busy && m.total > 0:
		const width = 20
		done := min(width, width*m.done/m.total)
		s += fmt.Sprintf(" · catching up %s%s %d/%d", strings.Repeat("█", done), strings.Repeat("░", width-done), m.done, m.total)
	case m.busy:
		s += fmt.Sprintf(" · catching up, %d so far", m.done)
	}
	if n := len(m.waiting); n > 0 {
		s += fmt.Sprintf(" · %d more to decide", n)
	}
	return s
}

func (m *model) list() string {
	var b strings.Builder
	for i, c := range m.chats {
		cursor := " "
		if i == m.front {
			cursor = strong.Render("▸")
		}
		label := name(c.name[:min(len(c.name), side-6)])
		if c.room {
			label = "#" + label
		}
		if c.unread > 0 {
			label += fmt.Sprintf(" %d", c.unread)
		}
		b.WriteString(cursor + label + "\n")
	}
	return b.String()
}

func (m *model) conversation(height int) string {
	c := m.current()
	if c == nil {
		return faint.Render(help)
	}
	var shown []string
	for _, l := range c.lines {
		text := fmt.Sprintf("%s %s: %s", mark(l), name(l.who), l.text)
		if l.notice {
			text = faint.Render("— " + l.text)
		}
		wrapped := lipgloss.NewStyle().Width(m.width - side - 1).Render(text)
		shown = append(shown, strings.Split(wrapped, "\n")...)
	}
	return strings.Join(shown[max(0, len(shown)-height):], "\n")
}

// fingerprint shows a fingerprint in the colours of its groups.
func fingerprint(f omemo.Fingerprint) string {
	var groups []string
	for _, g := range verify.Groups(f, verify.None) {
		groups = append(groups, colored(g.Color).Render(g.Text))
	}
	return strings.Join(groups, " ")
}

func (d *dialog) view(width, height int) string {
	var b strings.Builder
	b.WriteString(strong.Render(d.title) + "\n")
	b.WriteString(faint.Render("↑↓ choose · v verified · b trust blindly · d distrust · V, B, D all undecided · a accept a changed key · Enter decides · Esc does not") + "\n\n")
	for i, k := range d.keys {
		at := "  "
		if i == d.at {
			at = strong.Render("▸ ")
		}
		fmt.Fprintf(&b, "%s%s device %d %s· %s\n    %s\n", at, name(k.JID), k.device, k.label, strong.Render(k.state()), fingerprint(k.Fingerprint))
	}
	if len(d.keys) == 0 && d.code == "" {
		b.WriteString("No keys are known yet: they come with the first message.\n")
	}
	if d.code != "" {
		b.WriteString(d.uri + "\n" + d.code)
	}
	return lipgloss.NewStyle().Width(width).Height(height).Render(b.String())
}
