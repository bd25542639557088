package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/stanza"
)

// joinGrace is how long a message waits for its room to be joined at all.
const joinGrace = time.Second

// maxMembers bounds the members of a room that messages are encrypted for.
const maxMembers = 1000

const (
	nsRoomAdmin  = nsRoom + "#admin"
	nsConditions = "urn:ietf:params:xml:ns:xmpp-stanzas"
)

// Features of rooms (XEP-0045, section 15.3).
const (
	featureNonAnonymous = "muc_nonanonymous"
	featureMembersOnly  = "muc_membersonly"
)

// membership is what a room has said about itself.
type membership struct {
	of      *room
	changes uint64 // of the room, when it was asked
	at      time.Time
	members []string // bare JIDs without our own, in order
	// unfit is why the room cannot be written to: ErrRoomAnonymous, ErrRoomOpen
	// or ErrRoomTooLarge.
	unfit error
}

func (k *membership) has(account string) bool {
	_, found := slices.BinarySearch(k.members, account)
	return found
}

// current reports whether there is no reason to ask again.
func (k *membership) current(m *room, age time.Duration) bool {
	return k != nil && k.changes == m.changes && time.Since(k.at) <= age
}

// overtaken reports whether the room has shown, while it was asked, that an
// affiliation is another: an answer that came before that is outdated.
func (k *membership) overtaken(heard map[string]string) bool {
	for account, affiliation := range heard {
		if k.unfit == nil && k.has(account) != isMember(affiliation) {
			return true
		}
	}
	return false
}

// hold reports whether nothing is known to have changed in a room since its
// members were asked for.
func (r *rooms) hold(k *membership) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joined[k.of.bare] == k.of && k.of.changes == k.changes
}

// memory returns the members of a room without asking, if what is known of them
// holds.
func (r *rooms) memory(bare string) (*membership, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := r.joined[bare]; {
	case m == nil:
		return nil, ErrNotJoined
	case m.known == nil || m.known.changes != m.changes:
		return nil, ErrRoomChanged
	case m.known.unfit != nil:
		return nil, m.known.unfit
	default:
		return m.known, nil
	}
}

// some returns up to n of the accounts that are known to be in a room or members of
// it, any of them, without our own, and without asking.
func (r *rooms) some(bare string, n int) (accounts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.joined[bare]
	if m == nil {
		return nil
	}
	all := make(map[string]bool)
	if m.known != nil {
		for _, account := range m.known.members {
			all[account] = true
		}
	}
	for _, o := range m.occupants {
		all[o.account] = true
	}
	delete(all, "")
	delete(all, r.l.m.own.JID)
	for account := range all { // in no order
		if accounts = append(accounts, account); len(accounts) == n {
			break
		}
	}
	return accounts
}

// members returns the accounts that a message to a room is for, online or not:
// its owners, admins and members, never outcasts, never ourselves. It waits until
// we are in the room, and asks the room for what may have changed. What it returns
// is fit to be written to.
func (r *rooms) members(ctx context.Context, bare string) (*membership, error) {
	m := r.joining(ctx, bare)
	if m == nil {
		return nil, ErrNotJoined
	}
	ctx, cancel := context.WithTimeout(ctx, r.l.m.config.FetchTimeout)
	defer cancel()
	select {
	case <-m.entered:
	case <-m.gone:
		return nil, ErrNotJoined
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotJoined, ctx.Err())
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("middleware: members of a room: %w", ctx.Err())
	}
	for {
		r.mu.Lock()
		before, changes := m.known, m.changes
		current := before.current(m, r.l.m.config.ListAge)
		if !current {
			m.heard = make(map[string]string)
		}
		r.mu.Unlock()
		select {
		case <-m.gone:
			return nil, ErrNotJoined
		default:
		}
		switch {
		case current && before.unfit != nil:
			return nil, before.unfit
		case current:
			return before, nil
		}
		known, err := r.ask(ctx, m)
		r.mu.Lock()
		heard := m.heard
		m.heard = nil
		if err == nil {
			known.of, known.changes, known.at = m, changes, time.Now()
			m.known = known
			if known.overtaken(heard) {
				r.doubt(m)
			}
		}
		r.mu.Unlock()
		if err != nil {
			return nil, fmt.Errorf("middleware: members of a room: %w", err)
		}
		r.report(bare, before, known)
	}
}

