package main

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"mellium.im/xmpp/jid"
)

// TestSilentServer has the bot log in to a server that accepts connections and says
// nothing: it gives up in time, so that it can try again.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	b := &bot{addr: jid.MustParse("bot@example.net"), server: listener.Addr().String(), tls: &tls.Config{ServerName: "example.net"}}
	ended := make(chan error)
	go func() { ended <- b.echo(ctx) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("logged in")
		}
	case <-time.After(time.Minute):
		t.Error("it waits for ever")
	}
}
