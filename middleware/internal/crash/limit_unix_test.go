//go:build unix

package crash

import (
	"os/signal"
	"syscall"
)

// limitFiles lets files of this process grow to a size only, until the limit is
// lifted: a write beyond it fails as it does on a full disk.
func limitFiles(size uint64) (lift func() error, err error) {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return nil, err
	}
	now := before
	now.Cur = size
	return func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before) },
		syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now)
}
