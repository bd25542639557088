package pep

import (
	"errors"
	"slices"
	"strings"

	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// ErrNone: the account has no such node or item, or does not let us see it,
// which comes to the same. Of the own account it says for certain that there is
// none: see isAbsent.
var ErrNone = errors.New("pep: no such item")

// Error is the error reply of a server.
type Error struct {
	Type      xmppstanza.ErrorType
	Condition xmppstanza.Condition
	// App holds the names of the application's conditions, of which
	// those of XEP-0060 are the ones of interest: "precondition-not-met".
	App []string
	// Unsupported is the feature that XEP-0060 names as missing:
	// "persistent-items".
	Unsupported string
}

func (e *Error) Error() string {
	s := "pep: " + string(e.Condition)
	if len(e.App) > 0 {
		s += " (" + strings.Join(e.App, ", ") + ")"
	}
	return s
}

// parseError reads the <error/> of a reply. What is missing stays empty, with
// undefined-condition for a missing condition (RFC 6120, section 8.3).
func parseError(reply *stanza.Element) *Error {
	e := &Error{Condition: xmppstanza.UndefinedCondition}
	for child := range reply.Elements() {
		if child.Name.Local != "error" || child.Name.Space != reply.Name.Space {
			continue
		}
		typ, _ := child.Attribute("type")
		e.Type = xmppstanza.ErrorType(typ)
		for c := range child.Elements() {
			switch c.Name.Space {
			case nsStanzaErrors:
				if c.Name.Local != "text" {
					e.Condition = xmppstanza.Condition(c.Name.Local)
				}
			case NSErrors:
				e.App = append(e.App, c.Name.Local)
				if c.Name.Local == "unsupported" {
					e.Unsupported, _ = c.Attribute("feature")
				}
			}
		}
	}
	return e
}

// isNone reports whether a fetch failed in a way that says that there is
// nothing for us: it does not exist, we may not see it, or the account does not
// exist or has no eventing service.
func isNone(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains([]xmppstanza.Condition{
		xmppstanza.ItemNotFound,
		xmppstanza.Forbidden,
		xmppstanza.NotAuthorized, // with presence-subscription-required or not-in-roster-group
		xmppstanza.ServiceUnavailable,
		xmppstanza.FeatureNotImplemented,
	}, e.Condition) || ok && slices.Contains(e.App, "closed-node")
}

// isAbsent reports whether a fetch from the own account failed in a way that says
// that there is nothing: the node does not exist, or keeps no items (XEP-0060,
// section 6.5.9). All else leaves open what the server has, and whoever published
// in its place might write over it. That we may not see what is ours is a fault of
// the server, and service-unavailable may last for a moment only.
func isAbsent(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Condition == xmppstanza.ItemNotFound ||
		e.Condition == xmppstanza.FeatureNotImplemented && e.Unsupported == "persistent-items")
}

// isPrecondition reports whether a node exists with other options than those
// asked for (XEP-0060, section 7.1.5).
func isPrecondition(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains(e.App, "precondition-not-met")
}

// isRefusal reports whether a server refused what was asked for, other than for
// want of permission: it may grant less.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains([]xmppstanza.Condition{
		xmppstanza.BadRequest,
		xmppstanza.Conflict,
		xmppstanza.FeatureNotImplemented,
		xmppstanza.NotAcceptable,
		xmppstanza.NotAllowed,
		xmppstanza.ResourceConstraint, // ejabberd 23.01
		xmppstanza.UndefinedCondition,
		xmppstanza.InternalServerError,
	}, e.Condition)
}
