package pep

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"

	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Requester sends an IQ and returns its reply.
//
// The IQ is of type get or set, has no id and, if it is for the own account, no
// address. The reply is of type result or error, and comes from the address that
// was asked: see Answers. Replies from elsewhere are ignored while waiting for
// the real one.
type Requester interface {
	Request(ctx context.Context, iq *stanza.Element) (*stanza.Element, error)
}

// Answers reports whether a reply with the address from is an answer to a
// request with the address to. For the own account, servers answer without an
// address or with its bare JID; all other addresses must be equal, in their
// canonical forms.
func Answers(own jid.JID, to, from string) bool {
	asked, err := canonical(own, to)
	if err != nil {
		return false
	}
	answering, err := canonical(own, from)
	return err == nil && asked.Equal(answering)
}

func canonical(own jid.JID, address string) (jid.JID, error) {
	if address == "" {
		return own.Bare(), nil
	}
	return jid.Parse(address)
}

// ErrSpoofed: the reply to a request came from an address that was not asked.
var ErrSpoofed = errors.New("pep: reply from another address")

// SessionRequester returns a Requester that works on a session which is being
// served. Its ids are random and unguessable. It is weaker than what a reader of
// the whole stream can do: sessions match replies by id alone, so a reply from
// another address ends the request with ErrSpoofed, and the real one that may
// follow is lost.
func SessionRequester(s *xmpp.Session) Requester { return sessionRequester{s} }

type sessionRequester struct{ session *xmpp.Session }

func (r sessionRequester) Request(ctx context.Context, iq *stanza.Element) (reply *stanza.Element, err error) {
	iq = iq.Clone().SetAttribute("id", rand.Text())
	resp, err := r.session.SendIQ(ctx, iq.TokenReader())
	if err != nil {
		return nil, fmt.Errorf("pep: request: %w", err)
	}
	defer func() { // the session waits for this
		if e := resp.Close(); e != nil && err == nil {
			reply, err = nil, fmt.Errorf("pep: request: %w", e)
		}
	}()
	tok, err := resp.Token()
	if err != nil {
		return nil, fmt.Errorf("pep: request: %w", err)
	}
	start, ok := tok.(xml.StartElement)
	if !ok {
		return nil, fmt.Errorf("pep: request: unexpected %T", tok)
	}
	reply, err = stanza.ReadElement(resp, start, stanza.DefaultLimits)
	if err != nil {
		return nil, fmt.Errorf("pep: request: %w", err)
	}
	to, _ := iq.Attribute("to")
	from, _ := reply.Attribute("from")
	if !Answers(r.session.LocalAddr(), to, from) {
		return nil, ErrSpoofed
	}
	return reply, nil
}

// request sends payload to an account and returns what the reply holds. An
// error reply is returned as *Error.
func request(ctx context.Context, r Requester, typ xmppstanza.IQType, to string, payload *stanza.Element) (*stanza.Element, error) {
	iq := stanza.NewElement(stanza.NSClient, "iq", payload).SetAttribute("type", string(typ))
	if to != "" {
		iq.SetAttribute("to", to)
	}
	reply, err := r.Request(ctx, iq)
	if err != nil {
		return nil, err
	}
	switch value, _ := reply.Attribute("type"); xmppstanza.IQType(value) {
	case xmppstanza.ResultIQ:
		return reply, nil
	case xmppstanza.ErrorIQ:
		return nil, parseError(reply)
	default:
		return nil, fmt.Errorf("pep: reply of type %q", value)
	}
}
