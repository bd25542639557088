//go:build unix && !linux

package lab

import "syscall"

// attributes puts a process into a group of its own, to be ended as one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
