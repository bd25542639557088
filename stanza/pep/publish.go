package pep

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Options are what a node must be like for OMEMO. Empty fields are not asked
// for.
type Options struct {
	AccessModel string // pubsub#access_model: "open"
	Persist     bool   // pubsub#persist_items
	MaxItems    string // pubsub#max_items: a number, or Maximum
}

// Maximum asks for as many items as the server allows (XEP-0060, section
// 16.4.4). Not all servers know it.
const Maximum = "max"

// numericMaximum is what is asked for instead of Maximum.
const numericMaximum = "256"

// form returns the options as a submitted data form (XEP-0004).
func (o Options) form(formType string) *stanza.Element {
	x := stanza.NewElement(nsForm, "x").SetAttribute("type", "submit")
	x.Append(field("FORM_TYPE", formType).SetAttribute("type", "hidden"))
	if o.AccessModel != "" {
		x.Append(field("pubsub#access_model", o.AccessModel))
	}
	if o.Persist {
		x.Append(field("pubsub#persist_items", "true"))
	}
	if o.MaxItems != "" {
		x.Append(field("pubsub#max_items", o.MaxItems))
	}
	return x
}

func field(name, value string) *stanza.Element {
	return stanza.NewElement(nsForm, "field", stanza.NewText(nsForm, "value", value)).SetAttribute("var", name)
}

// Publish publishes an item on a node of the own account. A node that does not
// exist is created with the options; one that exists with others is configured.
//
// Servers that refuse MaxItems get the item without it, and are then asked to
// configure the node. Publish succeeds even if they do not: whether the items of
// other devices survive is for the caller to see, who reads back what matters.
// Errors of the server are *Error.
func Publish(ctx context.Context, r Requester, node, id string, payload *stanza.Element, o Options) error {
	p := publisher{r, node, id, payload}
	err := p.publish(ctx, o)
	if err != nil && o.MaxItems != "" && isRefusal(err) {
		err = p.publishFirst(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("pep: publishing on %s: %w", node, err)
	}
	return nil
}

type publisher struct {
	requester Requester
	node, id  string
	payload   *stanza.Element
}

// publish publishes with the options, and once more after configuring the node
// if they were not met.
func (p publisher) publish(ctx context.Context, o Options) error {
	err := p.send(ctx, o)
	if !isPrecondition(err) {
		return err
	}
	if err := Configure(ctx, p.requester, p.node, o); err != nil {
		return err
	}
	return p.send(ctx, o)
}

// publishFirst publishes without MaxItems and configures the node afterwards.
// QUIRK: ejabberd 23.01 answers publish-options with any max_items by
// resource-constraint, but takes them in a configuration.
func (p publisher) publishFirst(ctx context.Context, o Options) error {
	if err := p.publish(ctx, Options{AccessModel: o.AccessModel}); err != nil {
		return err
	}
	err := Configure(ctx, p.requester, p.node, o)
	if _, refused := errors.AsType[*Error](err); refused && o.MaxItems == Maximum {
		o.MaxItems = numericMaximum
		err = Configure(ctx, p.requester, p.node, o)
	}
	if _, refused := errors.AsType[*Error](err); refused {
		return nil // published, with as many items as the server likes
	}
	return err
}

func (p publisher) send(ctx context.Context, o Options) error {
	item := stanza.NewElement(NS, "item", p.payload)
	if p.id != "" {
		item.SetAttribute("id", p.id)
	}
	pubsub := stanza.NewElement(NS, "pubsub",
		stanza.NewElement(NS, "publish", item).SetAttribute("node", p.node),
		stanza.NewElement(NS, "publish-options", o.form(nsPublishOptions)),
	)
	_, err := request(ctx, p.requester, xmppstanza.SetIQ, "", pubsub)
	return err
}

// Configure sets options of a node of the own account and leaves the others as
// they are.
func Configure(ctx context.Context, r Requester, node string, o Options) error {
	configure := stanza.NewElement(NSOwner, "configure", o.form(nsNodeConfig)).SetAttribute("node", node)
	_, err := request(ctx, r, xmppstanza.SetIQ, "", stanza.NewElement(NSOwner, "pubsub", configure))
	return err
}

// Retract removes an item from a node of the own account and has subscribers
// notified. An item that does not exist is ErrNone.
func Retract(ctx context.Context, r Requester, node, id string) error {
	item := stanza.NewElement(NS, "item").SetAttribute("id", id)
	retract := stanza.NewElement(NS, "retract", item).SetAttribute("node", node).SetAttribute("notify", "true")
	_, err := request(ctx, r, xmppstanza.SetIQ, "", stanza.NewElement(NS, "pubsub", retract))
	return removed(err)
}

// Delete removes a node of the own account. A node that does not exist is
// ErrNone.
func Delete(ctx context.Context, r Requester, node string) error {
	del := stanza.NewElement(NSOwner, "delete").SetAttribute("node", node)
	_, err := request(ctx, r, xmppstanza.SetIQ, "", stanza.NewElement(NSOwner, "pubsub", del))
	return removed(err)
}

func removed(err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Condition == xmppstanza.ItemNotFound {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	return err
}
