//go:build !unix

package sqlstore

import "io/fs"

// private is true where files have no permissions of this kind.
func private(fs.FileInfo) bool { return true }
