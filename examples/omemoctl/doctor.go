package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/xtime"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// The states of a finding.
const (
	stateOK      = "ok"
	stateFault   = "fault"
	stateFixed   = "fixed"
	stateUnknown = "unknown" // could not be looked at
)

// fewestPreKeys is how many pre keys a bundle has to have at least (XEP-0384,
// section 5.3.2).
const fewestPreKeys = 25

// clockTolerance is how far our clock may be from the server's.
const clockTolerance = 5 * time.Minute

// finding is the outcome of one check.
type finding struct {
	Check   string `json:"check"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"`
	Detail  string `json:"detail,omitempty"`

	fix func(context.Context) error // nil: it cannot be mended from here
}

// repair says what is to be mended.
type repair struct {
	fix  bool // what was read and is wrong
	anew bool // device lists that cannot be read, too: they are lost
}

// doctor looks at a device from both sides: what its store holds, and what its
// server gives to others.
type doctor struct {
	pep        pep.Requester
	manager    *omemo.Manager
	advert     omemo.Advert // what the program wants of the server
	own        omemo.Address
	ours       *omemo.Bundle // of omemo:2
	rolledBack bool          // the store says so
	anew       bool          // lists that cannot be read are made anew
	findings   []finding
}

func (d *doctor) serves(v omemo.Version) bool { return slices.Contains(d.advert.Versions, v) }

func examine(ctx context.Context, c *control, args []string) error {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var mend repair
	flags.BoolVar(&mend.fix, "fix", false, "")
	flags.BoolVar(&mend.anew, "anew", false, "")
	if flags.Parse(args) != nil || flags.NArg() > 0 || mend.anew && !mend.fix {
		return errArguments
	}
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	return c.asking(ctx, func(session *xmpp.Session) error {
		now, err := xtime.Get(forAnAnswer(ctx), session, session.RemoteAddr())
		clock := clock(time.Since(now), err)
		findings, err := diagnose(ctx, pep.SessionRequester(session), c.manager, mend)
		if err != nil {
			return err
		}
		return c.report(append([]finding{clock}, findings...))
	})
}

// clock compares our clock with the server's.
func clock(off time.Duration, err error) finding {
	f := finding{Check: "clock", State: stateOK}
	switch {
	case err != nil:
		f.State, f.Detail = stateUnknown, "the server does not tell the time"
	case off.Abs() > clockTolerance:
		f.State, f.Detail = stateFault, fmt.Sprintf("%v away from the server's", off.Abs().Round(time.Second))
	}
	return f
}

// report shows findings. Faults that are left are errFaults.
func (c *control) report(findings []finding) error {
	err := show(c, findings, []string{"CHECK", "VERSION", "STATE", "DETAIL"}, func(f finding) []string {
		return []string{f.Check, f.Version, f.State, f.Detail}
	})
	if err == nil && slices.ContainsFunc(findings, func(f finding) bool { return f.State == stateFault }) {
		return errFaults
	}
	return err
}

// diagnose checks everything that takes no more than the account, and mends what
// can be mended if it is to. Faults that a second look does not find any more are
// fixed.
func diagnose(ctx context.Context, r pep.Requester, m *omemo.Manager, mend repair) ([]finding, error) {
	ours, err := m.Bundle(ctx, omemo.V2)
	if err != nil {
		return nil, err
	}
	advert, written, err := m.Advert(ctx)
	if err == nil && !written {
		advert, err = announced(ctx, patience{r}, m)
	}
	if err == nil && mend.fix {
		err = m.SetAdvert(ctx, advert) // which is going to be published
	}
	if err != nil {
		return nil, err
	}
	look := func() ([]finding, error) {
		d := &doctor{pep: patience{r}, manager: m, advert: advert, own: ours.Owner, ours: ours, anew: mend.anew}
		if err := d.store(ctx); err != nil {
			return nil, err
		}
		for _, v := range omemo.Versions() {
			if err := d.version(ctx, v); err != nil {
				return nil, err
			}
		}
		return d.findings, nil
	}
	before, err := look()
	if err != nil || !mend.fix {
		return before, err
	}
	for i := range before {
		if before[i].fix != nil {
			if err := before[i].fix(ctx); err != nil {
				before[i].Detail += ": " + err.Error()
			}
		}
	}
	after, err := look()
	for i, f := range before {
		left := slices.ContainsFunc(after, func(g finding) bool {
			return g.Check == f.Check && g.Version == f.Version && g.State != stateOK
		})
		if f.State == stateFault && !left {
			before[i].State = stateFixed
		}
	}
	for _, g := range after { // what came up only now
		if g.State == stateFault && !slices.ContainsFunc(before, func(f finding) bool {
			return g.Check == f.Check && g.Version == f.Version && f.State == stateFault
		}) {
			before = append(before, g)
		}
	}
	return before, err
}

func (d *doctor) add(check string, v omemo.Version, fault string, fix func(context.Context) error) {
	f := finding{Check: check, State: stateOK, Detail: fault}
	if v.Valid() {
		f.Version = v.String()
	}
	if fault != "" {
		f.State, f.fix = stateFault, fix
	}
	d.findings = append(d.findings, f)
}

// unread adds that something cannot be read: what is there is not known, so that
// nothing may take its place.
func (d *doctor) unread(check string, v omemo.Version, err error) {
	d.add(check, v, "cannot be read: "+err.Error(), nil)
}

// store checks what needs no network.
func (d *doctor) store(ctx context.Context) error {
	var err error
	d.rolledBack, err = d.manager.RolledBack(ctx)
	fault := ""
	if d.rolledBack {
		fault = "it is older than it once was: a copy was restored; the program will begin all sessions anew"
	}
	d.add("store", 0, fault, nil)
	return err
}

// version checks one version as a whole.
func (d *doctor) version(ctx context.Context, v omemo.Version) error {
	list, sound, err := d.list(ctx, v)
	if err != nil {
		return err
	}
	if err := d.bundle(ctx, v); err != nil {
		return err
	}
	if d.serves(v) || v == omemo.V2 { // its node is the one of all devices
		d.node(ctx, v, "bundle node", bundle.Node(v, d.own.Device), d.items(v, list))
	}
	if !sound {
		return nil // nothing to compare with
	}
	d.labels(ctx, v, list)
	d.others(ctx, v, list)
	return nil
}

// items returns how many bundles the node of a version has to hold.
func (d *doctor) items(v omemo.Version, list devicelist.List) int {
	n := len(list.Devices)
	if d.serves(v) && !list.Contains(d.own.Device) {
		n++
	}
	if v == omemo.Legacy {
		n = 1 // every device has a node
	}
	return n
}

// node checks how a node is configured.
func (d *doctor) node(ctx context.Context, v omemo.Version, check, node string, items int) {
	o, err := pep.Configuration(ctx, d.pep, node)
	if _, refused := errors.AsType[*pep.Error](err); refused || errors.Is(err, pep.ErrNone) {
		return // there is none, which other checks tell; or the server does not say
	}
	if err != nil {
		d.unread(check, v, err)
		return
	}
	fault := ""
	switch {
	case o.AccessModel != "" && o.AccessModel != "open":
		fault = fmt.Sprintf("access model %q: strangers cannot read it", o.AccessModel)
	case !o.Persist:
		fault = "items are not kept"
	case !o.Holds(items):
		fault = fmt.Sprintf("keeps %s items, %d are needed", o.MaxItems, items)
	}
	d.add(check, v, fault, func(ctx context.Context) error {
		_, err := pep.Mend(ctx, d.pep, node, items)
		return err
	})
}
