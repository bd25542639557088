package attack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/omellium/middleware/media"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// inner is a service on the victim's own network: whoever makes the victim connect
// to it has won.
type inner struct {
	*httptest.Server
	port  string
	conns atomic.Int64
}

func newInner(t *testing.T) *inner {
	t.Helper()
	s := &inner{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(canary)) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	ok(t, err)
	s.port = port
	return s
}

// evilNames answers for every name, as its owner wants, in the place of the system's
// name servers.
func evilNames(t *testing.T, answer func(name string) netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ok(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return // closed
			}
			if reply := nameReply(b[:n], answer); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	})
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = former
		conn.Close()
		wg.Wait()
	})
}

// nameReply answers one question (RFC 1035, section 4.1).
func nameReply(q []byte, answer func(name string) netip.Addr) []byte {
	const header = 12
	if len(q) < header {
		return nil
	}
	var labels []string
	i := header
	for i < len(q) && q[i] != 0 {
		next := i + 1 + int(q[i])
		if next > len(q) {
			return nil
		}
		labels = append(labels, string(q[i+1:next]))
		i = next
	}
	end := i + 5
	if end > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[i+1:])
	reply := bytes.Clone(q[:end])
	binary.BigEndian.PutUint16(reply[2:], 0x8180)
	binary.BigEndian.PutUint16(reply[4:], 1)
	clear(reply[6:header])
	ip := answer(strings.Join(labels, "."))
	if kind == 1 && ip.Is4() || kind == 28 && ip.Is6() {
		reply[7] = 1
		reply = append(reply, 0xc0, header, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(ip.AsSlice())))
		reply = append(reply, ip.AsSlice()...)
	}
	return reply
}

// targets are where a sender would like the victim to connect; %s is the port of a
// service of the victim's.
var targets = []string{
	// This machine, in all the ways to write it.
	"https://127.0.0.1:%s/x", "https://127.0.0.2:%s/x", "https://127.255.255.254:%s/x", "https://127.1:%s/x", "https://127.0.1:%s/x",
	"https://2130706433:%s/x", "https://0x7f000001:%s/x", "https://0x7f.0.0.1:%s/x", "https://0177.0.0.1:%s/x", "https://017700000001:%s/x",
	"https://0:%s/x", "https://0.0.0.0:%s/x", "https://localhost:%s/x", "https://LOCALHOST:%s/x", "https://localhost.:%s/x", "https://localhost.localdomain:%s/x",
	"https://[::1]:%s/x", "https://[::]:%s/x", "https://[0:0:0:0:0:0:0:1]:%s/x", "https://[::ffff:127.0.0.1]:%s/x", "https://[::ffff:7f00:1]:%s/x",
	"https://[::127.0.0.1]:%s/x", "https://[64:ff9b::127.0.0.1]:%s/x", "https://[2002:7f00:1::]:%s/x", "https://[2001:0:7f00:1::]:%s/x",
	"https://１２７.0.0.1:%s/x", "https://127。0。0。1:%s/x", "https://①②⑦.0.0.1:%s/x", "https://ⓛocalhost:%s/x",
	"https://127.0.0.1.:%s/x", "https://127.0.0.1.nip.example:%s/x", "https://evil.example:%s/x",
	// Its network, and what clouds have there.
	"https://10.0.0.1:%s/x", "https://172.16.0.1:%s/x", "https://192.168.0.1:%s/x", "https://100.64.0.1:%s/x", "https://169.254.169.254:%s/latest/meta-data/",
	"https://[::ffff:169.254.169.254]:%s/x", "https://[fd00:ec2::254]:%s/x", "https://[fe80::1]:%s/x", "https://[fe80::1%%25lo]:%s/x", "https://[fc00::1]:%s/x",
	"https://[64:ff9b::a9fe:a9fe]:%s/x", "https://224.0.0.1:%s/x", "https://255.255.255.255:%s/x", "https://240.0.0.1:%s/x", "https://192.0.2.1:%s/x", "https://198.18.0.1:%s/x",
	"https://metadata.google.internal:%s/x", "https://[ff02::1]:%s/x", "https://[2001:db8::1]:%s/x",
	// Another host than it seems, another scheme, something that is no address.
	"https://user@127.0.0.1:%s/x", "https://download.example@127.0.0.1:%s/x", "https://download.example:443@127.0.0.1:%s/x", `https://download.example\@127.0.0.1:%s/x`,
	"https://127.0.0.1:%s#@download.example/x", "https://download.example%%2f@127.0.0.1:%s/x", "https://127.0.0.1%%00.download.example:%s/x",
	"http://127.0.0.1:%s/x", "HTTP://127.0.0.1:%s/x", "ftp://127.0.0.1:%s/x", "gopher://127.0.0.1:%s/x", "file://127.0.0.1:%s/etc/passwd", "file:///etc/passwd?%s",
	"unix:///run/x.sock?%s", "javascript:fetch('https://127.0.0.1:%s')", "data:text/plain,%s", "//127.0.0.1:%s/x", "https:127.0.0.1:%s/x", "https:///127.0.0.1:%s/x",
	"https://127.0.0.1:%s:443/x", "https://[::1:%s/x", "https://127.0.0.1 :%s/x", "https://127.0.0.1:%s\r\nHost: evil.example/x", "https://\t127.0.0.1:%s/x",
}

