//go:build !live

package crash

// withPostgres is false without the tag live: a plain "go test" needs nothing but
// Go.
const withPostgres = false
