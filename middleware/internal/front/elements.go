package front

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"mellium.im/xmpp/stream"

	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/stanza"
)

// Limits of elements that are no messages. Their length is Config.PassBytes.
const (
	passDepth     = 256
	bytesPerToken = 16 // one token for so many bytes
)

// header opens the stream that the application's bytes belong to: mellium's own
// header goes nowhere.
const header = `<stream:stream xmlns="` + xmppstanza.NSClient + `" xmlns:stream="` + stream.NS + `">`

// parse reads what the application writes and queues it.
func (f *Front) parse() {
	defer close(f.parsed)
	defer f.queue.close()
	if err := f.parseElements(); err != nil && !f.out.closed() {
		f.Fail(fmt.Errorf("%w: %w", errMalformed, err))
	}
}

// parseElements returns nil after the end tag of the stream.
func (f *Front) parseElements() error {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(header), f.out))
	if _, err := d.Token(); err != nil {
		return err
	}
	for {
		f.out.rest(d.InputOffset() - int64(len(header)))
		tok, err := d.Token()
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			began := d.InputOffset()
			e, err := stanza.ReadElement(d, tok, f.limits(tok, Outgoing))
			if err != nil && !refused(err) {
				return err
			}
			f.queue.push(item{element: e, start: tok, refused: err, bytes: int(d.InputOffset() - began)})
		case xml.EndElement:
			return nil
		case xml.CharData:
			if len(bytes.TrimSpace(tok)) > 0 {
				return errors.New("text between stanzas")
			}
		default:
			return fmt.Errorf("%T between stanzas", tok)
		}
	}
}

// dispatch takes what is queued to the Handler.
func (f *Front) dispatch() {
	defer close(f.drained)
	for {
		i, ok := f.queue.pop()
		switch {
		case !ok:
			if f.c.Drain != nil {
				f.c.Drain(f.outCtx)
			}
			return
		case i.refused != nil:
			f.c.Handler.Refused(Outgoing, i.start, i.refused)
		case f.outCtx.Err() != nil:
			f.c.Handler.Refused(Outgoing, i.start, ErrClosed)
		default:
			f.c.Handler.Outgoing(f.outCtx, i.element)
		}
	}
}

// readWire takes what arrives to the Handler, until the wire ends.
func (f *Front) readWire() {
	defer close(f.wireEnded)
	if err := f.readElements(); err != io.EOF {
		f.setCause(err)
	}
	err := f.failure()
	f.c.Handler.Ended(err)
	f.in.end(err)
}

// readElements returns io.EOF if the peer closed its stream, as mellium does.
func (f *Front) readElements() error {
	// Not real.Serve: it would answer every IQ that is not for us.
	r := f.c.Real.TokenReader()
	defer r.Close()
	for {
		tok, err := r.Token()
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			e, err := stanza.ReadElement(r, tok, f.limits(tok, Incoming))
			switch {
			case err == nil:
				f.c.Handler.Incoming(f.inCtx, e)
			case refused(err):
				f.c.Handler.Refused(Incoming, tok, err)
			default:
				return err
			}
		case xml.CharData: // white space, or mellium's reader had refused it
		default:
			return fmt.Errorf("front: %T between stanzas", tok)
		}
	}
}

func (f *Front) limits(start xml.StartElement, d Direction) stanza.Limits {
	if IsMessage(start.Name) || d == Incoming && f.c.Limited != nil && f.c.Limited(start) {
		return f.c.Limits
	}
	return stanza.Limits{Depth: passDepth, Tokens: f.c.PassBytes / bytesPerToken, Bytes: f.c.PassBytes}
}

// refused tells the errors after which ReadElement has read the element to its
// end.
func refused(err error) bool {
	return errors.Is(err, stanza.ErrLimit) || errors.Is(err, stanza.ErrMarkup)
}
