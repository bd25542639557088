package xmpptest

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"

	"mellium.im/xmpp/jid"
)

const nsUpload = "urn:xmpp:http:upload:0"

// uploads is a service that gives slots (XEP-0363).
type uploads struct {
	base    url.URL
	maxSize int64
}

// AddUploads serves slots for files (XEP-0363) at a domain, which is an item of every account's
// server. Files are put to and fetched from base, random characters and the name of the file; putting
// needs the header Authorization of the slot. The files themselves are the business of whoever serves
// base. maxSize is in bytes; 0 is no limit.
func (s *Server) AddUploads(domain, base string, maxSize int64) error {
	j, err := jid.Parse(domain)
	if err != nil || j.Localpart() != "" || j.Resourcepart() != "" {
		return fmt.Errorf("xmpptest: %q is no domain for uploads", domain)
	}
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("xmpptest: uploads: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads == nil {
		s.uploads = make(map[string]*uploads)
	}
	s.uploads[j.Domainpart()] = &uploads{base: *u, maxSize: maxSize}
	return nil
}

// uploadIQ answers requests to the service at a domain.
func (s *Server) uploadIQ(c *session, iq, payload *element, domain string) {
	u := s.uploads[domain]
	get := iq.get("type") == "get"
	switch {
	case get && payload.is(nsInfo, "query"):
		r := info("store", "file", []string{nsInfo, nsUpload})
		if u.maxSize > 0 {
			r.add(el(nsForm, "x", "type", "result").add(
				el(nsForm, "field", "var", "FORM_TYPE", "type", "hidden").add(el(nsForm, "value").addText(nsUpload)),
				el(nsForm, "field", "var", "max-file-size").add(el(nsForm, "value").addText(strconv.FormatInt(u.maxSize, 10))),
			))
		}
		s.reply(c, iq, r)
	case get && payload.is(nsUpload, "request"):
		name := payload.get("filename")
		size, err := strconv.ParseInt(payload.get("size"), 10, 64)
		switch {
		case name == "" || err != nil || size <= 0:
			s.refuse(c, iq, badRequest)
		case u.maxSize > 0 && size > u.maxSize:
			s.refuse(c, iq, stanzaError{kind: "modify", condition: "not-acceptable", space: nsUpload, specific: "file-too-large"})
		default:
			place := u.base.JoinPath(rand.Text(), name).String()
			s.reply(c, iq, el(nsUpload, "slot").add(
				el(nsUpload, "put", "url", place).add(el(nsUpload, "header", "name", "Authorization").addText("Bearer "+rand.Text())),
				el(nsUpload, "get", "url", place),
			))
		}
	default:
		s.refuse(c, iq, serviceUnavailable)
	}
}
