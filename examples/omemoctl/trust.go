package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
)

// trustRow is a key as it is shown.
type trustRow struct {
	Account     string     `json:"account"`
	Devices     []uint32   `json:"devices"`
	Own         bool       `json:"own,omitempty"` // of our own account
	Active      bool       `json:"active"`
	Changed     bool       `json:"changed,omitempty"` // presented in place of the known one, and not accepted
	Trust       string     `json:"trust"`
	Since       *time.Time `json:"since,omitempty"`
	By          string     `json:"by,omitempty"` // key of the device that has said so
	Fingerprint string     `json:"fingerprint"`

	known    bool // in use by a device
	decision omemo.Decision
}

// trust shows and takes decisions about keys.
func trust(ctx context.Context, c *control, args []string) error {
	if len(args) == 0 {
		return errArguments
	}
	flags := flag.NewFlagSet("trust", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	tell := flags.Bool("tell", false, "")
	if flags.Parse(args[1:]) != nil {
		return errArguments
	}
	rest := flags.Args()
	switch args[0] {
	case "list":
		return listTrust(ctx, c, rest)
	case "verify":
		if len(rest) == 1 {
			return verifyURI(ctx, c, rest[0], *tell)
		}
		return setTrust(ctx, c, rest, omemo.Verified, *tell)
	case "distrust":
		return setTrust(ctx, c, rest, omemo.Distrusted, *tell)
	case "reset":
		return setTrust(ctx, c, rest, omemo.Undecided, *tell)
	case "decide":
		return decideAll(ctx, c, rest, *tell)
	case "accept":
		if !*tell { // there is nothing to be told
			return accept(ctx, c, rest)
		}
	}
	return errArguments
}

func listTrust(ctx context.Context, c *control, args []string) error {
	if len(args) > 1 {
		return errArguments
	}
	rows, err := c.keys(ctx, args)
	if err != nil {
		return err
	}
	return show(c, rows, []string{"ACCOUNT", "DEVICES", "STATE", "TRUST", "SINCE", "BY", "FINGERPRINT"}, func(r trustRow) []string {
		state, since := "inactive", ""
		switch {
		case r.Changed:
			state = "changed"
		case r.Active:
			state = "active"
		}
		if r.Since != nil {
			since = r.Since.Format(time.DateOnly)
		}
		return []string{r.Account, strings.Trim(fmt.Sprint(r.Devices), "[]"), state, r.Trust, since, r.By, r.Fingerprint}
	})
}

// keys brings together all keys of accounts, or of one: those of known devices
// and those that were decided about.
func (c *control) keys(ctx context.Context, args []string) ([]trustRow, error) {
	var accounts []string
	for _, arg := range args {
		j, err := jid.Parse(arg)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, j.Bare().String())
	}
	all, err := c.store.Accounts(ctx, accounts...)
	if err != nil {
		return nil, err
	}
	own, err := c.manager.Fingerprint(ctx)
	if err != nil {
		return nil, err
	}
	account := c.account.Bare().String()
	rows := []trustRow{}
	row := func(jid string, f omemo.Fingerprint) *trustRow {
		i := slices.IndexFunc(rows, func(r trustRow) bool { return r.Account == jid && r.decision.Fingerprint == f })
		if i < 0 {
			i = len(rows)
			rows = append(rows, trustRow{
				Account: jid, Own: jid == account, Devices: []uint32{}, Trust: omemo.Undecided.String(), Fingerprint: f.String(),
				decision: omemo.Decision{JID: jid, Fingerprint: f},
			})
		}
		return &rows[i]
	}
	for _, d := range all.Devices {
		for _, f := range []omemo.Fingerprint{d.Fingerprint, d.Conflict} {
			known := f == d.Fingerprint
			if f.IsZero() || known && f == own {
				continue
			}
			r := row(d.JID, f)
			r.known, r.Changed = r.known || known, r.Changed || !known
			r.Active = r.Active || known && d.Active
			if id := uint32(d.Address.Device); !slices.Contains(r.Devices, id) {
				r.Devices = append(r.Devices, id)
			}
		}
	}
	for _, t := range all.Trust {
		r := row(t.JID, t.Fingerprint)
		r.Trust, r.Since, r.decision.Trust = t.Trust.String(), &t.Since, t.Trust
		if !t.By.IsZero() {
			r.By = t.By.String()
		}
	}
	slices.SortFunc(rows, func(a, b trustRow) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return rows, nil
}

// keyOf reads an account and a fingerprint, which may be given in groups.
func keyOf(args []string) (d omemo.Decision, err error) {
	if len(args) < 2 {
		return d, errArguments
	}
	j, err := jid.Parse(args[0])
	if err != nil {
		return d, err
	}
	d.JID = j.Bare().String()
	d.Fingerprint, err = omemo.ParseFingerprint(strings.Join(args[1:], ""))
	return d, err
}

// setTrust decides about one key.
func setTrust(ctx context.Context, c *control, args []string, t omemo.Trust, tell bool) error {
	d, err := keyOf(args)
	if err != nil {
		return err
	}
	d.Trust = t
	return c.decide(ctx, tell, d)
}

// accept takes over a key that devices of an account present in place of the known
// one: that which is named, and no other. What it is worth is another question.
func accept(ctx context.Context, c *control, args []string) error {
	named, err := keyOf(args)
	if err != nil {
		return err
	}
	_, devices, err := c.manager.Account(ctx, named.JID)
	if err != nil {
		return err
	}
	accepted := false
	for _, d := range devices {
		if d.Conflict != named.Fingerprint {
			continue
		}
		if err := c.manager.AcceptIdentity(ctx, d.Peer, named.Fingerprint); err != nil {
			return err
		}
		accepted = true
	}
	if !accepted {
		return fmt.Errorf("no device of %s presents this key in place of another", named.JID)
	}
	return listTrust(ctx, c, []string{named.JID})
}

func verifyURI(ctx context.Context, c *control, uri string, tell bool) error {
	u, err := verify.ParseURI(uri)
	if err != nil {
		return err
	}
	decisions, err := middleware.URIDecisions(ctx, c.manager, u)
	if err != nil {
		return err
	}
	return c.decide(ctx, tell, decisions...)
}

// decideAll decides about all keys that nobody has decided about: those that a
// policy has trusted blindly among them, and none that is not accepted.
func decideAll(ctx context.Context, c *control, args []string, tell bool) error {
	states := map[string]omemo.Trust{"verified": omemo.Verified, "distrusted": omemo.Distrusted}
	if len(args) == 0 || len(args) > 2 {
		return errArguments
	}
	t, ok := states[args[len(args)-1]]
	if !ok {
		return errArguments
	}
	rows, err := c.keys(ctx, args[:len(args)-1])
	if err != nil {
		return err
	}
	var decisions []omemo.Decision
	for _, r := range rows {
		if d := r.decision; (r.known || !r.Changed) && (d.Trust == omemo.Undecided || d.Trust == omemo.TrustedBlindly) {
			d.Trust = t
			decisions = append(decisions, d)
		}
	}
	return c.decide(ctx, tell, decisions...)
}

// decide records decisions, shows them, and has devices told if it is to.
func (c *control) decide(ctx context.Context, tell bool, decisions ...omemo.Decision) error {
	var told []omemo.DeviceResult
	var err error
	if c.tell = tell; tell {
		err = c.wrapped(ctx, nil, func(om *middleware.Middleware) error {
			told, err = om.Decide(ctx, decisions...)
			return err
		})
	} else {
		err = c.manager.Decide(ctx, decisions...)
	}
	if err != nil {
		return err
	}
	if tell {
		return c.results(told)
	}
	type row struct {
		Account     string `json:"account"`
		Trust       string `json:"trust"`
		Fingerprint string `json:"fingerprint"`
	}
	var rows []row
	for _, d := range decisions {
		rows = append(rows, row{d.JID, d.Trust.String(), d.Fingerprint.String()})
	}
	return show(c, rows, []string{"ACCOUNT", "TRUST", "FINGERPRINT"}, func(r row) []string { return []string{r.Account, r.Trust, r.Fingerprint} })
}

// qr shows the URI of our own device, for others to scan.
func qr(ctx context.Context, c *control, args []string) error {
	flags := flag.NewFlagSet("qr", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("png", "", "")
	if flags.Parse(args) != nil || flags.NArg() > 0 {
		return errArguments
	}
	om, err := middleware.New(ctx, middleware.Config{Store: c.store})
	if err != nil {
		return err
	}
	u, err := om.OwnURI(ctx)
	if err != nil {
		return err
	}
	switch {
	case *file != "":
		image, err := verify.PNG(u.String())
		if err != nil {
			return err
		}
		if err := os.WriteFile(*file, image, 0o644); err != nil {
			return err
		}
	case !c.json:
		code, err := verify.Terminal(u.String())
		if err != nil {
			return err
		}
		if _, err := io.WriteString(c.out, code); err != nil {
			return err
		}
	}
	type row struct {
		URI string `json:"uri"`
	}
	return show(c, []row{{u.String()}}, []string{"URI"}, func(r row) []string { return []string{r.URI} })
}
