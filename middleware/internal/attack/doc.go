// Package attack is the catalogue of attacks that this module withstands, and the
// tests that carry them out: see catalogue_test.go for the list, and row_*_test.go
// for the attacks on a running program. Attacks on sessions and keys alone are in
// package omemo, attacks on what is stored beside the stores.
//
// It has no code of its own.
package attack
