package xmpptest

import (
	"slices"
	"strconv"
	"strings"
)

// maxNodeItems is how many items a node keeps at most, and what max_items="max" stands for.
const maxNodeItems = 1000

// node is a node of an account's pubsub service.
type node struct {
	name   string
	config nodeConfig
	items  []item // oldest first
}

// item is one published item; the payload is an element with its namespace declared.
type item struct {
	id        string
	publisher string // bare JID
	payload   []byte
}

func (n *node) find(id string) int {
	return slices.IndexFunc(n.items, func(it item) bool { return it.id == id })
}

// put stores an item, in place of an older one with its id, and drops those that are too many.
func (n *node) put(it item) {
	if i := n.find(it.id); i >= 0 {
		n.items = slices.Delete(n.items, i, i+1)
	}
	n.items = append(n.items, it)
	n.trim()
}

func (n *node) trim() {
	if !n.config.persist {
		n.items = nil
	} else if extra := len(n.items) - n.config.limit(); extra > 0 {
		n.items = slices.Delete(n.items, 0, extra)
	}
}

func (it item) element(space string) *element {
	return el(space, "item", "id", it.id).addRaw(it.payload)
}

// nodeConfig is the configuration of a node (XEP-0060 §8.2), as far as it makes a difference here.
type nodeConfig struct {
	title         string
	access        string // open, presence or whitelist, which admits the owner only
	publishers    string // publishers (the owner) or open
	sendLast      string
	maxItems      int // 0: max
	persist       bool
	notifyRetract bool
	notifyDelete  bool
}

func defaultConfig() nodeConfig {
	return nodeConfig{
		access:        "presence",
		publishers:    "publishers",
		sendLast:      "on_sub_and_presence",
		maxItems:      1,
		persist:       true,
		notifyRetract: true,
		notifyDelete:  true,
	}
}

func (c nodeConfig) limit() int {
	if c.maxItems == 0 {
		return maxNodeItems
	}
	return c.maxItems
}

// nodeField connects a field of the configuration form with the configuration.
type nodeField struct {
	name, kind string
	value      func(c *nodeConfig) string
	set        func(c *nodeConfig, value string) bool // false: not acceptable
}

var nodeFields = []nodeField{
	textField("title", func(c *nodeConfig) *string { return &c.title }),
	choiceField("access_model", func(c *nodeConfig) *string { return &c.access }, "open", "presence", "whitelist"),
	choiceField("publish_model", func(c *nodeConfig) *string { return &c.publishers }, "publishers", "open"),
	choiceField("send_last_published_item", func(c *nodeConfig) *string { return &c.sendLast },
		"never", "on_sub", "on_sub_and_presence"),
	{name: maxItemsField, kind: "text-single", value: func(c *nodeConfig) string {
		if c.maxItems == 0 {
			return "max"
		}
		return strconv.Itoa(c.maxItems)
	}, set: func(c *nodeConfig, value string) bool {
		if value == "max" {
			c.maxItems = 0
			return true
		}
		n, err := strconv.Atoi(value)
		c.maxItems = n
		return err == nil && n > 0 && n <= maxNodeItems
	}},
	boolField("persist_items", func(c *nodeConfig) *bool { return &c.persist }),
	boolField("notify_retract", func(c *nodeConfig) *bool { return &c.notifyRetract }),
	boolField("notify_delete", func(c *nodeConfig) *bool { return &c.notifyDelete }),
}

const maxItemsField = "max_items"

func textField(name string, at func(*nodeConfig) *string) nodeField {
	return nodeField{name: name, kind: "text-single",
		value: func(c *nodeConfig) string { return *at(c) },
		set:   func(c *nodeConfig, value string) bool { *at(c) = value; return true }}
}

func choiceField(name string, at func(*nodeConfig) *string, choices ...string) nodeField {
	f := textField(name, at)
	f.kind = "list-single"
	f.set = func(c *nodeConfig, value string) bool {
		*at(c) = value
		return slices.Contains(choices, value)
	}
	return f
}

func boolField(name string, at func(*nodeConfig) *bool) nodeField {
	return nodeField{name: name, kind: "boolean",
		value: func(c *nodeConfig) string {
			if *at(c) {
				return "1"
			}
			return "0"
		},
		set: func(c *nodeConfig, value string) bool {
			*at(c) = value == "1" || value == "true"
			return *at(c) || value == "0" || value == "false"
		}}
}

// apply returns the configuration changed by a submitted form of the given type, and the names of
// the fields in it. Unknown fields are ignored.
func (c nodeConfig) apply(form *element, formType string) (nodeConfig, []string, *stanzaError) {
	if form == nil || form.get("type") != "submit" {
		return c, nil, &badRequest
	}
	var names []string
	typed := false
	for _, e := range form.elements() {
		value := ""
		if v := e.child(nsForm, "value"); v != nil {
			value = strings.TrimSpace(v.content())
		}
		if e.get("var") == "FORM_TYPE" {
			typed = value == formType
			continue
		}
		for _, f := range nodeFields {
			if e.get("var") == "pubsub#"+f.name {
				names = append(names, f.name)
				if !f.set(&c, value) {
					return c, names, &stanzaError{kind: "modify", condition: "not-acceptable"}
				}
			}
		}
	}
	if !typed {
		return c, names, &badRequest
	}
	return c, names, nil
}

// form writes the configuration as a form.
func (c nodeConfig) form(formType, kind string) *element {
	form := el(nsForm, "x", "type", kind)
	form.add(el(nsForm, "field", "var", "FORM_TYPE", "type", "hidden").add(el(nsForm, "value").addText(formType)))
	for _, f := range nodeFields {
		form.add(el(nsForm, "field", "var", "pubsub#"+f.name, "type", f.kind).
			add(el(nsForm, "value").addText(f.value(&c))))
	}
	return form
}
