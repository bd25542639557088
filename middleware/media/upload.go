package media

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/upload"
)

// slotTimeout bounds finding the service and getting a slot. The transfer itself is
// bounded by its context alone.
const slotTimeout = time.Minute

// Uploader encrypts files and uploads them (XEP-0363). Its methods may be called from
// several goroutines. It must not be copied.
type Uploader struct {
	// Session is what a slot is requested through. It must be served.
	Session *xmpp.Session
	// Service is where files are stored. The zero value is the one that the server
	// names first.
	Service Service
	// Client uploads. Redirections are not followed and cookies not kept, whatever it
	// says. Nil stands for one that uses the system's proxies and authorities.
	Client *http.Client
	// Progress is told how much of an encrypted file was handed to the connection, and
	// its size, both in bytes. It must not block. It may be nil.
	Progress func(done, total int64)

	mu    sync.Mutex
	found Service
}

// UploadFile uploads a file of the file system. What the recipient learns of it is its
// size, its name without directory, and a media type guessed from the latter.
func (u *Uploader) UploadFile(ctx context.Context, path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe could take for ever
		return nil, fmt.Errorf("media: %s: not a regular file", info.Name())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	defer f.Close()
	kind, _, _ := strings.Cut(mime.TypeByExtension(filepath.Ext(path)), ";")
	return u.Upload(ctx, f, Metadata{Name: filepath.Base(path), MediaType: kind, Size: info.Size()})
}

// Upload uploads a file of m.Size bytes, which must be known. It returns ErrTooLarge
// if that is more than the service takes, and ErrSize if src is not of that length:
// then the server has nothing that anybody could decrypt. Retrying takes the file from
// its beginning and another key.
//
// The service is told the size, and as a name random characters and the ending of
// m.Name, by which clients of the past know what it is. src is not read any more once
// Upload has returned.
func (u *Uploader) Upload(ctx context.Context, src io.Reader, m Metadata) (*File, error) {
	e, err := Encrypt(src, m.Size)
	if err != nil {
		return nil, err
	}
	put, get, err := u.place(ctx, e.Size(), m.Name)
	if err != nil {
		return nil, err
	}
	body := &progress{src: e, total: e.Size(), tell: u.Progress}
	if err := u.transfer(put, body); err != nil {
		return nil, err
	}
	sum := e.Hash()
	return &File{Metadata: m, URL: get, Key: e.Key(), Hashes: []Hash{{"sha-256", sum[:]}}}, nil
}

// place gets a slot. It returns the request to fill it and the URL to fetch from.
func (u *Uploader) place(ctx context.Context, size int64, name string) (put *http.Request, get string, err error) {
	bounded, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	service, err := u.service(bounded)
	if err != nil {
		return nil, "", err
	}
	if int64(int(size)) != size {
		return nil, "", fmt.Errorf("%w: for this machine", ErrTooLarge)
	}
	if service.MaxSize > 0 && size > service.MaxSize {
		return nil, "", fmt.Errorf("%w: the server takes at most %d bytes", ErrTooLarge, service.MaxSize)
	}
	slot, err := service.slot(bounded, u.Session, upload.File{Name: storedName(name), Size: int(size)})
	if err != nil {
		return nil, "", err
	}
	get = slot.GetURL.String()
	for _, link := range []string{slot.PutURL.String(), get} {
		if _, err := address(link); err != nil {
			return nil, "", fmt.Errorf("%w: %w", ErrUpload, err)
		}
	}
	for _, values := range slot.Header { // XEP-0363, section 11
		for i, v := range values {
			values[i] = strings.NewReplacer("\r", "", "\n", "").Replace(v)
		}
	}
	if put, err = slot.Put(ctx, nil); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUpload, err)
	}
	if put.Header == nil {
		put.Header = make(http.Header)
	}
	put.Header.Set("Content-Type", "application/octet-stream")
	put.ContentLength = size
	return put, get, nil
}

// service returns the service to use; it is looked for once.
func (u *Uploader) service(ctx context.Context) (Service, error) {
	if !u.Service.Address.Equal(jid.JID{}) {
		return u.Service, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.found.Address.Equal(jid.JID{}) {
		found, err := FindService(ctx, u.Session)
		if err != nil {
			return Service{}, err
		}
		u.found = found
	}
	return u.found, nil
}

// transfer sends a file.
func (u *Uploader) transfer(put *http.Request, body *progress) error {
	client := http.Client{}
	if u.Client != nil {
		client = *u.Client
	}
	client.Jar = nil
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	put.Body = io.NopCloser(body)
	resp, err := client.Do(put)
	sent, own := body.stop()
	if err != nil {
		// What went wrong with the file itself says more than that its end is missing.
		if own != nil {
			err = own
		}
		return fmt.Errorf("media: upload: %w", withoutURL(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusOK, http.StatusNoContent:
		if !sent {
			return fmt.Errorf("%w: taken before all of it was sent", ErrUpload)
		}
		return nil
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: HTTP status %d", ErrTooLarge, resp.StatusCode)
	}
	return fmt.Errorf("%w: HTTP status %d", ErrUpload, resp.StatusCode)
}

// withoutURL takes the URL out of an error of net/http: it is enough to fetch the
// file, and errors end up in logs.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// storedName is the name of a file on the server.
func storedName(name string) string {
	end := strings.ToLower(filepath.Ext(name))
	for _, c := range []byte(strings.TrimPrefix(end, ".")) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') || len(end) > 9 {
			end = ""
			break
		}
	}
	return rand.Text() + strings.TrimSuffix(end, ".")
}

// progress tells how much of src was read.
type progress struct {
	total int64
	tell  func(done, total int64)

	mu   sync.Mutex
	src  io.Reader // nil once stopped
	done int64
	err  error // of src
}

func (p *progress) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.src == nil {
		return 0, errStopped
	}
	n, err := p.src.Read(b)
	p.done += int64(n)
	if n > 0 && p.tell != nil {
		p.tell(p.done, p.total)
	}
	if err != io.EOF {
		p.err = err
	}
	return n, err
}

// stop lets go of src: net/http may read a body still after the response has come.
// It returns whether all of src was read, and what else it has ended with.
func (p *progress) stop() (all bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.src = nil
	return p.done == p.total, p.err
}

var errStopped = errors.New("media: transfer has ended")
