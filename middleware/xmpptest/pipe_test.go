package xmpptest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipe(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, a, b net.Conn)
	}{
		{"a write does not wait for a read", func(t *testing.T, a, b net.Conn) {
			if n, err := a.Write([]byte("hello")); n != 5 || err != nil {
				t.Errorf("write: %d, %v", n, err)
			}
			p := make([]byte, 3)
			if n, err := b.Read(p); n != 3 || err != nil || string(p) != "hel" {
				t.Errorf("read: %d, %v", n, err)
			}
			if n, err := b.Read(nil); n != 0 || err != nil {
				t.Errorf("empty read: %d, %v", n, err)
			}
		}},
		{"a full buffer blocks", func(t *testing.T, a, b net.Conn) {
			data := bytes.Repeat([]byte("0123456789"), pipeBuffer/3)
			go func() {
				_, _ = a.Write(data)
				_ = a.Close()
			}()
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d of %d bytes, %v", len(got), len(data), err)
			}
		}},
		{"read deadline", func(t *testing.T, a, b net.Conn) {
			start := time.Now()
			_ = a.SetReadDeadline(start.Add(time.Second))
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if waited := time.Since(start); waited != time.Second {
				t.Errorf("waited %v", waited)
			}
			_ = a.SetReadDeadline(time.Time{})
			_, _ = b.Write([]byte("x"))
			if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("after the deadline was taken back: %d, %v", n, err)
			}
		}},
		{"write deadline", func(t *testing.T, a, b net.Conn) {
			_ = a.SetWriteDeadline(time.Now().Add(time.Second))
			if n, err := a.Write(make([]byte, 2*pipeBuffer)); n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d, %v", n, err)
			}
		}},
		{"a deadline in the past ends what waits", func(t *testing.T, a, b net.Conn) {
			go func() {
				synctest.Wait()
				_ = a.SetDeadline(time.Unix(1, 0))
			}()
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			var timeout net.Error
			if _, err := a.Write([]byte("x")); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("got %v", err)
			}
		}},
		{"a replaced deadline", func(t *testing.T, a, b net.Conn) {
			start := time.Now()
			_ = a.SetDeadline(start.Add(time.Second))
			_ = a.SetDeadline(start.Add(time.Minute))
			_, _ = a.Read(make([]byte, 1))
			if waited := time.Since(start); waited != time.Minute {
				t.Errorf("waited %v", waited)
			}
		}},
		{"close", func(t *testing.T, a, b net.Conn) {
			_, _ = a.Write([]byte("last"))
			_ = a.Close()
			if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after close: %v", err)
			}
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read after close: %v", err)
			}
			if got, err := io.ReadAll(b); string(got) != "last" || err != nil {
				t.Errorf("peer read %q, %v", got, err)
			}
			if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("peer write: %v", err)
			}
		}},
		{"addresses", func(t *testing.T, a, b net.Conn) {
			if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().String() != "server" || a.LocalAddr().Network() != "pipe" {
				t.Errorf("%v to %v", a.LocalAddr(), a.RemoteAddr())
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newPipe()
				test.run(t, a, b)
				_ = a.Close()
				_ = b.Close()
			})
		})
	}
}
