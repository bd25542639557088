// Package interop holds the tests of the middleware against real servers and
// real clients. It needs the programs that package lab names.
package interop
