// Package wycheproof runs the test vectors of Project Wycheproof against the
// primitives as this project uses them. It is a module of its own, because the
// vectors are 109 MB that nobody has to download who uses the project.
//
//	go -C omemo/internal/wycheproof test ./...
package wycheproof
