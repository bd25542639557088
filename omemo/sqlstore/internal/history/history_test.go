package history

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestModel: histories that a store may make, and some that it must not.
func TestModel(t *testing.T) {
	open := func(term int) call { return call{does: opens, term: term} }
	read := func(term int) call { return call{does: reads, term: term} }
	commit := func(term, value int) call { return call{does: commits, term: term, value: value} }
	closing := func(term int) call { return call{does: closes, term: term} }
	type event struct {
		call
		answer
		from, to int64
	}
	for _, c := range []struct {
		name   string
		pushes bool
		want   porcupine.CheckResult
		events []event
	}{
		{"one after the other", false, porcupine.Ok, []event{
			{open(1), answer{}, 1, 2}, {commit(1, 7), answer{}, 3, 4}, {closing(1), answer{}, 5, 6},
			{open(2), answer{}, 7, 8}, {read(2), answer{value: 7}, 9, 10},
		}},
		{"waits", false, porcupine.Ok, []event{
			{open(1), answer{}, 1, 3}, {open(2), answer{}, 2, 8}, {commit(1, 7), answer{}, 4, 5}, {closing(1), answer{}, 6, 7},
			{read(2), answer{value: 7}, 9, 10},
		}},
		{"two at once", false, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {open(2), answer{}, 3, 4},
		}},
		{"pushed out", true, porcupine.Ok, []event{
			{open(1), answer{}, 1, 2}, {open(2), answer{}, 3, 4}, {commit(1, 7), answer{result: fenced}, 5, 6}, {read(2), answer{}, 7, 8},
		}},
		{"writes after it was pushed out", true, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {open(2), answer{}, 3, 4}, {commit(1, 7), answer{}, 5, 6},
		}},
		{"is pushed out while it writes", true, porcupine.Ok, []event{
			{open(1), answer{}, 1, 2}, {open(2), answer{}, 3, 5}, {commit(1, 7), answer{}, 4, 6}, {read(2), answer{value: 7}, 7, 8},
		}},
		{"a commit is lost", true, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {commit(1, 7), answer{}, 3, 4}, {open(2), answer{}, 5, 6}, {read(2), answer{}, 7, 8},
		}},
		{"a commit that was refused has an effect", true, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {open(2), answer{}, 3, 4}, {commit(1, 7), answer{result: fenced}, 5, 6}, {read(2), answer{value: 7}, 7, 8},
		}},
		{"a commit that failed has an effect", false, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {commit(1, 7), answer{result: undone}, 3, 4}, {read(1), answer{value: 7}, 5, 6},
		}},
		{"fenced off for nothing", false, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {commit(1, 7), answer{result: fenced}, 3, 4},
		}},
		{"locked for nothing", false, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {closing(1), answer{}, 3, 4}, {open(2), answer{result: locked}, 5, 6},
		}},
		{"writes though it is fenced off", false, porcupine.Illegal, []event{
			{open(1), answer{}, 1, 2}, {call{does: fences}, answer{}, 3, 4}, {commit(1, 7), answer{}, 5, 6},
		}},
		{"its lease ends and nobody comes", false, porcupine.Ok, []event{
			{open(1), answer{}, 1, 2}, {call{does: expires}, answer{}, 3, 4}, {commit(1, 7), answer{}, 5, 6}, {open(2), answer{}, 7, 8},
			{commit(1, 8), answer{result: fenced}, 9, 10},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var history []porcupine.Operation
			for _, e := range c.events {
				history = append(history, porcupine.Operation{ClientId: e.term, Input: e.call, Call: e.from, Output: e.answer, Return: e.to})
			}
			if got := porcupine.CheckOperationsTimeout(model(c.pushes), history, patience); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
