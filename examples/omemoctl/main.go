// The omemoctl command looks after the OMEMO device of a program: it shows what
// its store holds and what its server has of it, finds faults and mends them.
//
//	omemoctl -jid bot@example.net -db bot.db devices
//	XMPP_PASSWORD=… omemoctl -jid bot@example.net -db bot.db doctor -fix
//
// The program must not run meanwhile: a store has one owner. It has written down in
// the store what it advertises: in which versions its device is found, under which
// label, and how long a signed pre key is published. That stays so; where nothing is
// written down, because no program of this release has run on the store, what the server
// has of the device counts, and a device that it has nothing of is announced in both
// versions.
//
// The store is a file or a PostgreSQL database. One that is in use is refused: a file
// at once, a database when a lease has not ended in time.
//
// Messages that the program has not handled yet, and such as come meanwhile, are left
// in the store, for the program.
//
// doctor tells what it cannot read, and neither deletes nor replaces it, unless it is
// told to make lists anew.
//
// It exits with 0 if all is well, with 1 if faults are left or something was not
// done, and with 2 if it could not do what it was asked to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"mellium.im/xmpp/jid"

	"example.org/omellium/omemo"
)

// passwordVariable names the environment variable that holds the password.
const passwordVariable = "XMPP_PASSWORD"

// Exit codes.
const (
	exitOK     = 0
	exitFaults = 1
	exitError  = 2
)

// errFaults: the command has done what it was asked to, and not all is well.
var errFaults = errors.New("not all is well")

const usage = `usage: omemoctl -jid account -db file [flags] command [arguments]

On the store alone:
  devices [account]                devices, sessions and trust, ours by default
  fingerprint                      of this device
  qr [-png file]                   this device as a URI and as a QR code, for others to scan
  trust list [account]             all keys and the decisions about them
  trust verify account fingerprint, or trust verify URI
  trust distrust account fingerprint
  trust reset account fingerprint  undecided again
  trust accept account fingerprint the key that a device in state changed presents, in place of
                                   the known one; it begins as a new one, and is not verified by this
  trust decide [account] state     all keys that nobody decided about: verified or distrusted
  export                           identity and trust, to standard output: secret
  import                           what export wrote, from standard input, into an empty store

  With -tell after verify, distrust or decide, our other devices and those of
  contacts are told, as far as their keys are verified; this takes the account.

A sealed account is opened with -key, or with the passphrase in OMEMO_PASSPHRASE.

With the account, whose password is in XMPP_PASSWORD:
  doctor [-fix [-anew]]            looks for faults, and mends those that it has read; with -anew,
                                   makes device lists anew that cannot be read: what is on them is lost
  rotate                           new signed pre keys
  replace account [device ...]     new sessions
  prune [-older 2160h] [-dry]      removes our own devices that are not used any more
  purge contact account            forgets a contact
  purge device id                  removes another device of ours, which was lost
  purge version name               ends to serve legacy or omemo:2, until the program runs again
  purge account                    gives this device up: lists, bundles, store
  send account text                an encrypted message

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// control is what the commands work on.
type control struct {
	in       io.Reader
	out      io.Writer
	json     bool
	account  jid.JID
	password string
	server   string // host:port, or empty
	ca       string // PEM file, or empty
	key      string // key file of a sealed account, or empty
	tell     bool   // other devices are told of decisions (XEP-0450)
	store    omemo.Store
	manager  *omemo.Manager
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	c := &control{in: in, out: out, password: os.Getenv(passwordVariable)}
	flags := flag.NewFlagSet("omemoctl", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Usage = func() {
		fmt.Fprint(errs, usage)
		flags.PrintDefaults()
	}
	flags.Func("jid", "bare JID of the account", func(s string) (err error) {
		c.account, err = jid.Parse(s)
		return err
	})
	db := flags.String("db", "", "file or PostgreSQL URL (postgres://…) of the store")
	flags.StringVar(&c.key, "key", "", "key file of a sealed account")
	flags.BoolVar(&c.json, "json", false, "print JSON")
	flags.StringVar(&c.server, "addr", "", "host:port of the server, if the domain does not tell")
	flags.StringVar(&c.ca, "ca", "", "PEM file with the authorities to trust, instead of the system's")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitError
	}
	if c.account.Localpart() == "" || *db == "" || flags.NArg() == 0 {
		flags.Usage()
		return exitError
	}
	err := c.open(ctx, *db, flags.Arg(0), flags.Args()[1:])
	switch {
	case err == errFaults: // and nothing else
		return exitFaults
	case err != nil:
		fmt.Fprintln(errs, "omemoctl:", err)
		return exitError
	}
	return exitOK
}

// open opens the store and runs a command on it.
func (c *control) open(ctx context.Context, db, name string, args []string) error {
	command, ok := commands[name]
	if !ok {
		return fmt.Errorf("no command %q; one of %s", name, strings.Join(names(), ", "))
	}
	store, err := c.openStore(ctx, db, name == "import")
	if err != nil {
		return err
	}
	defer store.Close()
	c.store = store
	if name == "import" {
		return command(ctx, c, args)
	}
	state, err := store.Load(ctx)
	if err != nil {
		return err
	}
	if state.Account == nil {
		return fmt.Errorf("%w: %s", omemo.ErrNoAccount, c.account.Bare())
	}
	if c.manager, err = openManager(ctx, store); err != nil {
		return err
	}
	return command(ctx, c, args)
}

// openManager opens the account of a store. Its signed pre keys are as old as the
// program lets them become.
func openManager(ctx context.Context, store omemo.Store) (*omemo.Manager, error) {
	m, err := omemo.NewManager(ctx, store, omemo.Options{SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod})
	if err != nil {
		return nil, err
	}
	a, written, err := m.Advert(ctx)
	if err != nil || !written {
		return m, err
	}
	return omemo.NewManager(ctx, store, omemo.Options{SignedPreKeyPeriod: a.SignedPreKeyPeriod})
}
