package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"encoding/xml"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

type command func(ctx context.Context, c *control, args []string) error

// commands is filled by init: some of them name it.
var commands map[string]command

func init() {
	commands = map[string]command{
		"devices": devices, "fingerprint": fingerprint, "trust": trust, "qr": qr, "export": export, "import": importAccount,
		"doctor": examine, "rotate": rotate, "replace": replace, "prune": prune, "purge": purge, "send": send,
	}
}

func names() []string { return slices.Sorted(maps.Keys(commands)) }

var errArguments = errors.New("wrong arguments; see omemoctl -h")

// deviceRow is a device as it is shown.
type deviceRow struct {
	Version     string     `json:"version"`
	Device      uint32     `json:"device"`
	Own         bool       `json:"own,omitempty"` // this very device
	Active      bool       `json:"active"`
	Stale       bool       `json:"stale,omitempty"`
	Label       string     `json:"label,omitempty"`
	Trust       string     `json:"trust"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	LastSeen    *time.Time `json:"lastSeen,omitempty"`
	Session     string     `json:"session,omitempty"`
	Sent        int        `json:"sent"`     // messages in the sending chain
	Received    int        `json:"received"` // messages in the receiving chain
	Archived    int        `json:"archived"` // sessions
}

func devices(ctx context.Context, c *control, args []string) error {
	account := c.account.Bare().String()
	if len(args) == 1 {
		j, err := jid.Parse(args[0])
		if err != nil {
			return err
		}
		account = j.Bare().String()
	} else if len(args) > 1 {
		return errArguments
	}
	own, err := c.manager.Device(ctx)
	if err != nil {
		return err
	}
	_, known, err := c.manager.Account(ctx, account)
	if err != nil {
		return err
	}
	rows := make([]deviceRow, 0, len(known))
	for _, d := range known {
		row, err := c.row(ctx, d)
		if err != nil {
			return err
		}
		if row.Own = d.Address == own; row.Own {
			row.Trust = "ourselves"
		}
		rows = append(rows, row)
	}
	return show(c, rows, []string{"VERSION", "DEVICE", "STATE", "TRUST", "SESSION", "SENT", "RECEIVED", "LAST SEEN", "LABEL", "FINGERPRINT"}, func(r deviceRow) []string {
		state, seen := "inactive", "never"
		if r.Active {
			state = "active"
		}
		if r.Stale {
			state = "stale"
		}
		if r.LastSeen != nil {
			seen = r.LastSeen.Format(time.DateOnly)
		}
		return []string{
			r.Version, decimal(r.Device), state, r.Trust, r.Session, strconv.Itoa(r.Sent), strconv.Itoa(r.Received), seen, r.Label, r.Fingerprint,
		}
	})
}

// row brings together what is known about a device.
func (c *control) row(ctx context.Context, d omemo.Device) (deviceRow, error) {
	r := deviceRow{
		Version: d.Version.String(), Device: uint32(d.Address.Device), Active: d.Active, Stale: d.Stale,
		Label: d.VerifiedLabel(), Trust: omemo.Undecided.String(),
	}
	if !d.LastSeen.IsZero() {
		r.LastSeen = &d.LastSeen
	}
	if !d.Fingerprint.IsZero() {
		// The decisions that are recorded: a policy is the program's business.
		all, err := c.store.Accounts(ctx, d.JID)
		if err != nil {
			return r, err
		}
		for _, t := range all.Trust {
			if t.Fingerprint == d.Fingerprint {
				r.Trust = t.Trust.String()
			}
		}
		r.Fingerprint = d.Fingerprint.String()
	}
	sessions, err := c.manager.Sessions(ctx, d.Peer)
	if err != nil {
		return r, err
	}
	for _, s := range sessions {
		if s.Archived() {
			r.Archived++
			continue
		}
		r.Session = s.Initiation().String()
		if !s.Confirmed() {
			r.Session += ", not confirmed"
		}
		r.Sent, r.Received = s.SendingChain(), s.ReceivingChain()
	}
	return r, nil
}

func fingerprint(ctx context.Context, c *control, args []string) error {
	if len(args) > 0 {
		return errArguments
	}
	f, err := c.manager.Fingerprint(ctx)
	if err != nil {
		return err
	}
	own, err := c.manager.Device(ctx)
	if err != nil {
		return err
	}
	type row struct {
		Account     string `json:"account"`
		Device      uint32 `json:"device"`
		Fingerprint string `json:"fingerprint"`
	}
	return show(c, []row{{own.JID, uint32(own.Device), f.String()}}, []string{"ACCOUNT", "DEVICE", "FINGERPRINT"}, func(r row) []string {
		return []string{r.Account, decimal(r.Device), r.Fingerprint}
	})
}

func export(ctx context.Context, c *control, args []string) error {
	if len(args) > 0 {
		return errArguments
	}
	data, err := c.manager.Export(ctx)
	if err != nil {
		return err
	}
	_, err = c.out.Write(append(data, '\n'))
	return err
}

func importAccount(ctx context.Context, c *control, args []string) error {
	if len(args) > 0 {
		return errArguments
	}
	const limit = 64 << 20
	data, err := io.ReadAll(io.LimitReader(c.in, limit))
	if err != nil {
		return err
	}
	return omemo.Import(ctx, c.store, data)
}

func rotate(ctx context.Context, c *control, args []string) error {
	if len(args) > 0 {
		return errArguments
	}
	// Whoever connects publishes what is owed.
	return c.wrapped(ctx, c.manager.Rotate, nil)
}

func replace(ctx context.Context, c *control, args []string) error {
	if len(args) == 0 {
		return errArguments
	}
	j, err := jid.Parse(args[0])
	if err != nil {
		return err
	}
	var ids []omemo.DeviceID
	for _, arg := range args[1:] {
		id, err := parseDevice(arg)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return c.wrapped(ctx, nil, func(om *middleware.Middleware) error {
		results, err := om.Replace(ctx, j, ids...)
		if err != nil {
			return err
		}
		return c.results(results)
	})
}

func send(ctx context.Context, c *control, args []string) error {
	if len(args) < 2 {
		return errArguments
	}
	j, err := jid.Parse(args[0])
	if err != nil {
		return err
	}
	body := xmlstream.Wrap(
		xmlstream.Token(xml.CharData(strings.Join(args[1:], " "))), xml.StartElement{Name: xml.Name{Local: "body"}},
	)
	return c.wrapped(ctx, nil, func(om *middleware.Middleware) error {
		result, err := om.Send(ctx, xmppstanza.Message{To: j, Type: xmppstanza.ChatMessage}, body)
		if result == nil {
			return err
		}
		if e := c.results(result.Devices); err == nil {
			return e
		}
		return err // nobody got it
	})
}

// results shows what became of each device.
func (c *control) results(results []omemo.DeviceResult) error {
	type row struct {
		Account string `json:"account"`
		Version string `json:"version"`
		Device  uint32 `json:"device"`
		Trust   string `json:"trust"`
		Error   string `json:"error,omitempty"`
	}
	var rows []row
	var failed error
	for _, r := range results {
		shown := row{r.Peer.JID, r.Peer.Version.String(), uint32(r.Peer.Address.Device), r.Trust.String(), ""}
		if r.Err != nil {
			shown.Error, failed = r.Err.Error(), errFaults
		}
		rows = append(rows, shown)
	}
	err := show(c, rows, []string{"ACCOUNT", "VERSION", "DEVICE", "TRUST", "RESULT"}, func(r row) []string {
		result := r.Error
		if result == "" {
			result = "done"
		}
		return []string{r.Account, r.Version, decimal(r.Device), r.Trust, result}
	})
	if err != nil {
		return err
	}
	return failed
}

func prune(ctx context.Context, c *control, args []string) error {
	flags := flag.NewFlagSet("prune", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	older := flags.Duration("older", 90*24*time.Hour, "")
	dry := flags.Bool("dry", false, "")
	if flags.Parse(args) != nil || flags.NArg() > 0 {
		return errArguments
	}
	return c.wrapped(ctx, nil, func(om *middleware.Middleware) error {
		stale, err := om.Prune(ctx, *older, *dry)
		if err != nil {
			return err
		}
		rows := make([]deviceRow, 0, len(stale))
		for _, d := range stale {
			row, err := c.row(ctx, d)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return show(c, rows, []string{"VERSION", "DEVICE", "LABEL", "FINGERPRINT"}, func(r deviceRow) []string {
			return []string{r.Version, decimal(r.Device), r.Label, r.Fingerprint}
		})
	})
}

func purge(ctx context.Context, c *control, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "contact":
		j, err := jid.Parse(args[1])
		if err != nil {
			return err
		}
		return c.manager.Forget(ctx, j.Bare().String())
	case len(args) == 2 && args[0] == "device":
		id, err := parseDevice(args[1])
		if err != nil {
			return err
		}
		return c.wrapped(ctx, nil, func(om *middleware.Middleware) error { return om.Revoke(ctx, id) })
	case len(args) == 2 && args[0] == "version":
		for _, v := range omemo.Versions() {
			if v.String() == args[1] {
				return c.wrapped(ctx, nil, func(om *middleware.Middleware) error { return purgeVersion(ctx, om, v) })
			}
		}
	case len(args) == 1 && args[0] == "account":
		return c.wrapped(ctx, nil, func(om *middleware.Middleware) error { return om.Purge(ctx) })
	}
	return errArguments
}

// purgeVersion ends to serve a version, unless it is the only one.
func purgeVersion(ctx context.Context, om *middleware.Middleware, v omemo.Version) error {
	a, _, err := om.Manager().Advert(ctx)
	if err != nil {
		return err
	}
	if len(a.Versions) == 1 && a.Versions[0] == v {
		return fmt.Errorf("%s is the only version that is served; purge account gives the device up", v)
	}
	return om.PurgeVersion(ctx, v)
}

func parseDevice(s string) (omemo.DeviceID, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%q is not the id of a device", s)
	}
	return omemo.DeviceID(id), nil
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
