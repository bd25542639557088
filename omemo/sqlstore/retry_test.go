package sqlstore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestRetry: a statement that the database has undone is run again, but not for
// ever, and no other one.
func TestRetry(t *testing.T) {
	undone, broken := errors.New("undone because of others"), errors.New("broken")
	d := &Database{dialect: Dialect{Transient: func(err error) bool { return errors.Is(err, undone) }}}
	for _, test := range []struct {
		name     string
		failures int
		err      error
		cancel   bool
		tries    int
	}{
		{"at once", 0, nil, false, 1},
		{"undone twice", 2, undone, false, 3},
		{"undone always", 1000, undone, false, commitTries},
		{"undone, cancelled", 1000, undone, true, 1},
		{"broken", 1000, broken, false, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if test.cancel {
					cancel()
				}
				tries := 0
				err := d.retry(ctx, func() error {
					if tries++; tries > test.failures {
						return nil
					}
					return test.err
				})
				if tries != test.tries {
					t.Errorf("%d tries, want %d", tries, test.tries)
				}
				if fails := test.failures >= test.tries; fails && !errors.Is(err, test.err) || !fails && err != nil {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