// shared returns a file at an address, as the victim reads it: out of a link in
// legacy, out of <file-sharing/> in omemo:2.
func shared(v omemo.Version, address string) (*media.File, error) {
	const iv, key = "8c3d050e9386ec173861778f", "68e9af38a97aaf82faa4063b4d0878a61261534410c8a84331eaac851759f587"
	if v == omemo.Legacy {
		_, rest, _ := strings.Cut(address, ":")
		if strings.HasPrefix(address, "https:") || strings.HasPrefix(address, "HTTPS:") {
			return media.ParseBody("aesgcm:" + rest + "#" + iv + key)
		}
		return media.ParseBody(address + "#" + iv + key) // with its own scheme
	}
	const example = "https://download.example/x"
	file, err := media.ParseURL("aesgcm://download.example/x#" + iv + key)
	if err != nil {
		return nil, err
	}
	e := file.Element()
	raw := bytes.ReplaceAll(e.AppendXML(nil), []byte(example), bytes.TrimSuffix(
		stanza.NewElement("", "x").SetAttribute("a", address).AppendXML(nil)[len(`<x a="`):], []byte(`"/>`)))
	if e, err = stanza.ParseElement(raw, stanza.DefaultLimits); err != nil {
		return nil, err
	}
	return media.Parse(e)
}

