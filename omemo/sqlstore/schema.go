package sqlstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"example.org/omellium/omemo"
)

// The schema is a list of steps. A step that was released never changes: its
// checksum stands in every database that took it. New tables and columns are
// new steps at the end.
var steps = [][]string{
	{
		// fence counts the owners, commits the transactions; inbox and outbox
		// are the highest sequence numbers ever used. wrapped is the data key
		// of a sealed account, digest the sealed sum over its sessions, and
		// written the number of the commit that wrote the record.
		`CREATE TABLE omemo_account (
			id BIGINT PRIMARY KEY,
			name TEXT NOT NULL UNIQUE,
			store {bytes} NOT NULL,
			fence BIGINT NOT NULL,
			commits BIGINT NOT NULL,
			inbox BIGINT NOT NULL,
			outbox BIGINT NOT NULL,
			wrapped {bytes},
			digest {bytes},
			written BIGINT NOT NULL,
			record {bytes}
		)`,
		// Empty where the operating system keeps other processes out.
		`CREATE TABLE omemo_lease (
			account BIGINT PRIMARY KEY REFERENCES omemo_account (id),
			instance TEXT NOT NULL,
			token TEXT NOT NULL,
			expires BIGINT NOT NULL
		)`,
		`CREATE TABLE omemo_pre_key (
			account BIGINT NOT NULL,
			version BIGINT NOT NULL,
			id BIGINT NOT NULL,
			used BIGINT NOT NULL,
			private {bytes} NOT NULL,
			PRIMARY KEY (account, version, id)
		) {clustered}`,
		// Not clustered: the sessions of a room are created together and then
		// stand on neighbouring pages, whatever their random ids.
		`CREATE TABLE omemo_session (
			account BIGINT NOT NULL,
			id BIGINT NOT NULL,
			version BIGINT NOT NULL,
			jid TEXT NOT NULL,
			device BIGINT NOT NULL,
			archived BIGINT NOT NULL,
			written BIGINT NOT NULL,
			record {bytes} NOT NULL,
			PRIMARY KEY (account, id)
		)`,
		`CREATE INDEX omemo_session_peer ON omemo_session (account, jid, device, version)`,
		`CREATE UNIQUE INDEX omemo_session_current ON omemo_session (account, jid, device, version) WHERE archived = 0`,
		`CREATE TABLE omemo_skipped (
			account BIGINT NOT NULL,
			session BIGINT NOT NULL,
			ratchet {bytes} NOT NULL,
			n BIGINT NOT NULL,
			seq BIGINT NOT NULL,
			secret {bytes} NOT NULL,
			PRIMARY KEY (account, session, ratchet, n)
		) {clustered}`,
		`CREATE TABLE omemo_ended (
			account BIGINT NOT NULL,
			version BIGINT NOT NULL,
			jid TEXT NOT NULL,
			device BIGINT NOT NULL,
			ratchet {bytes} NOT NULL,
			next BIGINT NOT NULL,
			ended BIGINT NOT NULL,
			PRIMARY KEY (account, version, jid, device, ratchet)
		) {clustered}`,
		`CREATE INDEX omemo_ended_when ON omemo_ended (account, ended)`,
		`CREATE TABLE omemo_contact (
			account BIGINT NOT NULL,
			jid TEXT NOT NULL,
			legacy_list BIGINT,
			v2_list BIGINT,
			seen BIGINT NOT NULL,
			written BIGINT NOT NULL,
			opt_out BIGINT NOT NULL,
			PRIMARY KEY (account, jid)
		) {clustered}`,
		`CREATE TABLE omemo_device (
			account BIGINT NOT NULL,
			jid TEXT NOT NULL,
			version BIGINT NOT NULL,
			device BIGINT NOT NULL,
			identity {bytes},
			fingerprint {bytes},
			active BIGINT NOT NULL,
			received BIGINT NOT NULL,
			sent BIGINT NOT NULL,
			invited BIGINT NOT NULL,
			label TEXT NOT NULL,
			label_signature {bytes},
			stale BIGINT NOT NULL,
			first_seen BIGINT NOT NULL,
			last_seen BIGINT NOT NULL,
			bundle_failures BIGINT NOT NULL,
			bundle_tried BIGINT NOT NULL,
			conflict {bytes},
			PRIMARY KEY (account, jid, version, device)
		) {clustered}`,
		`CREATE TABLE omemo_trust (
			account BIGINT NOT NULL,
			jid TEXT NOT NULL,
			fingerprint {bytes} NOT NULL,
			trust BIGINT NOT NULL,
			since BIGINT NOT NULL,
			PRIMARY KEY (account, jid, fingerprint)
		) {clustered}`,
		`CREATE TABLE omemo_inbox (
			account BIGINT NOT NULL,
			seq BIGINT NOT NULL,
			event TEXT NOT NULL,
			received BIGINT NOT NULL,
			attempts BIGINT NOT NULL,
			dead BIGINT NOT NULL,
			stanza {bytes} NOT NULL,
			PRIMARY KEY (account, seq)
		) {clustered}`,
		`CREATE TABLE omemo_outbox (
			account BIGINT NOT NULL,
			seq BIGINT NOT NULL,
			id TEXT NOT NULL,
			chat TEXT NOT NULL,
			devices {bytes} NOT NULL,
			created BIGINT NOT NULL,
			stanza {bytes} NOT NULL,
			PRIMARY KEY (account, seq)
		) {clustered}`,
		`CREATE TABLE omemo_journal (
			account BIGINT NOT NULL,
			id BIGINT NOT NULL,
			jid TEXT NOT NULL,
			device BIGINT NOT NULL,
			reason TEXT NOT NULL,
			received BIGINT NOT NULL,
			stanza {bytes} NOT NULL,
			PRIMARY KEY (account, id)
		) {clustered}`,
		`CREATE INDEX omemo_journal_device ON omemo_journal (account, jid, device)`,
		`CREATE TABLE omemo_owed (
			account BIGINT NOT NULL,
			kind BIGINT NOT NULL,
			version BIGINT NOT NULL,
			jid TEXT NOT NULL,
			device BIGINT NOT NULL,
			session BIGINT NOT NULL,
			since BIGINT NOT NULL,
			PRIMARY KEY (account, kind, version, jid, device, session)
		) {clustered}`,
		`CREATE TABLE omemo_cursor (
			account BIGINT NOT NULL,
			archive TEXT NOT NULL,
			position TEXT NOT NULL,
			learnt BIGINT NOT NULL,
			PRIMARY KEY (account, archive)
		) {clustered}`,
	},
	{
		`CREATE TABLE omemo_occupant (
			account BIGINT NOT NULL,
			room TEXT NOT NULL,
			nick TEXT NOT NULL,
			n BIGINT NOT NULL,
			jid TEXT NOT NULL,
			since BIGINT NOT NULL,
			seen BIGINT NOT NULL,
			PRIMARY KEY (account, room, nick, n)
		) {clustered}`,
		`CREATE TABLE omemo_echo (
			account BIGINT NOT NULL,
			hash {bytes} NOT NULL,
			outbox BIGINT NOT NULL,
			created BIGINT NOT NULL,
			content {bytes} NOT NULL,
			PRIMARY KEY (account, hash)
		) {clustered}`,
	},
	{
		`ALTER TABLE omemo_trust ADD COLUMN said_by {bytes}`,
		`CREATE TABLE omemo_statement (
			account BIGINT NOT NULL,
			jid TEXT NOT NULL,
			fingerprint {bytes} NOT NULL,
			owner TEXT NOT NULL,
			about {bytes} NOT NULL,
			trusted BIGINT NOT NULL,
			stated BIGINT NOT NULL,
			PRIMARY KEY (account, jid, fingerprint, owner, about)
		) {clustered}`,
	},
	{
		// Where the database stood when its sending state was last known to be
		// the newest: see Dialect.Place.
		`ALTER TABLE omemo_account ADD COLUMN place TEXT`,
	},
	{
		// How long a lease is, so that one is told that ends too far in the
		// future: the clock was set back since.
		`ALTER TABLE omemo_lease ADD COLUMN ttl BIGINT NOT NULL DEFAULT 0`,
	},
	{
		// Sessions are what is written most: see Dialect.Sparse.
		`{sparse}`,
	},
}

