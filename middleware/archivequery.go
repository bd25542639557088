package middleware

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

const (
	nsPaging = "http://jabber.org/protocol/rsm"

	// archivePage is how many messages are asked for at once. No more are kept of
	// an answer, so that it is bounded by as many stanzas of the largest size.
	archivePage = 50
	// maxArchiveID bounds the id of a message in an archive, in bytes.
	maxArchiveID = 1023
)

var (
	// errNoArchive: there is none, or it is not for us.
	errNoArchive = errors.New("middleware: no archive to be asked")
	// errPosition: the archive does not know the position that was named.
	errPosition = errors.New("middleware: position is not in the archive")
	errPage     = errors.New("middleware: malformed page of an archive")
	errServer   = errors.New("middleware: archive answers with an error")
)

// pageRequest is a question for a page (XEP-0313, section 4; XEP-0059).
type pageRequest struct {
	archive string    // bare JID
	after   string    // id of the message before the page, or empty
	start   time.Time // of the earliest message, or zero
	last    bool      // only the last message there is
}

// page is what an archive answers.
type page struct {
	results  []*result
	complete bool // there is no further one
	left     int  // messages behind it, if the archive tells, else 0
}

// result is a message in an archive.
type result struct {
	id      string
	stamp   time.Time
	message *stanza.Element
}

// pages are the questions of our own that are open.
type pages struct {
	mu   sync.Mutex
	last uint64
	open map[string]*openPage // by query id
}

type openPage struct {
	archive string
	results []*result
	err     error
}

// fetchPage asks for a page.
func (l *link) fetchPage(ctx context.Context, r pageRequest) (*page, error) {
	id, open := l.pages.begin(l, r.archive)
	defer l.pages.end(id)
	iq := stanza.NewElement(stanza.NSClient, "iq", r.query(id)).SetAttribute("type", "set")
	if r.archive != l.m.own.JID {
		iq.SetAttribute("to", r.archive)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*l.m.config.FetchTimeout)
	defer cancel()
	reply, err := l.Request(ctx, iq)
	if err != nil {
		return nil, err
	}
	if attribute(reply, "type") == "error" {
		return nil, archiveError(reply, r)
	}
	// The results stand before their answer in the stream: they are complete.
	results, err := l.pages.results(id, open)
	if err != nil {
		return nil, err
	}
	fin := reply.Child(nsArchive, "fin")
	if fin == nil {
		return nil, errPage
	}
	p := &page{results: results, complete: attribute(fin, "complete") == "true" || attribute(fin, "complete") == "1"}
	if set := fin.Child(nsPaging, "set"); set != nil {
		p.left = left(set, len(results))
	}
	return p, nil
}

// left returns how many messages stand behind a page, as far as the archive
// tells; it may tell nothing, or anything.
func left(set *stanza.Element, n int) int {
	first, count := set.Child(nsPaging, "first"), set.Child(nsPaging, "count")
	if first == nil || count == nil {
		return 0
	}
	index, err := strconv.Atoi(attribute(first, "index"))
	total, failed := strconv.Atoi(count.Text())
	if err != nil || failed != nil || index < 0 || total < 0 || total > math.MaxInt32 || index > total {
		return 0
	}
	return max(0, total-index-n)
}

func (r pageRequest) query(id string) *stanza.Element {
	field := func(name, value string) *stanza.Element {
		return stanza.NewElement(nsData, "field", stanza.NewText(nsData, "value", value)).SetAttribute("var", name)
	}
	set := stanza.NewElement(nsPaging, "set")
	if r.last {
		set.Append(stanza.NewText(nsPaging, "max", "1"), stanza.NewElement(nsPaging, "before"))
	} else {
		set.Append(stanza.NewText(nsPaging, "max", strconv.Itoa(archivePage)))
	}
	if r.after != "" {
		set.Append(stanza.NewText(nsPaging, "after", r.after))
	}
	query := stanza.NewElement(nsArchive, "query").SetAttribute("queryid", id)
	if !r.start.IsZero() {
		query.Append(stanza.NewElement(nsData, "x",
			field("FORM_TYPE", nsArchive).SetAttribute("type", "hidden"),
			field("start", r.start.UTC().Format(time.RFC3339))).SetAttribute("type", "submit"))
	}
	query.Append(set)
	return query
}

// archiveError tells apart what an archive answers in the place of a page.
func archiveError(reply *stanza.Element, r pageRequest) error {
	e := child(reply, "error")
	is := func(condition string) bool { return e != nil && e.Child(nsConditions, condition) != nil }
	switch {
	case r.after != "" && is("item-not-found"):
		return errPosition
	case is("service-unavailable"), is("feature-not-implemented"), is("forbidden"), is("not-allowed"),
		is("item-not-found"), is("not-authorized"), is("registration-required"), is("bad-request"):
		return errNoArchive
	}
	return errServer
}

func (p *pages) begin(l *link, archive string) (id string, open *openPage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = make(map[string]*openPage)
	}
	p.last++
	id = l.requests.prefix + "page-" + strconv.FormatUint(p.last, 36)
	open = &openPage{archive: archive}
	p.open[id] = open
	return id, open
}

func (p *pages) end(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, id)
}

// results closes a question, and returns what has come.
func (p *pages) results(id string, open *openPage) ([]*result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, id)
	return open.results, open.err
}

// collect takes a result of a question of our own, and reports whether it is one.
// It has to come from the archive that was asked; of what does not, nothing is
// heard.
func (l *link) collect(e *stanza.Element) bool {
	wrapper := e.Child(nsArchive, "result")
	if wrapper == nil || !hasOurPrefix(attribute(wrapper, "queryid"), l.requests.prefix) {
		return false
	}
	p := &l.pages
	p.mu.Lock()
	open := p.open[attribute(wrapper, "queryid")]
	p.mu.Unlock()
	if only, ok := e.Only(nsArchive, "result"); open == nil || !ok || only == nil || !l.fromArchive(open.archive, attribute(e, "from")) {
		l.refused(e, errOrigin)
		return true
	}
	r, err := readResult(wrapper)
	if err != nil {
		l.refused(e, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r == nil:
		open.err = err
	case len(open.results) >= archivePage:
		open.err = fmt.Errorf("%w: more than was asked for", errPage)
	default:
		open.results = append(open.results, r)
	}
	return true
}

// fromArchive reports whether an address is that of an archive.
func (l *link) fromArchive(archive, from string) bool {
	if archive == l.m.own.JID {
		return l.isOwn(from)
	}
	j, err := jid.Parse(from)
	return err == nil && j.Resourcepart() == "" && j.String() == archive
}

// readResult reads a result. One whose message cannot be read has none: its
// position counts all the same.
func readResult(wrapper *stanza.Element) (*result, error) {
	r := &result{id: attribute(wrapper, "id")}
	if r.id == "" || len(r.id) > maxArchiveID {
		return nil, fmt.Errorf("%w: id of a message", errPage)
	}
	f := wrapper.Child(nsForward, "forwarded")
	if f == nil {
		return r, errPage
	}
	if delay := f.Child(stanza.NSDelay, "delay"); delay != nil {
		r.stamp, _ = time.Parse(time.RFC3339, attribute(delay, "stamp"))
	}
	var err error
	r.message, err = forwarded(wrapper)
	return r, err
}
