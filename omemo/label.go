package omemo

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.org/omellium/omemo/internal/curve"
)

// MaxLabel is the greatest length of a label, in code points (XEP-0384, section
// 5.3.1).
const MaxLabel = 53

// ErrLabel: a text that cannot be the label of a device.
var ErrLabel = errors.New("omemo: a label is 1 to 53 printable characters")

// Label is the name that a device list gives a device, with what it says is the
// device's Ed25519 signature of it.
type Label struct {
	Device    DeviceID
	Text      string
	Signature [64]byte
}

// VerifiedLabel returns the name of the device if the device itself has signed
// it, made safe to show; else nothing. Two devices may have the same: a label
// says nothing about whose device it is.
func (d *Device) VerifiedLabel() string {
	if d.Version != V2 || d.Label == "" || d.Identity == [32]byte{} || utf8.RuneCountInString(d.Label) > MaxLabel ||
		!curve.Verify(curve.Edwards(d.Identity), []byte(d.Label), &d.LabelSignature) {
		return ""
	}
	return printable(d.Label)
}

// printable drops what does not show or changes how the rest shows: control and
// formatting characters, of which some reverse the direction of text. White
// space becomes single spaces.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsGraphic(r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// labelAllowed reports whether a text can be the label of a device.
func labelAllowed(text string) bool {
	return text != "" && printable(text) == text && utf8.RuneCountInString(text) <= MaxLabel
}

// SignLabel returns a label for our own device, to stand on the omemo:2 list. The
// error is ErrLabel.
func (m *Manager) SignLabel(ctx context.Context, text string) (Label, error) {
	if !labelAllowed(text) {
		return Label{}, ErrLabel
	}
	var l Label
	err := m.read(ctx, func(u *unit) error {
		var nonce [64]byte
		first, second := u.draw(), u.draw()
		copy(nonce[:32], first[:])
		copy(nonce[32:], second[:])
		l = Label{Device: u.own().device, Text: text, Signature: u.own().identity.Sign([]byte(text), &nonce)}
		return nil
	})
	return l, err
}

// label takes over what a list says about the name of a device.
func (u *unit) label(d Device, labels []Label) {
	if d.Version != V2 {
		return
	}
	var l Label
	for _, candidate := range labels {
		if candidate.Device == d.Address.Device {
			l = candidate
		}
	}
	if d.Label != l.Text || d.LabelSignature != l.Signature {
		d.Label, d.LabelSignature = l.Text, l.Signature
		u.note(d)
	}
}