// checksum names the text of a step.
func checksum(step []string) string {
	sum := sha256.Sum256([]byte(strings.Join(step, ";\n")))
	return hex.EncodeToString(sum[:])
}

// migrateTries bounds how often a step is tried again that another process took
// at the same time.
const migrateTries = 10

// migrate brings the database to the newest schema, one transaction per step.
func (d *Database) migrate(ctx context.Context) error {
	for try := 1; ; try++ {
		err := d.migrateOnce(ctx)
		if err == nil || try == migrateTries || !d.dialect.Raced(err) && !d.dialect.Transient(err) {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

func (d *Database) migrateOnce(ctx context.Context) error {
	version, err := d.schemaVersion(ctx)
	if err != nil {
		return err
	}
	if version > len(steps) {
		return fmt.Errorf("sqlstore: schema %d, known are %d: %w", version, len(steps), omemo.ErrNewer)
	}
	for i := version; i < len(steps); i++ {
		if err := d.migrateStep(ctx, i); err != nil {
			return fmt.Errorf("sqlstore: schema step %d: %w", i+1, err)
		}
	}
	return nil
}

// schemaVersion returns the number of steps that the database took.
func (d *Database) schemaVersion(ctx context.Context) (int, error) {
	var tables int
	if err := d.sql.QueryRowContext(ctx, d.dialect.text(d.dialect.HasTable), "omemo_schema").Scan(&tables); err != nil {
		return 0, fmt.Errorf("sqlstore: schema: %w", err)
	}
	if tables == 0 {
		return 0, nil
	}
	rows, err := d.sql.QueryContext(ctx, `SELECT step, checksum FROM omemo_schema ORDER BY step`)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: schema: %w", err)
	}
	defer rows.Close()
	version := 0
	for rows.Next() {
		var step int
		var sum string
		if err := rows.Scan(&step, &sum); err != nil {
			return 0, fmt.Errorf("sqlstore: schema: %w", err)
		}
		version++
		if step != version || version <= len(steps) && sum != checksum(steps[version-1]) {
			return 0, fmt.Errorf("sqlstore: schema step %d is not ours: %w", step, omemo.ErrCorrupt)
		}
	}
	return version, rows.Err()
}

// migrateStep takes a step. Its row in omemo_schema comes first: of two
// processes, one waits for the other there, and then fails.
func (d *Database) migrateStep(ctx context.Context, i int) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if i == 0 {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE omemo_schema (step BIGINT PRIMARY KEY, checksum TEXT NOT NULL)`); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, d.dialect.text(`INSERT INTO omemo_schema (step, checksum) VALUES (?, ?)`), i+1, checksum(steps[i])); err != nil {
		return err
	}
	for _, statement := range steps[i] {
		text := d.dialect.text(statement)
		if text == "" {
			continue // other databases need it
		}
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return tx.Commit()
}
