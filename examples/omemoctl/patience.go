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
		limited, cancel := context.WithTimeout(ctx, answerTimeout)
		reply, err := p.Requester.Request(limited, iq)
		late := limited.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return reply, err
		}
		if t, _ := iq.Attribute("type"); t != "get" {
			break // it may have been done
		}
	}
	return nil, errSilent
}
