package sqlstore

import (
	"time"

	"example.org/omellium/omemo"
)

var contacts = mapping[omemo.Contact, string]{
	table: table{
		name:   "omemo_contact",
		key:    []column{jidColumn},
		fields: []column{{"legacy_list", integer}, {"v2_list", integer}, {"seen", integer}, {"written", integer}, {"opt_out", integer}},
	},
	id:      func(r *omemo.Contact) string { return r.JID },
	bindKey: (*encoder).text,
	bindFields: func(e *encoder, r *omemo.Contact) {
		for _, v := range listVersions {
			when, ok := r.Lists[v]
			e.optional(when, ok)
		}
		e.flag(r.Seen)
		e.flag(r.Written)
		e.count(int(r.OptOut))
	},
	decode: func(d *decoder) (r omemo.Contact) {
		r.JID = d.text()
		r.Lists = make(map[omemo.Version]time.Time, len(listVersions))
		for _, v := range listVersions {
			if when, ok := d.optional(); ok {
				r.Lists[v] = when
			}
		}
		r.Seen = d.flag()
		r.Written = d.flag()
		r.OptOut = omemo.OptOut(d.count())
		return r
	},
}

// listVersions are the versions whose lists have columns, in their order.
var listVersions = [...]omemo.Version{omemo.Legacy, omemo.V2}

var devices = mapping[omemo.Device, omemo.Peer]{
	table: table{
		name: "omemo_device",
		key:  []column{versionColumn, jidColumn, deviceColumn},
		fields: []column{
			{"identity", octets}, {"fingerprint", octets},
			{"active", integer}, {"received", integer}, {"sent", integer}, {"invited", integer},
			{"label", text}, {"label_signature", octets}, {"stale", integer}, {"first_seen", integer}, {"last_seen", integer},
			{"bundle_failures", integer}, {"bundle_tried", integer}, {"conflict", octets},
		},
	},
	id:      func(r *omemo.Device) omemo.Peer { return r.Peer },
	bindKey: bindPeer,
	bindFields: func(e *encoder, r *omemo.Device) {
		e.public(r.Identity)
		e.public(r.Fingerprint)
		e.flag(r.Active)
		e.flag(r.Received)
		e.flag(r.Sent)
		e.flag(r.Invited)
		e.text(r.Label)
		e.signature(r.LabelSignature)
		e.flag(r.Stale)
		e.time(r.FirstSeen)
		e.time(r.LastSeen)
		e.count(r.BundleFailures)
		e.time(r.BundleTried)
		e.public(r.Conflict)
	},
	decode: func(d *decoder) (r omemo.Device) {
		r.Peer = decodePeer(d)
		r.Identity = d.public()
		r.Fingerprint = d.public()
		r.Active = d.flag()
		r.Received = d.flag()
		r.Sent = d.flag()
		r.Invited = d.flag()
		r.Label = d.text()
		r.LabelSignature = d.signature()
		r.Stale = d.flag()
		r.FirstSeen = d.time()
		r.LastSeen = d.time()
		r.BundleFailures = d.count()
		r.BundleTried = d.time()
		r.Conflict = d.public()
		return r
	},
}

// trustID names a decision.
type trustID struct {
	jid         string
	fingerprint omemo.Fingerprint
}

var trust = mapping[omemo.TrustRecord, trustID]{
	table: table{
		name:   "omemo_trust",
		key:    []column{jidColumn, {"fingerprint", octets}},
		fields: []column{{"trust", integer}, {"since", integer}, {"said_by", octets}},
	},
	id: func(r *omemo.TrustRecord) trustID { return trustID{r.JID, r.Fingerprint} },
	bindKey: func(e *encoder, id trustID) {
		e.text(id.jid)
		e.bytes(id.fingerprint[:])
	},
	bindFields: func(e *encoder, r *omemo.TrustRecord) {
		e.count(int(r.Trust))
		e.time(r.Since)
		e.public(r.By)
	},
	decode: func(d *decoder) (r omemo.TrustRecord) {
		r.JID = d.text()
		d.fill(r.Fingerprint[:], d.bytes())
		r.Trust = omemo.Trust(d.count())
		r.Since = d.time()
		r.By = d.public()
		return r
	},
}

// dropContacts deletes contacts, the decisions about their keys, and what they
// have stated.
func dropContacts(w *writer, jids []string) error {
	if err := contacts.drop(w, jids); err != nil {
		return err
	}
	for _, jid := range jids {
		for _, name := range []string{trust.name, statements.name} {
			e := w.encoder(name, 2)
			e.begin(w.store.account)
			e.text(jid)
			if _, err := w.exec(name, "forget", 1, func() string {
				return `DELETE FROM ` + name + ` WHERE account = ? AND jid = ?`
			}, e); err != nil {
				return err
			}
		}
	}
	return nil
}
