// The echobot command answers each encrypted chat message with its text, in rooms
// as well.
//
//	XMPP_PASSWORD=… echobot -jid bot@example.net -db bot.db -room hall@rooms.example.net/bot
//
// It is mellium's echo bot with three statements more, which encrypt it, and a
// loop around the connection. It logs to standard error and stops on SIGINT or
// SIGTERM.
//
// Its state stands in a file, or in a PostgreSQL database:
//
//	PGPASSWORD=… XMPP_PASSWORD=… echobot -jid bot@example.net -db postgres://bot@db.example.net/bots
//
// Any number of replicas may run on one PostgreSQL server. One of them serves
// the account, the others wait without connecting; when it dies, another one
// takes over within the time of a lease (sqlstore.DefaultLease). A replica that
// loses the account, because it was cut off from the database, ends with an
// error, and is to be started anew by whatever supervises it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// passwordVariable names the environment variable that holds the password.
const passwordVariable = "XMPP_PASSWORD"

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, log, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		log.Error("echobot failed", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	b := bot{log: log, password: os.Getenv(passwordVariable)}
	flags := flag.NewFlagSet("echobot", flag.ContinueOnError)
	flags.Func("jid", "bare JID of the account", func(s string) (err error) {
		b.addr, err = jid.Parse(s)
		return err
	})
	flags.StringVar(&b.server, "addr", "", "host:port of the server, if the domain does not tell")
	ca := flags.String("ca", "", "PEM file with the authorities to trust, instead of the system's")
	db := flags.String("db", "echobot.db", "file or PostgreSQL URL (postgres://…) that keeps the OMEMO state; it holds secrets")
	policy := middleware.Required
	flags.Func("policy", "required (default), opportunistic or off", func(s string) (err error) {
		policy, err = parsePolicy(s)
		return err
	})
	flags.Func("room", "room to be in, with the nick to have there: room@conference.example.net/bot; may be repeated", func(s string) error {
		room, err := jid.Parse(s)
		if err == nil && (room.Localpart() == "" || room.Resourcepart() == "") {
			err = errors.New("a room and a nick are needed")
		}
		b.rooms = append(b.rooms, room)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.addr.Localpart() == "" || b.password == "" {
		return fmt.Errorf("-jid and the environment variable %s are needed", passwordVariable)
	}
	var err error
	if b.tls, err = tlsConfig(b.addr.Domainpart(), *ca); err != nil {
		return err
	}

	// The first two of the three statements. The store is opened before the first
	// connection: whoever is online takes messages off the server.
	store, err := openStore(ctx, log, *db, b.addr.Bare().String())
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, forget := untilLost(ctx, store.Lost())
	defer forget()
	b.om, err = middleware.New(ctx, middleware.Config{
		Store:  store,
		Policy: policy,
		// Nobody looks at this bot's own devices: one that the server adds must not
		// read along.
		Trust:           omemo.ManualOwn(omemo.BlindBeforeVerification),
		AnswerStrangers: true,
		// What came while the bot was away is answered, too, but in rooms: there it
		// is read alone.
		CatchUp: true,
		OnEvent: b.onEvent,
		Logger:  log,
	})
	if err != nil {
		return err
	}
	defer b.om.Close()
	return b.stayOnline(ctx)
}

// stayOnline connects again and again, with growing pauses while nothing works,
// until ctx ends. It fails only if the store was lost.
func (b *bot) stayOnline(ctx context.Context) error {
	const shortest, longest = time.Second, time.Minute
	for pause := shortest; ; pause = min(2*pause, longest) {
		start := time.Now()
		err := b.echo(ctx)
		if ctx.Err() != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errLost) {
				return cause
			}
			b.log.Info("stopped")
			return nil
		}
		if time.Since(start) > longest {
			pause = shortest
		}
		b.log.Warn("not connected", "err", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (b *bot) onEvent(e middleware.Event) {
	b.log.Info("omemo", "event", e.Kind.String(), "account", e.Account, "device", uint32(e.Device), "version", e.Version, "err", e.Err)
}

func parsePolicy(s string) (middleware.Policy, error) {
	for _, p := range []middleware.Policy{middleware.Required, middleware.Opportunistic, middleware.Off} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("no policy %q", s)
}
