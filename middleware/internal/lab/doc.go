// Package lab starts real XMPP servers and real OMEMO clients for tests.
//
// Servers are throw-away: Prosody and ejabberd for the domain "localhost" on
// free loopback ports, with a certificate of their own and everything they know
// in a temporary directory. One of each serves a whole test binary, which
// therefore must hand its TestMain to [Main]; tests keep out of each other's
// way by asking for accounts of their own.
//
// Clients are Python-OMEMO on slixmpp, driven by JSON lines, and Profanity,
// driven through a terminal. Nothing waits for a fixed time: the test waits for
// what it expects, up to a deadline that a slow machine does not reach.
//
// What went through a server can be read ([Server.Tap]), all of it, and counted; and
// held back ([Server.Gate]), so that two sides act before either sees the other do so.
//
// A program that is missing fails the test, with the name of its Debian
// package.
package lab
