package main

import (
	"context"
	"errors"
	"time"

	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

const (
	// answerTimeout is how long a server may take to answer one question, which is
	// asked twice.
	answerTimeout = 10 * time.Second
	// examineTimeout bounds an examination: several questions may stay without an
	// answer.
	examineTimeout = 5 * time.Minute
)

// errSilent: a question was asked twice, and not answered. Prosody answers
// nothing if what it has stored of a node cannot be read.
var errSilent = errors.New("the server does not answer")

// patience asks once more what is not answered in time, and then gives the
// question up instead of the examination.
type patience struct{ pep.Requester }

func (p patience) Request(ctx context.Context, iq *stanza.Element) (*stanza.Element, error) {
	for range 2 {
		limited := forAnAnswer(ctx)
		reply, err := p.Requester.Request(limited, iq)
		if err == nil || limited.Err() == nil || ctx.Err() != nil {
			return reply, err
		}
		if t, _ := iq.Attribute("type"); t != "get" {
			break // it may have been done
		}
	}
	return nil, errSilent
}

// forAnAnswer returns a context that ends when one question has been waited for long
// enough. QUIRK: it is not ended before. mellium has a goroutine that interrupts writing
// to the connection when the context of what is being written ends; if that ends as
// soon as it was written, it may interrupt what is written next.
func forAnAnswer(ctx context.Context) context.Context {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	time.AfterFunc(answerTimeout, cancel)
	return limited
}
