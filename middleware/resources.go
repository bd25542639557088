package middleware

import (
	"sync"

	"mellium.im/xmpp/jid"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// resources are those of others whose presence we see. A client puts its device
// on its list when it comes online, and ejabberd may tell nobody of a list that
// changes just then (about once in twenty logins under load): the lists of an
// account are asked for before they are used again when a resource of it has come.
type resources struct {
	mu     sync.Mutex
	online map[string]bool
}

// maxResources bounds those that are known: who is forgotten comes once more.
const maxResources = 8192

// presenceOf takes note of who comes and goes.
func (l *link) presenceOf(e *stanza.Element) {
	from, err := jid.Parse(attribute(e, "from"))
	bare := from.Bare().String()
	if err != nil || from.Resourcepart() == "" || from.Equal(l.full) || l.rooms.find(bare) != nil {
		return
	}
	switch attribute(e, "type") {
	case "":
		if !l.resources.come(from.String()) {
			return
		}
	case "unavailable":
		l.resources.gone(from.String())
		return
	default:
		return
	}
	for _, v := range omemo.Versions() {
		l.directory.changed(listKey{bare, v})
	}
	if bare == l.m.own.JID {
		signal(l.wake)
	}
}

// come reports whether a resource was not there before.
func (r *resources) come(full string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.online[full] {
		return false
	}
	if r.online == nil || len(r.online) >= maxResources {
		r.online = make(map[string]bool)
	}
	r.online[full] = true
	return true
}

func (r *resources) gone(full string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.online, full)
}
