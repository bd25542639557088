// Package sqlstore keeps the state of accounts in an SQL database. Open a store
// with sqlstore/sqlite or sqlstore/postgres; this package holds what both have
// in common.
//
// One database holds any number of accounts; an account has one owner at a
// time. Everything that a message changes is written in one durable
// transaction, which carries the owner's fencing token: an owner that was
// replaced can write nothing more.
//
// Times are kept in UTC, to the microsecond; the zero time stays zero. Texts
// are UTF-8 without NUL bytes. Ids and sequence numbers have at most 63 bits.
//
// All tables are called omemo_…, so that a database may be shared with an
// application's own tables. Without a key (see WithKey) secrets stand in the
// database as they are, and file permissions are all that protects them. With a
// key, they are sealed; who talks to whom, fingerprints and decisions of trust
// are not secrets in this sense, and stay readable. Nobody without the key can
// change what counts: the account, the sessions, and all that is known about
// other accounts, decisions of trust above all, are compared with what was
// written last, row by row; a row that was changed, added, removed or put back
// into an older state is ErrTampered. Of other rows the secrets are bound to
// their places. Whoever puts back all of it at once is found out by other means:
// see WithAnchor and omemo.Manager.Ahead.
//
// Never copy a database to run it twice, and never restore an old one: both
// make ratchets go back, and keys be used twice.
package sqlstore
