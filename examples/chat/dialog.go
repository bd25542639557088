package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp/jid"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
)

// dialog shows keys, and takes decisions about them.
type dialog struct {
	title   string
	keys    []keyRow
	at      int
	code    string // QR code of our own URI
	uri     string
	changed []omemo.Decision
	answer  chan<- []omemo.Decision // who waits for the decisions; nil: nobody
}

type keyRow struct {
	omemo.Decision
	device  omemo.DeviceID
	label   string
	changed []omemo.Peer // present this key in place of the known one
	accept  bool         // it is to take the place
}

type keysMsg struct{ dialog *dialog }

// next opens the dialog that waits longest when none is open. It waits for the end
// of what is being typed: keys that are meant for a message must not decide.
func (m *model) next() {
	if m.dialog == nil && len(m.waiting) > 0 && len(m.input) == 0 {
		m.dialog, m.waiting = m.waiting[0], m.waiting[1:]
	}
}

// withdraw closes the dialog of a question that no message waits for any more.
func (m *model) withdraw(answer chan<- []omemo.Decision) {
	if m.dialog != nil && m.dialog.answer == answer {
		m.dialog = nil
		m.note("", "the message does not wait any more: nothing was decided")
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(d *dialog) bool { return d.answer == answer })
}

// ask is the dialog about the undecided devices of a message.
func ask(q questionMsg) *dialog {
	d := &dialog{title: fmt.Sprintf("Nobody has decided about these devices, and they would not get the message to %s.", q.question.Chat), answer: q.answer}
	for _, u := range q.question.Devices {
		d.keys = append(d.keys, keyRow{Decision: omemo.Decision{JID: u.Peer.JID, Fingerprint: u.Fingerprint}, device: u.Peer.Address.Device})
	}
	return d
}

// showKeys opens the dialog with the keys of the chat in front, or with our own.
func (m *model) showKeys(own bool) tea.Cmd {
	c := m.current()
	name, room := m.own, false
	if !own && c != nil {
		name, room = cmp.Or(c.account, c.name), c.room
	}
	return func() tea.Msg {
		d, err := m.client.keys(m.ctx, name, room)
		if err == nil && own {
			err = d.addCode(m.ctx, m.client)
		}
		if err != nil {
			return noteMsg{text: err.Error()}
		}
		return keysMsg{d}
	}
}

// keys lists the keys of all active devices of an account, or of the members of a
// room.
func (c *client) keys(ctx context.Context, name string, room bool) (*dialog, error) {
	d, accounts := &dialog{title: "Keys of " + name}, []string{name}
	if room {
		j, err := jid.Parse(name)
		if err != nil {
			return nil, err
		}
		if accounts, err = c.om.RoomMembers(ctx, j); err != nil {
			return nil, err
		}
	}
	for _, account := range accounts {
		_, devices, err := c.om.Manager().Account(ctx, account)
		if err != nil {
			return nil, err
		}
		for _, device := range devices {
			d.change(device)
			known := slices.ContainsFunc(d.keys, func(k keyRow) bool {
				return k.JID == account && k.Fingerprint == device.Fingerprint && k.changed == nil
			})
			if !device.Active || device.Fingerprint.IsZero() || known {
				continue
			}
			trust, err := c.om.Manager().TrustOf(ctx, device.Address, device.Fingerprint)
			if err != nil {
				return nil, err
			}
			d.keys = append(d.keys, keyRow{
				Decision: omemo.Decision{JID: account, Fingerprint: device.Fingerprint, Trust: trust}, device: device.Address.Device, label: device.VerifiedLabel(),
			})
		}
	}
	return d, nil
}

// change shows the key that a device presents in place of the known one, once for
// both versions.
func (d *dialog) change(device omemo.Device) {
	if device.Conflict.IsZero() {
		return
	}
	i := slices.IndexFunc(d.keys, func(k keyRow) bool {
		return k.JID == device.JID && k.Fingerprint == device.Conflict && k.device == device.Address.Device && k.changed != nil
	})
	if i < 0 {
		i = len(d.keys)
		d.keys = append(d.keys, keyRow{Decision: omemo.Decision{JID: device.JID, Fingerprint: device.Conflict}, device: device.Address.Device})
	}
	d.keys[i].changed = append(d.keys[i].changed, device.Peer)
}

// state says what a key is worth.
func (k keyRow) state() string {
	switch {
	case k.accept:
		return "to take the place of the known key"
	case k.changed != nil:
		return "changed: not the known key of this device"
	}
	return k.Trust.String()
}

func (d *dialog) addCode(ctx context.Context, c *client) error {
	u, err := c.om.OwnURI(ctx)
	if err != nil {
		return err
	}
	d.title, d.uri = "This device: "+u.Devices[0].Fingerprint.String(), u.String()
	d.code, err = verify.Terminal(d.uri)
	return err
}

// decide changes what is decided about some keys. One that is not accepted is
// decided about when it is.
func (d *dialog) decide(t omemo.Trust, of ...int) {
	for _, i := range of {
		if d.keys[i].changed != nil {
			continue
		}
		d.keys[i].Trust = t
		d.changed = slices.DeleteFunc(d.changed, func(c omemo.Decision) bool {
			return c.JID == d.keys[i].JID && c.Fingerprint == d.keys[i].Fingerprint
		})
		d.changed = append(d.changed, d.keys[i].Decision)
	}
}

// undecided returns the keys that nobody has decided about.
func (d *dialog) undecided() (all []int) {
	for i, k := range d.keys {
		if k.Trust == omemo.Undecided {
			all = append(all, i)
		}
	}
	return all
}

func (m *model) dialogKey(k tea.KeyMsg) tea.Cmd {
	d := m.dialog
	switch name := k.String(); {
	case name == "esc": // nothing is decided
		m.dialog = nil
		if d.answer != nil {
			d.answer <- nil
		}
	case name == "enter":
		m.dialog = nil
		if d.answer != nil {
			d.answer <- d.changed
			return nil
		}
		return m.try("", func(ctx context.Context) error { return m.client.record(ctx, d) })
	case len(d.keys) == 0:
	case name == "down":
		d.at = (d.at + 1) % len(d.keys)
	case name == "up":
		d.at = (d.at + len(d.keys) - 1) % len(d.keys)
	case name == "a":
		k := &d.keys[d.at]
		k.accept = k.changed != nil && !k.accept
	default:
		t, of := map[string]omemo.Trust{"v": omemo.Verified, "b": omemo.TrustedBlindly, "d": omemo.Distrusted}[strings.ToLower(name)], []int{d.at}
		if strings.ToLower(name) != name {
			of = d.undecided()
		}
		if t != omemo.Undecided {
			d.decide(t, of...)
		}
	}
	return nil
}

// record carries out what was decided in a dialog.
func (c *client) record(ctx context.Context, d *dialog) error {
	for _, k := range d.keys {
		if !k.accept {
			continue
		}
		for _, p := range k.changed {
			if err := c.om.Manager().AcceptIdentity(ctx, p, k.Fingerprint); err != nil {
				return err
			}
		}
	}
	if len(d.changed) == 0 {
		return nil
	}
	_, err := c.om.Decide(ctx, d.changed...)
	return err
}
