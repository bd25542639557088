package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/dial"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// connectTimeout bounds the way from dialling to being ready.
const connectTimeout = time.Minute

// connect logs in. Nothing is announced: messages that wait for the program are
// not delivered to us.
func (c *control) connect(ctx context.Context) (*xmpp.Session, error) {
	if c.password == "" {
		return nil, fmt.Errorf("this needs the account: its password has to be in %s", passwordVariable)
	}
	config := &tls.Config{ServerName: c.account.Domainpart(), MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", c.ca)
		}
	}
	var conn net.Conn
	var err error
	if c.server != "" {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", c.server)
	} else {
		conn, err = (&dial.Dialer{TLSConfig: config}).Dial(ctx, "tcp", c.account)
	}
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	// mellium sets a deadline for a moment when the context ends, and whoever waits
	// for a socket misses it: a server that says nothing would hold us for ever.
	stopClosing := context.AfterFunc(ctx, func() { conn.Close() })
	session, err := xmpp.NewClientSession(ctx, c.account.Bare(), conn,
		xmpp.BindResource(),
		xmpp.StartTLS(config),
		xmpp.SASL("", c.password, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain),
	)
	stopClosing()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	return session, nil
}

// asking runs f with a session that is served, on which nothing is announced and
// nothing encrypted.
func (c *control) asking(ctx context.Context, f func(*xmpp.Session) error) error {
	session, err := c.connect(ctx)
	if err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(nil)
	}()
	defer func() {
		session.Close()
		session.Conn().Close()
		<-served
	}()
	return f(session)
}

// errNowhere: the program has taken the device off all lists.
var errNowhere = errors.New("this device is not found in any version any more: its program, if it runs again, says in which it is")

// wrapped runs f with a middleware that is connected, and advertises what the program
// does. First, when that is known and the account has let us in, it runs prepare,
// unless that is nil.
func (c *control) wrapped(ctx context.Context, prepare func(context.Context) error, f func(*middleware.Middleware) error) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	advert, err := c.advert(ctx)
	if err != nil {
		return err
	}
	if len(advert.Versions) == 0 {
		return errNowhere
	}
	session, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer session.Conn().Close()
	if prepare != nil {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	om, err := middleware.New(ctx, middleware.Config{
		Store: c.store, Trust: recorded, AutomaticTrust: c.tell,
		Versions: advert.Versions, Label: advert.Label, SignedPreKeyPeriod: advert.SignedPreKeyPeriod,
		Receive: leave,
	})
	if err != nil {
		return err
	}
	defer om.Close()
	// What Wrap returns is not served: messages that the program has not handled yet
	// would be taken for handled.
	if _, err = om.Wrap(ctx, session); err != nil {
		return err
	}
	if f != nil {
		err = f(om)
	}
	if e := om.Close(); e != nil && !errors.Is(e, middleware.ErrClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// leave leaves messages to the program: those that it has not opened yet, or that come
// now, wait in the store, and what they are worth to it is for its own policies to say.
func leave(context.Context, *sql.Tx, middleware.Delivery) error {
	return errors.New("omemoctl handles no messages")
}

// recorded is the policy of the program for keys that nobody has decided about:
// those of contacts are trusted until one was verified, our own devices never by
// themselves.
var recorded = omemo.ManualOwn(omemo.BlindBeforeVerification)
