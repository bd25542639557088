package attack

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// wrapped returns the text of a message from romeo that comes by one of the
// ways, without parsing it.
func (s *stage) wrapped(way, inner string) string {
	raw := "<message xmlns='jabber:client' from='" + romeo + "/phone' to='" + juliet + "' type='chat' id='" + s.id("bomb") + "'>" + inner + "</message>"
	switch way {
	case "carbon":
		return carbon(juliet, "received", raw)
	case "archive":
		s.openQuery()
		return archived(juliet, s.query, raw) + s.closeQuery()
	}
	return raw
}

func e1(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	ns := v.Namespace()
	bombs := map[string]string{
		"depth 33":            strings.Repeat("<x xmlns='y'>", 33) + strings.Repeat("</x>", 33),
		"depth 5,000":         strings.Repeat("<x>", 5000) + strings.Repeat("</x>", 5000),
		"depth 9,000 in ours": "<encrypted xmlns='" + ns + "'>" + strings.Repeat("<x>", 9000) + strings.Repeat("</x>", 9000) + "</encrypted>",
		"40,001 elements":     strings.Repeat("<x/>", 40_001),
		"20,001 elements":     strings.Repeat("<x/>", 20_001),
		"65 attributes":       "<x xmlns='y'" + manyAttributes(65) + "/>",
		"5,000 attributes":    "<x xmlns='y'" + manyAttributes(5000) + "/>",
		"600 KiB of text":     "<body>" + strings.Repeat("x", 600<<10) + "</body>",
		"600 KiB attribute":   "<x xmlns='y' a='" + strings.Repeat("x", 600<<10) + "'/>",
		"600 KiB of payload":  "<encrypted xmlns='" + ns + "'><header sid='1'/><payload>" + strings.Repeat("A", 600<<10) + "</payload></encrypted>",
		"escapes":             "<body>" + strings.Repeat("&lt;", 130<<10) + "</body>",
		"long names":          "<" + strings.Repeat("x", 520<<10) + " xmlns='y'/>",
		"long namespace":      "<x xmlns='" + strings.Repeat("y", 520<<10) + "'/>",
		"text in pieces":      "<body>" + strings.Repeat("a<x/>", 21_000) + "</body>",
		"attribute twice":     "<x xmlns='y' xmlns:a='z' xmlns:b='z' a:c='1' b:c='2'/>",
	}
	for _, way := range ways {
		for name, inner := range bombs {
			s.in(t, name+", "+way, func() { s.repels(s.wrapped(way, inner+"<body>"+canary+"</body>"), middleware.Refused) })
		}
	}
	// What is just allowed costs no more than it may.
	large := map[string]string{
		"500 KiB of payload": "<encrypted xmlns='" + ns + "'><header sid='1'/><payload>" + strings.Repeat("A", 500<<10) + "</payload></encrypted>",
		"19,000 elements":    strings.Repeat("<x/>", 19_000),
		"depth 29":           strings.Repeat("<x xmlns='y'>", 27) + strings.Repeat("</x>", 27),
		"white space":        "<encrypted xmlns='" + ns + "'><header sid='1'/><payload>" + strings.Repeat(" \n", 250<<10) + "</payload></encrypted>",
		"500 KiB of body":    "<body>" + strings.Repeat("x", 500<<10) + "</body>",
	}
	for _, way := range ways {
		for name, inner := range large {
			s.in(t, name+", "+way, func() { s.repels(s.wrapped(way, inner)) })
		}
	}
	s.honest(s.romeo)
}

