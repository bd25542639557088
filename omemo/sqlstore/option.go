package sqlstore

import "time"

// DefaultLease is how long an owner that died keeps its account from others.
const DefaultLease = 5 * time.Second

// Settings is what options set.
type Settings struct {
	Key      KeyProvider   // nil: secrets are not sealed
	Wait     bool          // wait for the account where that is not the rule
	Lease    time.Duration // time to live of a lease
	Instance string        // name under which a lease is retaken; empty: none

	Anchor         string // directory of the anchors; empty: none
	AnchorRequired bool   // Open fails without it
}

// Option changes how a store is opened.
type Option func(*Settings)

// Collect applies options to the default settings.
func Collect(opts []Option) Settings {
	s := Settings{Lease: DefaultLease, Anchor: defaultAnchors()}
	for _, o := range opts {
		o(&s)
	}
	return s
}

// WithKey seals the secrets of an account at rest. An account is sealed from
// its creation, or never.
func WithKey(k KeyProvider) Option { return func(s *Settings) { s.Key = k } }

// WithWait makes Open wait, until its context ends, for an account or an SQLite
// file that is in use, instead of failing with omemo.ErrLocked at once.
// PostgreSQL stores wait in any case.
func WithWait() Option { return func(s *Settings) { s.Wait = true } }

// WithLease sets the time to live of a PostgreSQL lease. It bounds how long
// others wait for an account after its owner died, and how long an owner goes
// on without reaching the database.
func WithLease(ttl time.Duration) Option { return func(s *Settings) { s.Lease = ttl } }

// WithInstance names this process. A process that starts under the name of one
// that died takes its PostgreSQL leases over at once; two that run under one
// name at the same time push each other out.
func WithInstance(name string) Option { return func(s *Settings) { s.Instance = name } }

// WithAnchor says where a small file stands, outside the database and its
// backups, that remembers how far each account has come: a database that was
// put back into an older state is noticed by it (omemo.State.RolledBack). The
// directory is created; an empty name means that there is no such file. Without
// this option it is omellium in the directory where programs keep their state
// ($XDG_STATE_HOME or ~/.local/state), as far as that can be written.
func WithAnchor(dir string) Option {
	return func(s *Settings) { s.Anchor, s.AnchorRequired = dir, dir != "" }
}
