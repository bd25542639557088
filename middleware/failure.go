package middleware

import (
	"context"
	"errors"

	"example.org/omellium/omemo"
)

// condition maps an error to the condition and type of an error stanza.
func condition(err error) (condition, typ string) {
	switch {
	case errors.Is(err, omemo.ErrUntrusted), errors.Is(err, omemo.ErrIdentityChanged):
		return "not-authorized", "auth"
	case errors.Is(err, ErrTooLarge):
		return "policy-violation", "modify"
	case errors.Is(err, ErrMessage):
		return "bad-request", "modify"
	case errors.Is(err, ErrNotJoined), errors.Is(err, ErrRoomUnsupported), errors.Is(err, ErrRoomMember), errors.Is(err, ErrRoomChanged):
		return "not-acceptable", "cancel"
	case errors.Is(err, ErrOccupant):
		return "item-not-found", "cancel"
	case errors.Is(err, omemo.ErrNoDevices), errors.Is(err, omemo.ErrNoBundle), errors.Is(err, omemo.ErrBundle),
		errors.Is(err, omemo.ErrDowngrade), errors.Is(err, omemo.ErrNoForm), errors.Is(err, omemo.ErrOptedOut):
		return "not-acceptable", "cancel"
	case errors.Is(err, context.DeadlineExceeded):
		return "remote-server-timeout", "wait"
	case errors.Is(err, context.Canceled), errors.Is(err, ErrOffline), errors.Is(err, ErrReplaced), errors.Is(err, ErrClosed):
		return "recipient-unavailable", "wait"
	}
	return "internal-server-error", "wait"
}
