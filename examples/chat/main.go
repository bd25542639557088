// The chat command is a small chat client for a terminal. It uses nothing but the
// public packages of omellium, and shows what a program can make of them.
//
//	XMPP_PASSWORD=… go run . -jid juliet@example.net -db juliet.db
//
// Text is sent to the chat in front; lines that begin with / are commands: /help
// names them. Tab changes the chat, F2 shows the keys of the chat, F3 our own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c := &client{password: os.Getenv("XMPP_PASSWORD"), rooms: make(map[string]jid.JID)}
	flags := flag.NewFlagSet("chat", flag.ContinueOnError)
	flags.Func("jid", "bare JID of the account", func(s string) (err error) {
		c.addr, err = jid.Parse(s)
		return err
	})
	flags.StringVar(&c.server, "addr", "", "host:port of the server, if the domain does not tell")
	flags.StringVar(&c.ca, "ca", "", "PEM file with the authorities to trust, instead of the system's")
	db := flags.String("db", "chat.db", "file that keeps the OMEMO state; it holds secrets")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.addr.Localpart() == "" || c.password == "" {
		return errors.New("-jid and the environment variable XMPP_PASSWORD are needed")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, err := sqlite.Open(ctx, *db, c.addr.Bare().String())
	if err != nil {
		return err
	}
	defer store.Close()
	screen := tea.NewProgram(newModel(ctx, c), tea.WithAltScreen())
	c.show = screen.Send
	if c.om, err = middleware.New(ctx, c.config(store)); err != nil {
		return err
	}
	defer c.om.Close()
	go c.stayOnline(ctx)
	_, err = screen.Run()
	return err
}

func (c *client) config(store omemo.Store) middleware.Config {
	return middleware.Config{
		Store: store, CatchUp: true, AutomaticTrust: true, AskTrust: c.ask,
		Trust:   omemo.ManualOwn(omemo.BlindBeforeVerification),
		OnEvent: func(e middleware.Event) { c.show(eventMsg(e)) },
	}
}
