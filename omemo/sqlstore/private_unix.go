//go:build unix

package sqlstore

import "io/fs"

// private reports whether nobody but its owner can read or write a file.
func private(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 == 0 }
