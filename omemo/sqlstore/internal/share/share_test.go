package share

import (
	"errors"
	"testing"
)

func TestMap(t *testing.T) {
	var m Map[string, int]
	opened, closed := 0, 0
	failure := errors.New("closing failed")
	open := func() (int, func() error, error) {
		opened++
		return opened, func() error { closed++; return failure }, nil
	}
	a, releaseA, err := m.Acquire("a", open)
	if err != nil || a != 1 {
		t.Fatal(a, err)
	}
	again, releaseAgain, err := m.Acquire("a", open)
	if err != nil || again != 1 {
		t.Fatal(again, err)
	}
	if other, release, err := m.Acquire("b", open); err != nil || other != 2 {
		t.Fatal(other, err)
	} else if err := release(); !errors.Is(err, failure) || closed != 1 {
		t.Errorf("the only user released it: %v, %d closed", err, closed)
	}
	for range 2 { // releasing twice counts once
		if err := releaseA(); err != nil || closed != 1 {
			t.Errorf("another user has it: %v, %d closed", err, closed)
		}
	}
	if err := releaseAgain(); !errors.Is(err, failure) || closed != 2 {
		t.Errorf("the last user released it: %v, %d closed", err, closed)
	}
	if next, _, err := m.Acquire("a", open); err != nil || next != 3 {
		t.Errorf("opened anew: %d, %v", next, err)
	}
	refused := errors.New("refused")
	if _, _, err := m.Acquire("c", func() (int, func() error, error) { return 0, nil, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}
