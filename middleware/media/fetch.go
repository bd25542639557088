package media

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Defaults and limits of a Fetcher.
const (
	DefaultMaxSize = 100 << 20
	DefaultTimeout = 10 * time.Minute

	maxRedirects  = 3
	headerTimeout = 30 * time.Second
	headerLimit   = 32 << 10 // bytes
)

// Fetcher fetches files that others have shared. It assumes that they want it to do
// something else: it speaks HTTPS only; connects to public addresses only, whatever
// names resolve to and wherever it is redirected, at most three times; sends neither
// cookies nor credentials, nor where it was before, nor the key; and stops when a file
// gets larger or takes longer than allowed. It uses no proxy: that would connect in
// its place. The zero value is ready. It must not be changed once in use; its methods
// may be called from several goroutines.
type Fetcher struct {
	// MaxSize is the size of an encrypted file, in bytes, that is fetched at most. 0
	// stands for DefaultMaxSize.
	MaxSize int64
	// Timeout is how long a file may take. 0 stands for DefaultTimeout.
	Timeout time.Duration
	// Allow permits addresses that are not public, for a server in the program's own
	// network. Nil permits none.
	Allow func(netip.AddrPort) bool
	// RootCAs are the authorities of servers. Nil stands for the system's.
	RootCAs *x509.CertPool
	// Progress is told how much of an encrypted file has arrived, and its size, both in
	// bytes; the latter is -1 if the server does not say. It must not block. It may be
	// nil.
	Progress func(done, total int64)
}

// Save fetches a file, decrypts it, checks it, and only then gives it a name in a
// directory: [SafeName] of the name that the sender gave it, with a number if that is
// taken. It returns the path. The file can be read and written by its owner only.
//
// It returns ErrForged if what was fetched is not what was shared, ErrTooLarge,
// ErrAddress, ErrLink or ErrFetch; then there is no new file.
func (f *Fetcher) Save(ctx context.Context, file *File, dir string) (path string, err error) {
	return save(dir, SafeName(file.Name), func(dst io.Writer) error { return f.fetch(ctx, file, dst) })
}

// Bytes fetches a file as Save does, and returns its content, which stays in memory.
func (f *Fetcher) Bytes(ctx context.Context, file *File) ([]byte, error) {
	var b bytes.Buffer
	if err := f.fetch(ctx, file, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fetch writes a file to dst. After an error, what was written is worthless.
func (f *Fetcher) fetch(ctx context.Context, file *File, dst io.Writer) error {
	timeout := f.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	limit := f.MaxSize
	if limit == 0 {
		limit = DefaultMaxSize
	}
	if file.Size > limit {
		return fmt.Errorf("%w: %d bytes of at most %d", ErrTooLarge, file.Size, limit)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := f.get(ctx, file.URL, limit)
	if err != nil {
		return err
	}
	defer body.Close()
	err = file.decrypt(dst, body)
	if err != nil && ctx.Err() != nil { // the connection was closed by us, which may look like an end
		return fmt.Errorf("%w: %w", ErrFetch, ctx.Err())
	}
	return err
}

// decrypt writes the content of a file to dst, given its encrypted form. It is not
// authentic before decrypt has returned nil.
func (f *File) decrypt(dst io.Writer, src io.Reader) error {
	if f.Key.cipher == AES256CBC && len(f.Hashes) == 0 {
		return fmt.Errorf("%w: no hash", ErrSharing)
	}
	c := f.check(dst)
	if err := f.Key.decrypt(c, src); err != nil {
		return err
	}
	return c.done()
}

// get returns the content of a URL, up to the limit.
func (f *Fetcher) get(ctx context.Context, link string, limit int64) (io.ReadCloser, error) {
	u, err := address(link)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLink, withoutURL(err))
	}
	transport := f.transport()
	client := &http.Client{Transport: transport, CheckRedirect: redirect}
	resp, err := client.Do(req)
	if err != nil {
		transport.CloseIdleConnections()
		if errors.Is(err, ErrAddress) || errors.Is(err, ErrLink) {
			return nil, withoutURL(err)
		}
		return nil, fmt.Errorf("%w: %w", ErrFetch, withoutURL(err))
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("%w: HTTP status %d", ErrFetch, resp.StatusCode)
	case resp.ContentLength > limit:
		err = fmt.Errorf("%w: %d bytes of at most %d", ErrTooLarge, resp.ContentLength, limit)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &download{Closer: resp.Body, src: progress{src: resp.Body, total: resp.ContentLength, tell: f.Progress}, left: limit}, nil
}

// redirect decides about a redirection.
func redirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirections", ErrLink, maxRedirects)
	}
	req.URL.Fragment, req.URL.RawFragment = "", ""
	if _, err := address(req.URL.String()); err != nil {
		return err
	}
	req.Header.Del("Referer")
	return nil
}

// transport is made anew for each file, so that every connection is dialled, and its
// address looked at, for the file it is used for.
func (f *Fetcher) transport() *http.Transport {
	// Control sees the address that is connected to, after all names were resolved. So
	// a name that resolves to something else the second time gains nothing.
	dialer := &net.Dialer{Timeout: headerTimeout, Control: f.control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: f.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    headerTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: headerLimit,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
}

// control is called before each connection is made.
func (f *Fetcher) control(network, addr string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return ErrAddress
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if isPublic(to.Addr()) || f.Allow != nil && f.Allow(to) {
		return nil
	}
	return ErrAddress
}

var errCut = errors.New("connection ended early")

// download is the content of a response. It fails when there is more of it than
// allowed, whatever the server has said.
type download struct {
	io.Closer
	src  progress
	left int64
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.src.Read(p)
	if d.left -= int64(n); d.left < 0 {
		return 0, ErrTooLarge
	}
	if err == io.ErrUnexpectedEOF { // less than the server has said: no end of the file
		err = errCut
	}
	return n, err
}
