package xmpptest

import (
	"context"
	"fmt"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Client logs in with the given bare or full JID over a connection from [Server.Dial] and returns
// the mellium session, ready but not yet served: run its Serve method, and send presence to become
// available. Further stream features may be given to negotiate.
func (s *Server) Client(ctx context.Context, address, password string, features ...xmpp.StreamFeature) (*xmpp.Session, error) {
	j, err := jid.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("xmpptest: address %q: %w", address, err)
	}
	conn, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	all := append([]xmpp.StreamFeature{xmpp.SASL("", password, sasl.Plain), xmpp.BindResource()}, features...)
	negotiator := xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: all}
	})
	// Secure: PLAIN is refused by mellium on a stream that does not claim to be.
	// mellium sets a deadline for a moment when the context ends, which can be missed.
	stopClosing := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopClosing()
	session, err := xmpp.NewSession(ctx, j.Domain(), j, conn, xmpp.Secure, negotiator)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("xmpptest: login as %s: %w", j, err)
	}
	return session, nil
}
