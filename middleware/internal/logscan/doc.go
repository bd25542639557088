// Package logscan searches what a test suite logs, and the events that its
// programs are told, for keys and texts in whatever form they may have been
// written: as they are, in hexadecimal digits, base64 or decimal numbers.
//
// A suite calls Watch with each configuration before middleware.New, and Main in
// the place of m.Run. What must not be found needs no list: keys are taken from
// what the programs commit to their stores, texts from what they are given to
// read.
package logscan