func e2(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	bad := map[string]func(string) string{
		"no padding":        func(b string) string { return strings.TrimRight(b, "=") + "A" },
		"padding in front":  func(b string) string { return "=" + b },
		"padding within":    func(b string) string { return b[:4] + "=" + b[4:] },
		"too much padding":  func(b string) string { return b + "====" },
		"URL alphabet":      func(b string) string { return "-_-_" + b },
		"stray character":   func(b string) string { return b[:5] + "!" + b[5:] },
		"non-breaking":      func(b string) string { return b[:5] + "\u00a0" + b[5:] },
		"NUL as text":       func(b string) string { return b[:5] + "\\0" + b[5:] },
		"one character":     func(string) string { return "A" },
		"trailing bits":     func(string) string { return "AB==" },
		"full width":        func(b string) string { return "Ａ" + b },
		"quoted printable":  func(b string) string { return "=41" + b },
		"an entity's name":  func(b string) string { return "amp;" + b },
		"a vertical tab..":  func(b string) string { return b + "\u2028" },
		"key of 9,000":      func(b string) string { return strings.Repeat("A", 9000) },
		"hexadecimal":       func(b string) string { return "0x" + b },
		"comma":             func(b string) string { return b + "," + b },
		"another's padding": func(b string) string { return b[:8] + "==" },
	}
	for _, way := range ways {
		for name, change := range bad {
			s.in(t, name+", "+way, func() {
				m := s.romeo.text(s, v, canary)
				walk(m, func(c *stanza.Element) {
					if c.Name.Local == "key" {
						c.Children = []stanza.Node{{Text: change(c.Text())}}
					}
				})
				s.repels(s.by(way, m))
			})
		}
		for _, space := range []string{" ", "\n", "\r\n", "\t", "\n    "} {
			s.in(t, fmt.Sprintf("white space %q is skipped, %s", space, way), func() {
				text := s.id("text ")
				m := s.romeo.text(s, v, text)
				walk(m, func(c *stanza.Element) {
					if c.Name.Local == "key" || c.Name.Local == "payload" || c.Name.Local == "iv" {
						b := c.Text()
						c.Children = []stanza.Node{{Text: space + b[:7] + space + b[7:] + space}}
					}
				})
				s.delivers(way, m, text)
			})
		}
	}
	s.in(t, "10 MB", func() {
		// The XML decoder holds one text as a whole, in a buffer that it doubles.
		s.most = 192 << 20
		defer func() { s.most = 0 }()
		s.repels(s.wrapped("direct", "<encrypted xmlns='"+v.Namespace()+"'><header sid='1'/><payload>"+strings.Repeat("AAAA", 5<<19)+"</payload></encrypted>"), middleware.Refused)
	})
	s.honest(s.romeo)
}

func e3(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	ns := v.Namespace()
	rid := fmt.Sprint(s.victim.Device)
	group := func(keys string) string {
		if v == omemo.V2 {
			return "<keys jid='" + juliet + "'>" + keys + "</keys>"
		}
		return keys
	}
	message := func(keys string) string {
		return "<encrypted xmlns='" + ns + "'><header sid='" + fmt.Sprint(s.romeo.Device) + "'>" + keys +
			"<iv>AAAAAAAAAAAAAAAA</iv></header><payload>AAAA</payload></encrypted>"
	}
	own := func(n int) string { return strings.Repeat("<key rid='"+rid+"'>MwohBQ==</key>", n) }
	others := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<key rid='%d'/>", i+1)
		}
		return b.String()
	}
	tests := map[string]struct {
		keys string
		want middleware.EventKind
	}{
		"10,001 keys":                 {group(others(10_001)), middleware.Refused},
		"15,000 keys":                 {group(others(15_000)), middleware.Refused},
		"two own":                     {group(own(2)), map[omemo.Version]middleware.EventKind{omemo.V2: middleware.Refused, omemo.Legacy: middleware.Undecryptable}[v]},
		"eight own":                   {group(own(8)), map[omemo.Version]middleware.EventKind{omemo.V2: middleware.Refused, omemo.Legacy: middleware.Undecryptable}[v]},
		"nine own":                    {group(own(9)), middleware.Refused},
		"1,000 own":                   {group(own(1000)), middleware.Refused},
		"own, then 9,000 of others":   {group(own(1) + others(9000)), middleware.Undecryptable},
		"own after 9,000 of others":   {group(others(9000) + own(1)), middleware.Undecryptable},
		"empty own":                   {group("<key rid='" + rid + "'/>"), middleware.Refused},
		"own twice in two groups":     {group(own(1)) + group(own(1)), map[omemo.Version]middleware.EventKind{omemo.V2: middleware.Refused, omemo.Legacy: middleware.Undecryptable}[v]},
		"a broken attribute of a key": {group("<key rid='" + rid + "' kex='maybe' prekey='maybe'>AAAA</key>"), middleware.Refused},
	}
	for _, way := range ways {
		for name, test := range tests {
			s.in(t, name+", "+way, func() {
				raw := s.wrapped(way, message(test.keys))
				s.srv.ForgetWire()
				s.repels(raw, test.want)
				s.quietAbout("pubsub")
			})
		}
		if v == omemo.V2 {
			s.in(t, "our id at another account, "+way, func() {
				s.repels(s.wrapped(way, message("<keys jid='"+romeo+"'>"+own(1)+"</keys><keys jid='"+mallory+"'>"+own(3)+"</keys>")))
			})
		}
	}
	s.honest(s.romeo)
}

// quietAbout checks that the victim has sent nothing that holds a text.
func (s *stage) quietAbout(text string) {
	s.t.Helper()
	for _, st := range s.srv.Wire() {
		if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte(text)) {
			s.t.Errorf("asked: %s", st.XML)
		}
	}
}
