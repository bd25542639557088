package middleware

import (
	"context"
	"slices"

	"mellium.im/xmpp/jid"
)

// RoomMembers returns the accounts that a message to a room is encrypted for, as
// bare JIDs in order, without our own: its owners, admins and members, online or
// not, for a program that shows their keys. It waits as a message does, until the
// room is joined and has told of what may have changed, and fails as a message
// would: with ErrNotJoined, or an error that unwraps to ErrRoomUnsupported. The
// events RoomReady, RecipientAdded and RecipientRemoved tell when to ask again.
func (m *Middleware) RoomMembers(ctx context.Context, room jid.JID) ([]string, error) {
	l, err := m.ready(ctx)
	if err != nil {
		return nil, err
	}
	known, err := l.rooms.members(ctx, room.Bare().String())
	if err != nil {
		return nil, err
	}
	return slices.Clone(known.members), nil
}
