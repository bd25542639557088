package lab

import (
	"regexp"
	"strings"
	"testing"
)

// Tap returns every stanza that went through the server so far, as text: what
// its operator could read. Each line is of one stanza at most, or of a piece of one
// that came in.
func (s *Server) Tap(t testing.TB) string {
	t.Helper()
	text, err := s.backend.tap(s)
	if err != nil {
		t.Fatalf("lab: tap of %s: %v", s.Kind, err)
	}
	return text
}

// message is the first tag of a message.
var (
	message   = regexp.MustCompile(`<message [^>]*>`)
	messageID = regexp.MustCompile(` id='([^']*)'`)
)

// Encrypted counts the messages from an address, bare or with any resource, that the
// tap shows on their way to a client with content in them that is encrypted. One that
// goes out more than once counts once.
func (s *Server) Encrypted(tap, from string) int {
	ids := make(map[string]bool)
	outgoing := s.backend.outgoing()
	for line := range strings.Lines(tap) {
		if !strings.Contains(line, from) || !strings.Contains(line, outgoing) || !strings.Contains(line, "<encrypted") || !strings.Contains(line, "<payload") {
			continue
		}
		for _, tag := range message.FindAllString(line, -1) {
			if !strings.Contains(tag, " from='"+from+"'") && !strings.Contains(tag, " from='"+from+"/") {
				continue
			}
			if id := messageID.FindStringSubmatch(tag); id != nil {
				ids[id[1]] = true
			}
		}
	}
	return len(ids)
}
