package front

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"

	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/roster"
	"mellium.im/xmpp/s2s"
	"mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"
)

// knownFeatures are the namespaces for which Session.Feature is asked of the real
// session, beside those in Config.Features: a session does not list what it has
// stored, and it stores every feature that the server advertised, known or not.
var knownFeatures = []string{
	// Those that mellium implements.
	"urn:ietf:params:xml:ns:xmpp-tls",
	"urn:ietf:params:xml:ns:xmpp-sasl",
	"urn:ietf:params:xml:ns:xmpp-bind",
	disco.NSCaps,
	roster.NSFeatures,
	s2s.NSBidiFeature,
	// Others that servers advertise (https://xmpp.org/registrar/stream-features.html).
	"urn:ietf:params:xml:ns:xmpp-session",
	"urn:xmpp:sm:2",
	"urn:xmpp:sm:3",
	"urn:xmpp:csi:0",
	"urn:xmpp:bind:0",
	"urn:xmpp:sasl:2",
	"urn:xmpp:sasl-cb:0",
	"urn:xmpp:fast:0",
	"urn:xmpp:features:dialback",
	"urn:xmpp:features:pre-approval",
	"urn:xmpp:stream-limits:0",
	"http://jabber.org/features/compress",
	"http://jabber.org/features/iq-auth",
	"http://jabber.org/features/iq-register",
}

// negotiate makes a session over conn that answers as real does. mellium's own
// negotiator reads a stream header and a list of informational features, which
// are parsed into what real knows about them.
func negotiate(ctx context.Context, real *xmpp.Session, c *conn, own []xmpp.StreamFeature) (*xmpp.Session, error) {
	names := knownFeatures[:len(knownFeatures):len(knownFeatures)]
	for _, f := range own {
		names = append(names, f.Name.Space)
	}
	list, features := advertise(real, names)
	c.f.in.rest = list // read before anything that is delivered

	mellium := xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: features}
	})
	negotiator := func(ctx context.Context, in, out *stream.Info, s *xmpp.Session, data any) (xmpp.SessionState, io.ReadWriter, any, error) {
		mask, rw, cache, err := mellium(ctx, in, out, s, data)
		*in, *out = real.In(), real.Out()
		return mask, rw, cache, err
	}
	// The local address is left out, because mellium would write it unescaped; it
	// is in the information that is copied.
	s, err := xmpp.NewSession(ctx, real.RemoteAddr(), jid.JID{}, c, real.State()&^xmpp.Ready, negotiator)
	if err != nil {
		return nil, fmt.Errorf("front: making the session: %w", err)
	}
	return s, nil
}

// advertise returns a stream header with a feature list of those names that real
// knows, and the features that read it.
func advertise(real *xmpp.Session, names []string) (list []byte, features []xmpp.StreamFeature) {
	const local = "feature" // mellium stores features by namespace
	var b bytes.Buffer
	fmt.Fprintf(&b, `<stream:stream xmlns="%s" xmlns:stream="%s" id="front" version="%s"><stream:features>`,
		stanza.NSClient, stream.NS, stream.DefaultVersion)
	seen := make(map[string]bool)
	for _, name := range names {
		data, ok := real.Feature(name)
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		b.WriteString("<" + local + ` xmlns="`)
		_ = xml.EscapeText(&b, []byte(name)) // a buffer does not fail
		b.WriteString(`"/>`)
		features = append(features, xmpp.StreamFeature{
			Name: xml.Name{Space: name, Local: local},
			Parse: func(_ context.Context, d *xml.Decoder, _ *xml.StartElement) (bool, any, error) {
				return false, data, d.Skip()
			},
		})
	}
	b.WriteString("</stream:features>")
	return b.Bytes(), features
}
