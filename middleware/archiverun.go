package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/omellium/omemo"
)

// gapMargin is how much earlier than the last message an archive is asked for
// that does not know the message any more. What is found twice is recognised.
const gapMargin = time.Hour

// start begins to catch up with an archive: from the position that is stored to
// its end, page by page. What comes live from now on waits, and is dealt with
// afterwards. If it fails, it is tried again until the link ends.
func (l *link) start(archive string) {
	in := l.intakes.open(archive)
	if !in.enter() {
		return
	}
	l.m.catchUp.begin()
	l.tasks.Go(func() {
		for pause := time.Second; ; pause = min(2*pause, 5*time.Minute) {
			read := make(map[string]bool)
			following, err := false, l.m.keep(l.ctx, true)
			if err == nil {
				following, err = l.follow(l.ctx, in, read)
			}
			final, missed := in.release(l.life, l, read, following, err)
			l.m.catchUp.end(l, final)
			if missed && errors.Is(err, errNoArchive) {
				l.m.emit(Event{Kind: ArchiveGap, Account: archive, Err: fmt.Errorf("%w: %w", ErrArchiveGap, err)})
			}
			if final {
				return
			}
			if err != nil {
				l.trouble(fmt.Errorf("archive: %w", err))
			}
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
				return
			}
			l.m.catchUp.begin()
			in.again()
		}
	})
}

// follow reads an archive to its end. It reports whether the position may follow
// what comes live from now on: it must not if something lies between.
// read is filled with the ids of what was read.
func (l *link) follow(ctx context.Context, in *intake, read map[string]bool) (following bool, err error) {
	c, known, err := l.m.manager.Cursor(ctx, in.archive)
	if err == nil && !known {
		in.letGo(l.life, l)
		c, err = l.startHere(ctx, in.archive)
		in.again()
	}
	if err != nil {
		return false, err
	}
	in.place()
	r := pageRequest{archive: in.archive, after: c.Position}
	for done := 0; ; {
		p, err := l.fetchPage(ctx, r)
		if errors.Is(err, errPosition) && len(read) == 0 && r.start.IsZero() {
			l.m.emit(Event{Kind: ArchiveGap, Account: in.archive, Err: ErrArchiveGap})
			r = pageRequest{archive: in.archive, start: c.When.Add(-gapMargin)}
			continue
		}
		if err != nil {
			return false, err
		}
		if p.repeats(read) {
			return false, l.truncated(in, done, ErrArchiveLoop)
		}
		if err := l.readPage(ctx, in, p.results); err != nil {
			return false, err
		}
		for _, result := range p.results {
			read[result.id] = true
		}
		if n := len(p.results); n > 0 {
			done += n
			r.after = p.results[n-1].id
			total := done + p.left
			if p.left == 0 && !p.complete {
				total = 0 // the archive does not tell
			}
			l.m.emit(Event{Kind: CatchingUp, Account: in.archive, Done: done, Total: total})
		}
		switch {
		case p.complete && in.fetchMissed():
		case p.complete:
			return true, nil
		case len(p.results) == 0:
			return false, l.truncated(in, done, ErrArchiveLoop)
		}
		if done >= l.m.config.CatchUpLimit {
			return false, l.truncated(in, done, ErrArchiveTruncated)
		}
	}
}

// repeats reports whether a page holds a message twice, or one that was read.
func (p *page) repeats(read map[string]bool) bool {
	ids := make(map[string]bool)
	for _, r := range p.results {
		if read[r.id] || ids[r.id] {
			return true
		}
		ids[r.id] = true
	}
	return false
}

// truncated ends a run before the end of the archive. The next connection goes
// on from there.
func (l *link) truncated(in *intake, done int, cause error) error {
	l.m.emit(Event{Kind: ArchiveTruncated, Account: in.archive, Done: done, Err: cause})
	return nil
}

// startHere begins with an archive at its end: what stands in it already was
// before this device. Nothing that comes live meanwhile may wait, because the
// position passes it.
func (l *link) startHere(ctx context.Context, archive string) (omemo.Cursor, error) {
	c := omemo.Cursor{Archive: archive, When: time.Now()}
	p, err := l.fetchPage(ctx, pageRequest{archive: archive, last: true})
	if err != nil {
		return c, err
	}
	if n := len(p.results); n > 0 {
		c.Position = p.results[n-1].id
		if stamp := p.results[n-1].stamp; !stamp.IsZero() {
			c.When = stamp
		}
	}
	return c, l.m.manager.SetCursor(ctx, c)
}
