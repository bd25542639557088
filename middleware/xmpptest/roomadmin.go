package xmpptest

import (
	"maps"
	"slices"
	"strings"

	"mellium.im/xmpp/jid"
)

// roomIQ answers requests to a room or a service for rooms.
func (s *Server) roomIQ(c *session, iq, payload *element, to jid.JID) {
	get := iq.get("type") == "get"
	if to.Localpart() == "" {
		switch {
		case get && payload.is(nsInfo, "query"):
			s.reply(c, iq, info("conference", "text", []string{nsInfo, nsItems, nsMUC}))
		case get && payload.is(nsItems, "query"):
			s.reply(c, iq, el(nsItems, "query"))
		default:
			s.refuse(c, iq, serviceUnavailable)
		}
		return
	}
	r := s.rooms[to.Bare().String()]
	switch {
	case r == nil:
		s.refuse(c, iq, itemNotFound)
	case to.Resourcepart() != "":
		s.refuse(c, iq, serviceUnavailable) // occupants are not asked through the room
	case get && payload.is(nsInfo, "query"):
		s.reply(c, iq, info("conference", "text", s.withArchive(r.features())))
	case !get && s.archives && payload.is(nsMAM, "query"):
		if r.admits(c.bare) != nil {
			s.refuse(c, iq, forbidden)
			return
		}
		s.archiveIQ(c, &r.archive, r.bare, iq, payload)
	case payload.is(nsMUCAdmin, "query"):
		s.roomAdminIQ(c, r, iq, payload)
	case payload.is(nsMUCOwner, "query"):
		s.roomOwnerIQ(c, r, iq, payload)
	default:
		s.refuse(c, iq, serviceUnavailable)
	}
}

func (r *room) features() []string {
	list := []string{nsInfo, nsMUC, "muc_hidden", "muc_unmoderated", "muc_unsecured"}
	for _, f := range []struct {
		on      bool
		yes, no string
	}{
		{r.config.MembersOnly, "muc_membersonly", "muc_open"},
		{r.config.NonAnonymous, "muc_nonanonymous", "muc_semianonymous"},
	} {
		if f.on {
			list = append(list, f.yes)
		} else {
			list = append(list, f.no)
		}
	}
	return list
}

// roomAdminIQ reads and changes affiliations (XEP-0045 §9). The lists are for those who moderate,
// and, in a room that hides nobody, for its members, except the outcasts.
func (s *Server) roomAdminIQ(c *session, r *room, iq, query *element) {
	items := query.elements()
	if len(items) == 0 {
		s.refuse(c, iq, badRequest)
		return
	}
	if iq.get("type") == "get" {
		wanted := items[0].get("affiliation")
		member := r.affiliation(c.bare) != affiliationNone && r.affiliation(c.bare) != affiliationOutcast
		if !r.moderates(c.bare) && !(member && r.config.NonAnonymous && wanted != affiliationOutcast) {
			s.refuse(c, iq, forbidden)
			return
		}
		list := el(nsMUCAdmin, "query")
		for _, bare := range slices.Sorted(maps.Keys(r.affiliations)) {
			if r.affiliations[bare] == wanted {
				list.add(el(nsMUCAdmin, "item", "affiliation", wanted, "jid", bare))
			}
		}
		s.reply(c, iq, list)
		return
	}
	if !r.moderates(c.bare) {
		s.refuse(c, iq, forbidden)
		return
	}
	for _, item := range items {
		if j, err := jid.Parse(item.get("jid")); err == nil && item.get("affiliation") != "" {
			s.affiliate(r, j.Bare().String(), item.get("affiliation"))
		}
	}
	s.reply(c, iq)
}

// affiliate changes an affiliation and announces it: by presence if the account is there, else by a
// message (XEP-0045 §9.3).
func (s *Server) affiliate(r *room, bare, affiliation string) {
	if affiliation == affiliationNone {
		delete(r.affiliations, bare)
	} else {
		r.affiliations[bare] = affiliation
	}
	present := false
	for _, o := range r.ordered() {
		if o.bare != bare {
			continue
		}
		present = true
		switch refusal := r.admits(bare); {
		case refusal == nil:
			for _, other := range r.ordered() {
				s.show(r, o, other, "", "")
			}
		case affiliation == affiliationOutcast:
			s.leaveRoom(r, o, 301)
		default:
			s.leaveRoom(r, o, 321)
		}
	}
	if present {
		return
	}
	for _, o := range r.ordered() {
		item := el(nsMUCUser, "item", "affiliation", affiliation)
		if r.config.NonAnonymous || r.moderates(o.bare) {
			item.set("jid", bare)
		}
		s.toOccupant(o, el(nsClient, "message", "from", r.bare, "id", newID()).add(el(nsMUCUser, "x").add(item)))
	}
}

// roomOwnerIQ changes the configuration (XEP-0045 §10).
func (s *Server) roomOwnerIQ(c *session, r *room, iq, query *element) {
	if r.affiliation(c.bare) != affiliationOwner {
		s.refuse(c, iq, forbidden)
		return
	}
	field := func(form *element, name, value string) {
		form.add(el(nsForm, "field", "var", name).add(el(nsForm, "value").addText(value)))
	}
	whois, membersOnly := "moderators", "0"
	if r.config.NonAnonymous {
		whois = "anyone"
	}
	if r.config.MembersOnly {
		membersOnly = "1"
	}
	if iq.get("type") == "get" {
		form := el(nsForm, "x", "type", "form")
		field(form, "FORM_TYPE", formRoomConfig)
		field(form, "muc#roomconfig_membersonly", membersOnly)
		field(form, "muc#roomconfig_whois", whois)
		s.reply(c, iq, el(nsMUCOwner, "query").add(form))
		return
	}
	form := query.child(nsForm, "x")
	if form == nil {
		s.refuse(c, iq, badRequest)
		return
	}
	config := r.config
	for _, f := range form.elements() {
		v := f.child(nsForm, "value")
		if v == nil {
			continue
		}
		value := strings.TrimSpace(v.content())
		switch f.get("var") {
		case "muc#roomconfig_membersonly":
			config.MembersOnly = value == "1" || value == "true"
		case "muc#roomconfig_whois":
			config.NonAnonymous = value == "anyone"
		}
	}
	s.reply(c, iq)
	if form.get("type") == "submit" {
		s.configureRoom(r, config)
	}
}

// configureRoom announces what has changed (XEP-0045 §10.2.1) and sends those away who may not be
// there any more.
func (s *Server) configureRoom(r *room, config RoomConfig) {
	before := r.config
	r.config = config
	codes := []int{104}
	if config.NonAnonymous != before.NonAnonymous {
		if config.NonAnonymous {
			codes = append(codes, 172)
		} else {
			codes = append(codes, 173)
		}
	}
	for _, o := range r.ordered() {
		if r.admits(o.bare) != nil {
			s.leaveRoom(r, o, 322)
		}
	}
	for _, o := range r.ordered() {
		s.toOccupant(o, el(nsClient, "message", "from", r.bare, "type", "groupchat", "id", newID()).
			add(status(el(nsMUCUser, "x"), codes...)))
	}
	if config.NonAnonymous == before.NonAnonymous {
		return
	}
	for _, o := range r.ordered() {
		for _, other := range r.ordered() {
			s.show(r, o, other, "", "")
		}
	}
}
