package lab

import (
	"fmt"
	"testing"
)

// Account is an account on a server.
type Account struct {
	JID      string // bare
	Local    string // the part before the @
	Password string

	server  *Server
	friends []string // bare JIDs
}

// Account registers a new account. Its name begins with the given one, which
// holds lower-case letters only, and is unique on the server.
func (s *Server) Account(t testing.TB, name string) *Account {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts++
	local := fmt.Sprintf("%s%d", name, s.accounts)
	a := &Account{JID: local + "@" + Domain, Local: local, Password: "secret-of-" + local, server: s}
	if err := s.backend.register(s, a); err != nil {
		t.Fatalf("lab: account %s: %v", a.JID, err)
	}
	return a
}

// Befriend gives each two of the accounts, all of one server, presence
// subscriptions in both directions. The server's data is changed, so none of
// them may have logged in yet.
func Befriend(t testing.TB, accounts ...*Account) {
	t.Helper()
	for i, a := range accounts {
		for _, b := range accounts[i+1:] {
			a.server.mu.Lock()
			a.friends, b.friends = append(a.friends, b.JID), append(b.friends, a.JID)
			err := a.server.backend.befriend(a.server, a, b)
			a.server.mu.Unlock()
			if err != nil {
				t.Fatalf("lab: befriend %s and %s: %v", a.JID, b.JID, err)
			}
		}
	}
}
