package pep

import (
	"context"

	"example.org/omellium/stanza"
)

// Items returns all items of a node that the server gives at once, newest or
// oldest first as it likes. If there are none that we may see, the list is
// empty; a node that does not exist is ErrNone.
func Items(ctx context.Context, r Requester, account, node string) ([]Item, error) {
	return fetch(ctx, r, account, node, stanza.NewElement(NS, "items"))
}
