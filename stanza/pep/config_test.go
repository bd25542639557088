package pep

import (
	"errors"
	"slices"
	"testing"
)

// configured is a server's answer about the configuration of a node.
func configured(fields ...string) string {
	s := `<iq xmlns='jabber:client' type='result'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'><x xmlns='jabber:x:data' type='form'>`
	for i := 0; i < len(fields); i += 2 {
		s += `<field var='pubsub#` + fields[i] + `'><value> ` + fields[i+1] + `
</value></field>`
	}
	return s + `</x></configure></pubsub></iq>`
}

const askConfiguration = `<iq xmlns="jabber:client" type="get"><pubsub xmlns="http://jabber.org/protocol/pubsub#owner"><configure node="n"/></pubsub></iq>`

func TestConfiguration(t *testing.T) {
	for _, c := range []struct {
		name, reply string
		want        Options
		err         error
	}{
		{"all", configured("access_model", "open", "persist_items", "1", "max_items", "20", "title", "x"), Options{"open", true, "20"}, nil},
		{"nothing told", configured(), Options{Persist: true}, nil},
		{"nothing kept", configured("persist_items", "false"), Options{}, nil},
		{"nothing kept, in digits", configured("persist_items", "0"), Options{}, nil},
		{"no form", ok, Options{Persist: true}, nil},
		{"no node", failed("cancel", "item-not-found"), Options{}, ErrNone},
		{"refused", failed("auth", "forbidden"), Options{}, &Error{}},
	} {
		s := &script{t: t, replies: []string{c.reply}}
		o, err := Configuration(t.Context(), s, "n")
		switch want := c.err.(type) {
		case *Error:
			if !errors.As(err, &want) {
				t.Errorf("%s: %v", c.name, err)
			}
		default:
			if o != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: %+v, %v", c.name, o, err)
			}
		}
		if !slices.Equal(s.asked, []string{askConfiguration}) {
			t.Errorf("%s: asked %q", c.name, s.asked)
		}
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		o    Options
		n    int
		want bool
	}{
		{Options{Persist: true, MaxItems: "max"}, 1000, true},
		{Options{Persist: true, MaxItems: "2"}, 2, true},
		{Options{Persist: true, MaxItems: "2"}, 3, false},
		{Options{Persist: true}, 1, true},
		{Options{MaxItems: "max"}, 1, false},
	} {
		if got := c.o.Holds(c.n); got != c.want {
			t.Errorf("%+v holds %d: %t", c.o, c.n, got)
		}
	}
}

func TestMend(t *testing.T) {
	good := configured("access_model", "open", "persist_items", "1", "max_items", "5")
	refusal := failed("modify", "not-acceptable")
	for _, c := range []struct {
		name    string
		n       int
		replies []string
		asked   []string
		want    Options
	}{
		{"as it should be", 5, []string{good}, []string{askConfiguration}, Options{"open", true, "5"}},
		{"too few items", 6, []string{good, ok, configured("max_items", "max")},
			[]string{askConfiguration, configure("max_items", "max"), askConfiguration}, Options{"", true, "max"}},
		{"a number is wanted", 6, []string{good, refusal, ok, configured("max_items", "256")},
			[]string{askConfiguration, configure("max_items", "max"), configure("max_items", "256"), askConfiguration}, Options{"", true, "256"}},
		{"refused", 6, []string{good, refusal, refusal, good},
			[]string{askConfiguration, configure("max_items", "max"), configure("max_items", "256"), askConfiguration}, Options{"open", true, "5"}},
		{"for contacts only", 1, []string{configured("access_model", "presence", "max_items", "1"), ok, good},
			[]string{askConfiguration, configure("access_model", "open"), askConfiguration}, Options{"open", true, "5"}},
		{"not kept", 1, []string{configured("access_model", "open", "persist_items", "0"), ok, good},
			[]string{askConfiguration, configure("persist_items", "true"), askConfiguration}, Options{"open", true, "5"}},
		{"all wrong", 2, []string{configured("access_model", "whitelist", "persist_items", "0", "max_items", "1"), ok, good},
			[]string{askConfiguration, configure("access_model", "open", "persist_items", "true", "max_items", "max"), askConfiguration}, Options{"open", true, "5"}},
	} {
		s := &script{t: t, replies: c.replies}
		o, err := Mend(t.Context(), s, "n", c.n)
		if o != c.want || err != nil {
			t.Errorf("%s: %+v, %v", c.name, o, err)
		}
		if !slices.Equal(s.asked, c.asked) {
			t.Errorf("%s: asked %q", c.name, s.asked)
		}
	}
	if _, err := Mend(t.Context(), &script{t: t, replies: []string{failed("cancel", "item-not-found")}}, "n", 1); !errors.Is(err, ErrNone) {
		t.Errorf("no node: %v", err)
	}
	if _, err := Mend(t.Context(), &script{t: t, replies: []string{configured("persist_items", "0"), "broken wire"}}, "n", 1); err == nil {
		t.Error("a broken wire is no error")
	}
}
