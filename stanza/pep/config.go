package pep

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Configuration returns how a node of the own account is configured (XEP-0060,
// section 8.2). What the server does not tell is empty; Persist is then true. A
// node that does not exist is ErrNone.
func Configuration(ctx context.Context, r Requester, node string) (Options, error) {
	ask := stanza.NewElement(NSOwner, "configure").SetAttribute("node", node)
	reply, err := request(ctx, r, xmppstanza.GetIQ, "", stanza.NewElement(NSOwner, "pubsub", ask))
	if err != nil {
		return Options{}, removed(err)
	}
	o := Options{Persist: true}
	pubsub := reply.Child(NSOwner, "pubsub")
	if pubsub == nil {
		return o, nil
	}
	configure := pubsub.Child(NSOwner, "configure")
	if configure == nil {
		return o, nil
	}
	form := configure.Child(nsForm, "x")
	if form == nil {
		return o, nil
	}
	for f := range form.Elements() {
		name, _ := f.Attribute("var")
		value := ""
		if v := f.Child(nsForm, "value"); v != nil {
			value = strings.TrimSpace(v.Text())
		}
		switch name {
		case "pubsub#access_model":
			o.AccessModel = value
		case "pubsub#persist_items":
			o.Persist = value != "0" && value != "false"
		case "pubsub#max_items":
			o.MaxItems = value
		}
	}
	return o, nil
}

// Holds reports whether a node with these options keeps n items. What the server
// did not tell is taken for good.
func (o Options) Holds(n int) bool {
	if !o.Persist {
		return false
	}
	limit, err := strconv.Atoi(o.MaxItems)
	return err != nil || limit >= n
}

// Mend configures a node of the own account so that everybody can read it and
// that it keeps n items, if it is not so already, and returns how it is then.
// A server that refuses is no error: the options tell. A node that does not
// exist is ErrNone.
func Mend(ctx context.Context, r Requester, node string, n int) (Options, error) {
	o, err := Configuration(ctx, r, node)
	if err != nil {
		return o, err
	}
	var wanted Options
	if o.AccessModel != "" && o.AccessModel != "open" {
		wanted.AccessModel = "open"
	}
	wanted.Persist = !o.Persist
	if o.Persist && !o.Holds(n) || !o.Persist && n > 1 {
		wanted.MaxItems = Maximum
	}
	if wanted == (Options{}) {
		return o, nil
	}
	err = Configure(ctx, r, node, wanted)
	if _, refused := errors.AsType[*Error](err); refused && wanted.MaxItems == Maximum {
		wanted.MaxItems = numericMaximum
		err = Configure(ctx, r, node, wanted)
	}
	if _, refused := errors.AsType[*Error](err); err != nil && !refused {
		return o, fmt.Errorf("pep: configuring %s: %w", node, err)
	}
	return Configuration(ctx, r, node)
}
