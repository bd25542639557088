package omemo

import (
	"context"
	"slices"
)

// This file answers questions about rows as they will be once the unit of work
// is committed: several messages of a page are opened in one.

// skipped returns skipped message keys.
func (u *unit) skipped(ctx context.Context, ids []SkippedID) ([]SkippedRow, error) {
	rows, err := u.store.Skipped(ctx, ids)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r SkippedRow) bool { return slices.Contains(u.changes.DropSkipped, r.SkippedID) })
	for _, r := range u.changes.Skipped {
		if slices.Contains(ids, r.SkippedID) {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// dropSkipped removes a skipped message key, committed or not.
func (u *unit) dropSkipped(id SkippedID) {
	u.changes.DropSkipped = append(u.changes.DropSkipped, id)
	u.changes.Skipped = slices.DeleteFunc(u.changes.Skipped, func(r SkippedRow) bool { return r.SkippedID == id })
}

// ended returns the mark of a receiving chain, if it has one.
func (u *unit) ended(ctx context.Context, id ChainID) ([]EndedChain, error) {
	for _, mark := range slices.Backward(u.changes.Ended) {
		if mark.ChainID == id {
			return []EndedChain{mark}, nil
		}
	}
	return u.store.Ended(ctx, []ChainID{id})
}

// preKeys returns an own pre key, if there is one.
func (u *unit) preKeys(ctx context.Context, v Version, id uint32) ([]PreKeyRow, error) {
	if slices.Contains(u.changes.DropPreKeys, PreKeyID{v, id}) {
		return nil, nil
	}
	for _, row := range slices.Backward(u.changes.PreKeys) {
		if row.Version == v && row.ID == id {
			return []PreKeyRow{row}, nil
		}
	}
	return u.store.PreKeys(ctx, v, id)
}

// journal returns all rows of the journal.
func (u *unit) journal(ctx context.Context) ([]JournalRow, error) {
	rows, err := u.store.Journal(ctx, Address{})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r JournalRow) bool { return slices.Contains(u.changes.DropJournal, r.ID) })
	return append(rows, u.changes.Journal...), nil
}

// statements returns what devices of an account have said and is waiting.
func (u *unit) statements(ctx context.Context, jid string) ([]StatementRow, error) {
	rows, err := u.store.Statements(ctx, jid)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r StatementRow) bool {
		return slices.Contains(u.changes.DropStatements, r.StatementID) ||
			slices.ContainsFunc(u.changes.Statements, func(later StatementRow) bool { return later.StatementID == r.StatementID })
	})
	for _, r := range u.changes.Statements {
		if r.JID == jid {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// keepStatement has a statement wait.
func (u *unit) keepStatement(row StatementRow) {
	u.changes.Statements = slices.DeleteFunc(u.changes.Statements, func(r StatementRow) bool { return r.StatementID == row.StatementID })
	u.changes.Statements = append(u.changes.Statements, row)
}

// dropStatement removes a statement, committed or not.
func (u *unit) dropStatement(id StatementID) {
	u.changes.DropStatements = append(u.changes.DropStatements, id)
	u.changes.Statements = slices.DeleteFunc(u.changes.Statements, func(r StatementRow) bool { return r.StatementID == id })
}
