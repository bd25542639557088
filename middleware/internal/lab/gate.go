package lab

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Gate stands between a server and the clients that are given Gate.Server, and holds
// back what the server sends them: so one side is kept from seeing what the other has
// sent already.
type Gate struct {
	Server *Server // as it is reached through the gate; accounts are made on the server itself

	listener net.Listener
	copies   sync.WaitGroup

	mu    sync.Mutex
	moved sync.Cond // held or done changed
	held  bool
	conns map[net.Conn]bool
	done  bool
}

// Gate returns an open gate. It is gone when the test has ended.
func (s *Server) Gate(t testing.TB) *Gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	g := &Gate{
		Server:   &Server{Kind: s.Kind, Addr: listener.Addr().String(), CAFile: s.CAFile, dir: s.dir, process: s.process, backend: s.backend},
		listener: listener,
		conns:    make(map[net.Conn]bool),
	}
	g.moved.L = &g.mu
	g.copies.Go(func() { g.accept(s.Addr) })
	t.Cleanup(g.close)
	return g
}

// Hold keeps all that the server sends from now on.
func (g *Gate) Hold() { g.set(true) }

// Release lets it through, in order.
func (g *Gate) Release() { g.set(false) }

func (g *Gate) set(held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
	g.moved.Broadcast()
}

func (g *Gate) accept(server string) {
	for {
		client, err := g.listener.Accept()
		if err != nil {
			return
		}
		behind, err := net.Dial("tcp", server)
		if err != nil {
			client.Close()
			continue
		}
		if !g.keep(client, behind) {
			return
		}
		g.copies.Go(func() {
			defer behind.Close()
			_, _ = io.Copy(behind, client) // a connection that breaks is closed on both sides
		})
		g.copies.Go(func() {
			defer client.Close()
			_ = g.pass(client, behind)
		})
	}
}

// keep notes connections that close ends.
func (g *Gate) keep(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		if g.done {
			c.Close()
		}
		g.conns[c] = true
	}
	return !g.done
}

// pass copies what the server sends while the gate is not held.
func (g *Gate) pass(client, server net.Conn) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := server.Read(buffer)
		if err := g.write(client, buffer[:n]); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
}

func (g *Gate) write(client net.Conn, b []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held && !g.done {
		g.moved.Wait()
	}
	if g.done {
		return errors.New("lab: the gate is gone")
	}
	if err := client.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := client.Write(b)
	return err
}

func (g *Gate) close() {
	g.mu.Lock()
	g.done = true
	for c := range g.conns {
		c.Close()
	}
	g.moved.Broadcast()
	g.mu.Unlock()
	g.listener.Close()
	g.copies.Wait()
}
