package media

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"time"

	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/upload"
)

// Namespaces of service discovery (XEP-0030) and forms (XEP-0004).
const (
	nsInfo  = "http://jabber.org/protocol/disco#info"
	nsItems = "http://jabber.org/protocol/disco#items"
	nsData  = "jabber:x:data"
)

// Limits of looking for a service.
const (
	maxItems    = 32               // that are asked what they are
	itemTimeout = 10 * time.Second // for one to answer
)

// Service is a service that files can be uploaded to (XEP-0363).
type Service struct {
	Address jid.JID
	// MaxSize is the size of an encrypted file, in bytes, that it takes at most; 0 if
	// it does not say.
	MaxSize int64
}

// FindService asks the server of a session, which must be served, for its service. It
// returns ErrNoService if there is none. Answers are taken from who was asked only.
func FindService(ctx context.Context, session *xmpp.Session) (Service, error) {
	r := pep.SessionRequester(session)
	server := session.LocalAddr().Domain()
	if s, err := ask(ctx, r, server); err != nil || s != nil {
		return valueOf(s), err
	}
	items, err := get(ctx, r, server, stanza.NewElement(nsItems, "query"))
	if errors.Is(err, errRefused) {
		return Service{}, ErrNoService
	}
	if err != nil {
		return Service{}, err
	}
	asked := 0
	if query := items.Child(nsItems, "query"); query != nil {
		for item := range query.Elements() {
			value, _ := item.Attribute("jid")
			address, err := jid.Parse(value)
			if node, _ := item.Attribute("node"); err != nil || node != "" || !item.Is(nsItems, "item") {
				continue
			}
			if asked++; asked > maxItems {
				break
			}
			if s, err := ask(ctx, r, address); err != nil || s != nil {
				return valueOf(s), err
			}
		}
	}
	return Service{}, ErrNoService
}

func valueOf(s *Service) Service {
	if s == nil {
		return Service{}
	}
	return *s
}

// ask asks a service what it is. It returns nil for one that is something else, or
// does not say, or not in time.
func ask(ctx context.Context, r pep.Requester, address jid.JID) (*Service, error) {
	bounded, cancel := context.WithTimeout(ctx, itemTimeout)
	defer cancel()
	info, err := get(bounded, r, address, stanza.NewElement(nsInfo, "query"))
	if errors.Is(err, errRefused) || err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	query := info.Child(nsInfo, "query")
	if query == nil {
		return nil, nil
	}
	found := false
	s := &Service{Address: address}
	for c := range query.Elements() {
		switch value, _ := c.Attribute("var"); {
		case c.Is(nsInfo, "feature") && value == upload.NS:
			found = true
		case c.Is(nsData, "x"):
			if size, ok := maxSize(c); ok {
				s.MaxSize = size
			}
		}
	}
	if !found {
		return nil, nil
	}
	return s, nil
}

// maxSize reads the form that says how large a file may be (XEP-0363, section 3).
func maxSize(form *stanza.Element) (size int64, ok bool) {
	values := make(map[string]string)
	for field := range form.Elements() {
		name, _ := field.Attribute("var")
		if value := field.Child(nsData, "value"); value != nil && field.Is(nsData, "field") {
			values[name] = value.Text()
		}
	}
	size, err := strconv.ParseInt(values["max-file-size"], 10, 64)
	return size, values["FORM_TYPE"] == upload.NS && err == nil && size > 0
}

// errRefused: a request was answered with an error.
var errRefused = errors.New("media: request refused")

// get sends a request and returns the reply.
func get(ctx context.Context, r pep.Requester, to jid.JID, payload *stanza.Element) (*stanza.Element, error) {
	iq := stanza.NewElement(stanza.NSClient, "iq", payload).SetAttribute("type", "get").SetAttribute("to", to.String())
	reply, err := r.Request(ctx, iq)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	if typ, _ := reply.Attribute("type"); typ != "result" {
		return reply, errRefused
	}
	return reply, nil
}

// slot asks the service for a place for an encrypted file.
func (s Service) slot(ctx context.Context, session *xmpp.Session, file upload.File) (upload.Slot, error) {
	var slot upload.Slot
	tokens := file.TokenReader()
	token, err := tokens.Token()
	start, ok := token.(xml.StartElement)
	if !ok {
		return slot, fmt.Errorf("media: request for a slot: %w", err)
	}
	request, err := stanza.ReadElement(tokens, start, stanza.DefaultLimits)
	if err != nil {
		return slot, fmt.Errorf("media: request for a slot: %w", err)
	}
	reply, err := get(ctx, pep.SessionRequester(session), s.Address, request)
	if errors.Is(err, errRefused) {
		return slot, refusal(reply)
	}
	if err != nil {
		return slot, err
	}
	answer := reply.Child(upload.NS, "slot")
	if answer == nil {
		return slot, fmt.Errorf("%w: no slot", ErrUpload)
	}
	if err := xml.NewTokenDecoder(answer.TokenReader()).Decode(&slot); err != nil {
		return slot, fmt.Errorf("%w: malformed slot", ErrUpload) // the error would quote a URL
	}
	if slot.PutURL == nil || slot.GetURL == nil {
		return slot, fmt.Errorf("%w: slot without URL", ErrUpload)
	}
	return slot, nil
}

// refusal says why a service gives no slot (XEP-0363, section 5).
func refusal(reply *stanza.Element) error {
	e := reply.Child(stanza.NSClient, "error")
	if e == nil {
		return ErrUpload
	}
	if e.Child(upload.NS, "file-too-large") != nil {
		return fmt.Errorf("%w: for the server", ErrTooLarge)
	}
	const ns = "urn:ietf:params:xml:ns:xmpp-stanzas"
	for c := range e.Elements() {
		if c.Name.Space == ns && c.Name.Local != "text" {
			return fmt.Errorf("%w: %s", ErrUpload, c.Name.Local)
		}
	}
	return ErrUpload
}
