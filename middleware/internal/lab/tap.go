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

// What is looked for in a tap, as both servers write it.
var (
	message    = regexp.MustCompile(`<message [^>]*>`)
	presence   = regexp.MustCompile(`<presence [^>]*>`)
	stanzaFrom = regexp.MustCompile(` from='([^']*)'`)
	messageID  = regexp.MustCompile(` id='([^']*)'`)
	exchange   = regexp.MustCompile(`<key [^>]*(prekey|kex)='(true|1)'`)
)

// Encrypted counts the messages from an address, bare or with any resource, that the
// tap shows on their way to a client with content in them that is encrypted. One that
// goes out more than once counts once.
func (s *Server) Encrypted(tap, from string) int { return s.leaving(tap, from, encrypted) }

// KeyExchanges counts those that carry a key exchange, with content or without.
func (s *Server) KeyExchanges(tap, from string) int { return s.leaving(tap, from, keyExchange) }

// Present counts the resources of an account whose presence the tap shows on its way
// to a client of another: it has it before whatever is sent to it later.
func (s *Server) Present(tap, of, to string) int {
	resources := make(map[string]bool)
	outgoing := s.backend.outgoing()
	for line := range strings.Lines(tap) {
		if !strings.Contains(line, outgoing) {
			continue
		}
		for _, tag := range presence.FindAllString(line, -1) {
			from := stanzaFrom.FindStringSubmatch(tag)
			if from != nil && strings.HasPrefix(from[1], of+"/") && strings.Contains(tag, " to='"+to) && !strings.Contains(tag, " type='") {
				resources[from[1]] = true
			}
		}
	}
	return len(resources)
}

func encrypted(line string) bool {
	return strings.Contains(line, "<encrypted") && strings.Contains(line, "<payload")
}

func keyExchange(line string) bool { return exchange.MatchString(line) }

// leaving counts the messages from an address, by their ids, in such lines of the tap
// as are of what leaves.
func (s *Server) leaving(tap, from string, such func(line string) bool) int {
	ids := make(map[string]bool)
	outgoing := s.backend.outgoing()
	for line := range strings.Lines(tap) {
		if !strings.Contains(line, from) || !strings.Contains(line, outgoing) || !such(line) {
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
