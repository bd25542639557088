package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

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

// doctor looks at a device from both sides: what its store holds, and what its
// server gives to others.
type doctor struct {
	pep      pep.Requester
	manager  *omemo.Manager
	own      omemo.Address
	findings []finding
}

func examine(ctx context.Context, c *control, args []string) error {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	fix := flags.Bool("fix", false, "")
	if flags.Parse(args) != nil || flags.NArg() > 0 {
		return errArguments
	}
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	session, err := c.connect(ctx)
	if err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(nil)
	}()
	defer func() {
		session.Close()
		session.Conn().Close()
		<-served
	}()
	asking, stop := context.WithTimeout(ctx, answerTimeout)
	now, err := xtime.Get(asking, session, session.RemoteAddr())
	stop()
	clock := clock(time.Since(now), err)
	findings, err := diagnose(ctx, pep.SessionRequester(session), c.manager, *fix)
	if err != nil {
		return err
	}
	return c.report(append([]finding{clock}, findings...))
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
	if slices.ContainsFunc(findings, func(f finding) bool { return f.State == stateFault }) {
		err = errors.Join(err, errFaults)
	}
	return err
}

// diagnose checks everything that takes no more than the account, and mends what
// can be mended if it is to. Faults that a second look does not find any more are
// fixed.
func diagnose(ctx context.Context, r pep.Requester, m *omemo.Manager, fix bool) ([]finding, error) {
	own, err := m.Device(ctx)
	if err != nil {
		return nil, err
	}
	look := func() ([]finding, error) {
		d := &doctor{pep: patience{r}, manager: m, own: own}
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
	if err != nil || !fix {
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

// store checks what needs no network.
func (d *doctor) store(ctx context.Context) error {
	rolledBack, err := d.manager.RolledBack(ctx)
	fault := ""
	if rolledBack {
		fault = "it is older than it once was: a copy was restored; the program will begin all sessions anew"
	}
	d.add("store", 0, fault, nil)
	return err
}

// version checks one version as a whole.
func (d *doctor) version(ctx context.Context, v omemo.Version) error {
	list, ok, err := d.list(ctx, v)
	if err != nil {
		return err
	}
	if err := d.bundle(ctx, v); err != nil {
		return err
	}
	d.node(ctx, v, "bundle node", bundle.Node(v, d.own.Device), d.items(v, list))
	if !ok {
		return nil
	}
	d.labels(ctx, v, list)
	d.others(ctx, v, list)
	return nil
}

// items returns how many bundles the node of a version has to hold.
func (d *doctor) items(v omemo.Version, list devicelist.List) int {
	n := len(list.Devices)
	if !list.Contains(d.own.Device) {
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
	if err != nil {
		return // there is none, which other checks tell; or the server does not say
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

// list checks our device list. It is not ok if there is none that can be read. A
// server that answers no question at all is an error: what it has is not known.
func (d *doctor) list(ctx context.Context, v omemo.Version) (devicelist.List, bool, error) {
	node := devicelist.Node(v)
	items, err := pep.Items(ctx, d.pep, "", node)
	var list devicelist.List
	if errors.Is(err, errSilent) {
		if _, e := pep.Configuration(ctx, d.pep, node); errors.Is(e, errSilent) {
			return list, false, e
		}
	}
	if err != nil && !errors.Is(err, pep.ErrNone) {
		d.add("list node reachable", v, err.Error(), func(ctx context.Context) error {
			if err := pep.Delete(ctx, d.pep, node); err != nil && !errors.Is(err, pep.ErrNone) {
				return err
			}
			return d.rewrite(ctx, v, nil)
		})
		return list, false, nil
	}
	d.add("list node reachable", v, "", nil)
	d.node(ctx, v, "list node", node, 1)
	var foreign []string
	malformed := ""
	for _, item := range items {
		if item.ID != "current" {
			foreign = append(foreign, item.ID)
		}
	}
	found, err := devicelist.Fetch(ctx, d.pep, "", v)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		malformed = err.Error()
	} else {
		list = found
	}
	list.Version = v
	d.add("list readable", v, malformed, func(ctx context.Context) error {
		return devicelist.Publish(ctx, d.pep, devicelist.List{Version: v, Devices: []devicelist.Device{{ID: d.own.Device}}})
	})
	fault := ""
	if len(foreign) > 0 {
		fault = fmt.Sprintf("items besides the list: %q", foreign)
	}
	d.add("list alone on its node", v, fault, func(ctx context.Context) error {
		// What a foreign item lists counts as listed in legacy: it is taken over.
		if err := d.rewrite(ctx, v, nil); err != nil {
			return err
		}
		return d.retract(ctx, node, foreign)
	})
	fault = ""
	if !list.Contains(d.own.Device) {
		fault = "this device is not on it: nobody can write to it"
	}
	d.add("own device on the list", v, fault, func(ctx context.Context) error { return d.rewrite(ctx, v, nil) })
	return list, malformed == "", nil
}

func (d *doctor) retract(ctx context.Context, node string, ids []string) error {
	var failures []error
	for _, id := range ids {
		if err := pep.Retract(ctx, d.pep, node, id); err != nil && !errors.Is(err, pep.ErrNone) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// rewrite publishes our list with this device and without some entries or their
// labels.
func (d *doctor) rewrite(ctx context.Context, v omemo.Version, change func([]devicelist.Device) []devicelist.Device) error {
	list, err := devicelist.Fetch(ctx, d.pep, "", v)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		return err
	}
	list.Version = v
	if change != nil {
		list.Devices = change(list.Devices)
	}
	if !list.Contains(d.own.Device) {
		list.Devices = append(list.Devices, devicelist.Device{ID: d.own.Device})
	}
	return devicelist.Publish(ctx, d.pep, list)
}

// bundle checks our bundle as others get it.
func (d *doctor) bundle(ctx context.Context, v omemo.Version) error {
	ours, err := d.manager.Bundle(ctx, v)
	if err != nil {
		return err
	}
	publish := func(ctx context.Context) error { return bundle.Publish(ctx, d.pep, ours) }
	theirs, err := bundle.Fetch(ctx, d.pep, omemo.Address{Device: d.own.Device}, v)
	if err != nil {
		d.add("bundle", v, err.Error(), publish)
		return nil
	}
	d.add("bundle", v, "", nil)
	theirs.Owner = ours.Owner
	check := func(name, fault string, sound bool) {
		if sound {
			fault = ""
		}
		d.add(name, v, fault, publish)
	}
	check("bundle identity", "it is not the identity key of this device", theirs.IdentityKey == ours.IdentityKey)
	check("bundle signature", "it does not hold: nobody can use it", theirs.Verify() == nil)
	check("pre keys", strconv.Itoa(len(theirs.PreKeys))+" are too few", len(theirs.PreKeys) >= fewestPreKeys)
	ahead, err := d.manager.Ahead(ctx, &theirs)
	if err != nil {
		return err
	}
	if ahead {
		d.add("bundle is ours", v, "it names keys that the store has not made yet: the store is an old copy, or two programs use one device", nil)
		return nil
	}
	check("bundle is ours", "it holds other keys than the store", theirs.SameKeys(ours))
	return nil
}