// joining returns a room that the application joins, if it does so soon: what it
// sends with Send can overtake what it has written to the session.
func (r *rooms) joining(ctx context.Context, bare string) *room {
	grace := time.NewTimer(joinGrace)
	defer grace.Stop()
	for {
		news := r.asked.wait()
		if m := r.find(bare); m != nil {
			return m
		}
		select {
		case <-news:
		case <-grace.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// report tells the application what has changed in a room.
func (r *rooms) report(bare string, before, now *membership) {
	switch {
	case now.unfit != nil:
		if before == nil || !errors.Is(before.unfit, now.unfit) {
			r.l.m.emit(Event{Kind: RoomUnfit, Account: bare, Err: now.unfit})
		}
		return
	case before == nil || before.unfit != nil:
		r.l.m.emit(Event{Kind: RoomReady, Account: bare, Total: len(now.members)})
		return
	}
	for _, account := range now.members {
		if !before.has(account) {
			r.l.m.emit(Event{Kind: RecipientAdded, Account: account, Room: bare})
		}
	}
	for _, account := range before.members {
		if !now.has(account) {
			r.l.m.emit(Event{Kind: RecipientRemoved, Account: account, Room: bare})
		}
	}
}

// ask asks a room what it is and who its members are.
func (r *rooms) ask(ctx context.Context, m *room) (*membership, error) {
	info, err := r.request(ctx, m.bare, stanza.NewElement(nsDiscoInfo, "query"))
	if err != nil {
		return nil, err
	}
	features := make(map[string]bool)
	if query := info.Child(nsDiscoInfo, "query"); query != nil {
		for f := range query.Elements() {
			if f.Is(nsDiscoInfo, "feature") {
				features[attribute(f, "var")] = true
			}
		}
	}
	switch {
	case !features[featureNonAnonymous]:
		return &membership{unfit: ErrRoomAnonymous}, nil
	case !features[featureMembersOnly]:
		return &membership{unfit: ErrRoomOpen}, nil
	}
	affiliations := [...]string{"owner", "admin", "member"}
	var lists [len(affiliations)][]string
	var failures [len(affiliations)]error
	var wg sync.WaitGroup
	for i, affiliation := range affiliations {
		wg.Go(func() { lists[i], failures[i] = r.list(ctx, m.bare, affiliation) })
	}
	wg.Wait()
	var members []string
	for i, affiliation := range affiliations {
		switch err := failures[i]; {
		case err == errForbidden && affiliation != "member":
			// Some rooms tell who their owners and admins are only to those: who of
			// them is there is known from presence. Nothing is added to a list that
			// could be had: of presence, some may have been lost.
			members = append(members, r.there(m, affiliation)...)
		case err != nil:
			return nil, fmt.Errorf("list of %ss: %w", affiliation, err)
		}
		members = append(members, lists[i]...)
	}
	slices.Sort(members)
	members = slices.Compact(members)
	members = slices.DeleteFunc(members, func(account string) bool { return account == r.l.m.own.JID })
	if len(members) > maxMembers {
		return &membership{unfit: ErrRoomTooLarge}, nil
	}
	return &membership{members: members}, nil
}

// there returns the accounts in a room that it has shown with an affiliation.
func (r *rooms) there(m *room, affiliation string) (accounts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range m.occupants {
		if o.account != "" && o.affiliation == affiliation {
			accounts = append(accounts, o.account)
		}
	}
	return accounts
}

// list asks for the accounts with an affiliation.
func (r *rooms) list(ctx context.Context, bare, affiliation string) ([]string, error) {
	item := stanza.NewElement(nsRoomAdmin, "item").SetAttribute("affiliation", affiliation)
	reply, err := r.request(ctx, bare, stanza.NewElement(nsRoomAdmin, "query", item))
	if err != nil {
		return nil, err
	}
	var accounts []string
	if query := reply.Child(nsRoomAdmin, "query"); query != nil {
		for c := range query.Elements() {
			j, err := parseBare(attribute(c, "jid"))
			if err == nil && c.Is(nsRoomAdmin, "item") && attribute(c, "affiliation") == affiliation && j.Localpart() != "" {
				accounts = append(accounts, j.String())
			}
		}
	}
	return accounts, nil
}

var (
	errForbidden = errors.New("middleware: the room does not tell")
	errAnswer    = errors.New("middleware: the room answers with an error")
)

func (r *rooms) request(ctx context.Context, bare string, query *stanza.Element) (*stanza.Element, error) {
	iq := stanza.NewElement(stanza.NSClient, "iq", query).SetAttribute("type", "get").SetAttribute("to", bare)
	reply, err := r.l.Request(ctx, iq)
	if err != nil {
		return nil, err
	}
	if attribute(reply, "type") == "result" {
		return reply, nil
	}
	if e := child(reply, "error"); e != nil && (e.Child(nsConditions, "forbidden") != nil || e.Child(nsConditions, "not-authorized") != nil) {
		return nil, errForbidden
	}
	return nil, errAnswer
}

// refresh asks the rooms that we are in for what may have changed, so that
// messages need not wait for it, and so that a room that cannot be written to is
// known before anybody tries.
func (r *rooms) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for bare, m := range r.joined {
		select {
		case <-m.entered:
		default:
			continue
		}
		if m.asking || m.known.current(m, r.l.m.config.ListAge) {
			continue
		}
		m.asking = true
		r.l.tasks.Go(func() {
			known, err := r.members(r.l.ctx, bare)
			if err == nil && r.l.m.config.Receive != nil { // answers are sealed where nothing can be waited for
				err = r.l.aheadOf(r.l.ctx, bare, known)
			}
			if err != nil && !isUnfit(err) && !errors.Is(err, ErrNotJoined) {
				r.l.trouble(err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			m.asking = false
			if err == nil && m.changes != m.known.changes {
				signal(r.l.wake) // it changed once more
			}
		})
	}
}

// isUnfit reports whether a room cannot be written to, as opposed to one that
// could not be asked.
func isUnfit(err error) bool { return errors.Is(err, ErrRoomUnsupported) }
