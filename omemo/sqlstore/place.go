package sqlstore

import (
	"context"
	"fmt"
)

// locate compares the place of the database with the one that was noted. In
// another place, the database is a copy: a dump or a backup that was restored,
// or a standby that was promoted, and nobody knows what it misses. It counts as
// rolled back until its sending state was made anew, in the same commit that
// notes the new place.
func (s *Store) locate(ctx context.Context, noted string) error {
	if s.db.dialect.Place == nil {
		return nil
	}
	place, err := s.db.dialect.Place(ctx, s.db.sql)
	if err != nil {
		return fmt.Errorf("sqlstore: find out where the database stands: %w", err)
	}
	switch {
	case place == "" || place == noted:
		return nil
	case noted != "":
		s.moved = place
		s.rolledBack.Store(true)
		return nil
	}
	if err := s.alter(ctx, `UPDATE omemo_account SET place = ? WHERE id = ? AND fence = ?`, place); err != nil {
		return fmt.Errorf("sqlstore: note where the database stands: %w", err)
	}
	return nil
}