func d11(t *testing.T, v omemo.Version) {
	s, private := newStage(t, v), newInner(t)
	local := netip.MustParseAddr("127.0.0.1")
	// refused asks a fetcher for a file. It must fail without a connection.
	refused := func(t *testing.T, f *media.Fetcher, address string, causes ...error) {
		t.Helper()
		dir := t.TempDir()
		file, err := shared(v, address)
		if err == nil {
			_, err = f.Save(t.Context(), file, dir)
		}
		var unknown *net.DNSError // Go's own resolver does not even ask for names of digits
		found := errors.As(err, &unknown)
		for _, cause := range causes {
			found = found || errors.Is(err, cause)
		}
		if !found {
			t.Errorf("%q: %v", address, err)
		}
		if n := private.conns.Load(); n != 0 {
			t.Fatalf("%q: %d connections", address, n)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}

	s.in(t, "nothing is fetched unasked", func() {
		for _, link := range []string{
			"aesgcm://127.0.0.1:" + private.port + "/x#" + strings.Repeat("00", 44), private.URL + "/x", "<img src='" + private.URL + "/x'/>",
		} {
			for _, way := range ways {
				s.delivers(way, s.romeo.text(s, v, link), link)
			}
		}
		if v == omemo.V2 {
			file, err := media.ParseURL("aesgcm://127.0.0.1:" + private.port + "/x#" + strings.Repeat("00", 44))
			ok(s.t, err)
			text := s.id("text ")
			s.delivers("direct", s.enveloped("<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>"+text+"</body>"+
				string(file.Element().AppendXML(nil))+"<x xmlns='jabber:x:oob'><url>"+private.URL+"</url></x></content></envelope>"), text)
		}
		s.settle()
		if n := private.conns.Load(); n != 0 {
			s.t.Errorf("%d connections", n)
		}
	})

	evilNames(t, func(name string) netip.Addr {
		if strings.HasPrefix(name, "metadata.") {
			return netip.MustParseAddr("fd00:ec2::254")
		}
		return local
	})
	for _, target := range targets {
		s.in(t, target, func() {
			refused(s.t, &media.Fetcher{Timeout: 30 * time.Second}, fmt.Sprintf(target, private.port), media.ErrAddress, media.ErrLink, media.ErrNotEncrypted, stanza.ErrMarkup)
		})
	}

	// The rest asks for files on a server that may be asked.
	depot, answer := newInner(t), http.HandlerFunc(nil)
	depot.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	allowed := func() *media.Fetcher {
		pool := depot.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		return &media.Fetcher{RootCAs: pool, Timeout: 30 * time.Second, MaxSize: 1 << 20, Allow: func(to netip.AddrPort) bool {
			return to.Addr() == local && fmt.Sprint(to.Port()) == depot.port
		}}
	}
	redirect := func(to string) {
		answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	}
	for _, target := range []string{
		"https://127.0.0.1:%s/x", "https://localhost:%s/x", "https://[::1]:%s/x", "http://127.0.0.1:%s/x", "https://user@127.0.0.1:%s/x", "https://evil.example:%s/x", "file:///etc/passwd?%s",
	} {
		s.in(t, "redirected to "+target, func() {
			redirect(fmt.Sprintf(target, private.port))
			refused(s.t, allowed(), depot.URL+"/x", media.ErrAddress, media.ErrLink)
		})
	}
	s.in(t, "redirected for ever", func() {
		redirect(depot.URL + "/x")
		before := depot.conns.Load()
		refused(s.t, allowed(), depot.URL+"/x", media.ErrLink)
		if n := depot.conns.Load() - before; n > 4 {
			s.t.Errorf("%d connections", n)
		}
	})
	s.in(t, "a name that leads elsewhere the second time", func() {
		asked := 0
		evilNames(s.t, func(string) netip.Addr {
			if asked++; asked > 2 { // A and AAAA
				return netip.MustParseAddr("169.254.169.254")
			}
			return local
		})
		// The certificate of the depot is for this name.
		redirect("https://example.com:" + depot.port + "/again")
		refused(s.t, allowed(), "https://example.com:"+depot.port+"/x", media.ErrAddress)
	})
	s.in(t, "more than was said, and without end", func() {
		answer = func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
		refused(s.t, allowed(), depot.URL+"/x", media.ErrTooLarge)
	})
	s.in(t, "what was not shared", func() {
		answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(canary), 10_000)) }
		refused(s.t, allowed(), depot.URL+"/x", media.ErrForged)
	})
	for _, name := range []string{"../../../etc/cron.d/x", `..\..\x.exe`, "/etc/passwd", ".bashrc", "..", "\u202egpj.exe", "a\x00b", "NUL", "~/.ssh/id"} {
		s.in(t, fmt.Sprintf("named %q", name), func() {
			dir := s.t.TempDir()
			plain := []byte("content")
			e, err := media.Encrypt(bytes.NewReader(plain), int64(len(plain)))
			ok(s.t, err)
			b, err := io.ReadAll(e)
			ok(s.t, err)
			answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
			file := &media.File{Metadata: media.Metadata{Name: name, Size: -1}, URL: depot.URL + "/x", Key: e.Key()}
			path, err := allowed().Save(s.t.Context(), file, dir)
			ok(s.t, err)
			if base := filepath.Base(path); filepath.Dir(path) != dir || strings.HasPrefix(base, ".") || strings.ContainsAny(base, "\\\x00\u202e") {
				s.t.Errorf("saved as %q", path)
			}
		})
	}
	s.honest(s.romeo)
}
