package sqlstore

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzSealed opens sealed columns that somebody has changed, or moved to another
// row, table or account.
func FuzzSealed(f *testing.F) {
	f.Add("omemo_session", "1", []byte("a secret"), []byte{0, 1})
	f.Add("omemo_prekey", "romeo@example.net", []byte{}, []byte{30, 0x80, 41, 1})
	f.Add("", "", bytes.Repeat([]byte{7}, 400), []byte{255})
	store, key := bytes.Repeat([]byte{1}, storeIDSize), bytes.Repeat([]byte{2}, dataKeySize)
	s, err := newSealer(store, key)
	if err != nil {
		f.Fatal(err)
	}
	other, err := newSealer(bytes.Repeat([]byte{3}, storeIDSize), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, table, column string, secret, change []byte) {
		sealed := s.seal(nil, s.bound(nil, table, []any{column, int64(7)}), secret)
		if bytes.Contains(sealed, secret) && len(secret) > 8 {
			t.Fatal("the secret stands in clear")
		}
		got, err := s.open(table, []any{column, int64(7)}, sealed)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("opened as %x, %v", got, err)
		}
		refuses := func(what string, by *sealer, table string, columns []any, sealed []byte) {
			t.Helper()
			if got, err := by.open(table, columns, sealed); !errors.Is(err, ErrTampered) || got != nil {
				t.Fatalf("%s: %x, %v", what, got, err)
			}
		}
		refuses("another row", s, table, []any{column, int64(8)}, sealed)
		refuses("another column", s, table, []any{column + "x", int64(7)}, sealed)
		refuses("a column less", s, table, []any{column}, sealed)
		refuses("another table", s, table+"x", []any{column, int64(7)}, sealed)
		refuses("moved border", s, table+column, []any{"", int64(7)}, append([]byte{}, sealed[:len(sealed)-1]...))
		refuses("another account", other, table, []any{column, int64(7)}, sealed)
		changed := bytes.Clone(sealed)
		for i := 0; i+1 < len(change); i += 2 {
			changed[int(change[i])%len(changed)] ^= change[i+1]
		}
		if len(change)%2 == 1 {
			changed = changed[:len(changed)*int(change[len(change)-1])/256]
		}
		if !bytes.Equal(changed, sealed) {
			refuses("changed", s, table, []any{column, int64(7)}, changed)
		}
	})
}
