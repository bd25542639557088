//go:build live

package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// The clients are proven against each other first: what fails between them is
// not the fault of the code under test.

func TestPythonWithPython(t *testing.T) {
	for _, versions := range [][]string{{Legacy}, {V2}, {V2, Legacy}} {
		t.Run(strings.Join(versions, "+"), func(t *testing.T) {
			Each(t, func(t *testing.T, s *Server) {
				one, other := s.Account(t, "one"), s.Account(t, "other")
				Befriend(t, one, other)
				a := Python(t, s, one, PythonOptions{Versions: versions})
				b := Python(t, s, other, PythonOptions{Versions: versions})
				b.Echo(t, true)
				var want []string
				for i := range 5 {
					body := fmt.Sprintf("canary-%s-%d", one.Local, i)
					want = append(want, body)
					a.Send(t, other.JID, body)
				}
				a.AwaitBody(t, other.JID, want[len(want)-1])
				for _, got := range [][]string{a.Bodies(other.JID), b.Bodies(one.JID)} {
					if !slices.Equal(got, want) {
						t.Errorf("got %q, want %q", got, want)
					}
				}
				a.SendPlain(t, other.JID, "in-clear-"+one.Local)
				b.Await(t, "to receive clear text", func(e PythonEvent) bool { return e.Event == "plain" })
				tap := s.Tap(t)
				for _, from := range []string{one.JID, other.JID} {
					if n := s.Encrypted(tap, from); n != len(want) {
						t.Errorf("the tap shows %d encrypted messages from %s, want %d", n, from, len(want))
					}
				}
				if begun, answered := s.KeyExchanges(tap, one.JID), s.KeyExchanges(tap, other.JID); begun == 0 || answered != 0 {
					t.Errorf("the tap shows %d key exchanges of who begins and %d of who answers", begun, answered)
				}
				if strings.Contains(tap, "canary-"+one.Local) {
					t.Error("the server saw an encrypted text")
				}
				if !strings.Contains(tap, "in-clear-"+one.Local) {
					t.Error("the tap has missed a stanza")
				}
			})
		})
	}
}

func TestPythonSecondDevice(t *testing.T) {
	Each(t, func(t *testing.T, s *Server) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		Befriend(t, one, other)
		a := Python(t, s, one, PythonOptions{})
		b := Python(t, s, other, PythonOptions{})
		a.Send(t, other.JID, "first")
		b.AwaitBody(t, one.JID, "first")
		second := Python(t, s, other, PythonOptions{})
		a.AwaitDevice(t, other.JID, second.Device)
		a.Send(t, other.JID, "second")
		b.AwaitBody(t, one.JID, "second")
		second.AwaitBody(t, one.JID, "second")
		if got := a.Devices(t, other.JID); len(got) != 2 {
			t.Errorf("devices: %+v", got)
		}
	})
}

func TestProfanityWithPython(t *testing.T) {
	Each(t, func(t *testing.T, s *Server) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		Befriend(t, one, other)
		profanity := Profanity(t, s, one)
		python := Python(t, s, other, PythonOptions{Versions: []string{Legacy}})
		python.Echo(t, true)
		profanity.Start(t, other.JID, python.Device)
		var want []string
		for i := range 5 {
			body := fmt.Sprintf("canary-%s-%d", one.Local, i)
			want = append(want, body)
			profanity.Send(t, other.JID, body)
		}
		profanity.AwaitBody(t, other.JID, want[len(want)-1])
		for _, got := range [][]string{profanity.Bodies(other.JID), python.Bodies(one.JID)} {
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if strings.Contains(s.Tap(t), "canary-"+one.Local) {
			t.Error("the server saw an encrypted text")
		}
	})
}
