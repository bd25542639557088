package golden

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// Listing lists the rows of all accounts, a line for each, secrets included.
// Fields with their zero values are left out, so that later formats, which have
// more of them, list a row in the same way.
func Listing(t testing.TB, open Opener) string {
	t.Helper()
	var lines []string
	for _, jid := range []string{Juliet, Romeo, Nurse} {
		s := open(jid)
		rows, err := rowsOf(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range rows {
			rows[i] = jid + " " + line
		}
		slices.Sort(rows)
		lines = append(lines, rows...)
	}
	return strings.Join(lines, "\n") + "\n"
}

func rowsOf(ctx context.Context, s omemo.Store) (lines []string, err error) {
	var all error
	state, err := s.Load(ctx)
	all = errors.Join(all, err)
	state.RolledBack = false // says where the database stands, and not what is in it
	lines = append(lines, line(state))
	known, err := s.Accounts(ctx)
	all = errors.Join(all, err)
	var peers []omemo.Peer
	for _, d := range known.Devices {
		peers = append(peers, d.Peer)
	}
	for _, v := range omemo.Versions() {
		rows, err := s.PreKeys(ctx, v)
		all = errors.Join(all, err)
		lines = append(lines, each(rows)...)
	}
	sessions, err := s.Sessions(ctx, peers)
	all = errors.Join(all, err)
	inbox, err := s.Inbox(ctx, 0, 1000)
	all = errors.Join(all, err)
	outbox, err := s.Outbox(ctx, 0, 1000)
	all = errors.Join(all, err)
	journal, err := s.Journal(ctx, omemo.Address{})
	all = errors.Join(all, err)
	owed, err := s.Owed(ctx)
	all = errors.Join(all, err)
	cursors, err := s.Cursors(ctx)
	all = errors.Join(all, err)
	occupants, err := s.Occupants(ctx)
	all = errors.Join(all, err)
	echoes, err := s.Echoes(ctx)
	all = errors.Join(all, err)
	statements, err := s.Statements(ctx)
	all = errors.Join(all, err)
	return slices.Concat(lines, each(known.Contacts), each(known.Devices), each(known.Trust), each(sessions), each(inbox),
		each(outbox), each(journal), each(owed), each(cursors), each(occupants), each(echoes), each(statements)), all
}

func each[R any](rows []R) (lines []string) {
	for _, r := range rows {
		lines = append(lines, line(r))
	}
	return lines
}

// line writes a row as name(field value, …).
func line(row any) string {
	v := reflect.ValueOf(row)
	return v.Type().Name() + text(v)
}

// text writes a value. The formatting of fmt would hide secrets.
func text(v reflect.Value) string {
	if t, ok := v.Interface().(time.Time); ok {
		return t.UTC().Format(time.RFC3339Nano)
	}
	switch v.Kind() {
	case reflect.Struct:
		var fields []string
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				fields = append(fields, v.Type().Field(i).Name+" "+text(v.Field(i)))
			}
		}
		return "(" + strings.Join(fields, ", ") + ")"
	case reflect.Map:
		var pairs []string
		for _, k := range v.MapKeys() {
			pairs = append(pairs, text(k)+" "+text(v.MapIndex(k)))
		}
		slices.Sort(pairs)
		return "{" + strings.Join(pairs, ", ") + "}"
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return bytesOf(v)
		}
		var values []string
		for i := range v.Len() {
			values = append(values, text(v.Index(i)))
		}
		return "[" + strings.Join(values, ", ") + "]"
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Bool:
		return fmt.Sprint(v.Bool())
	case reflect.Int, reflect.Int64:
		return fmt.Sprint(v.Int())
	default:
		return fmt.Sprint(v.Uint())
	}
}

func bytesOf(v reflect.Value) string {
	b := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(b), v)
	return fmt.Sprintf("%x", b)
}
