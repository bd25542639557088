package lab

import "syscall"

// attributes puts a process into a group of its own, to be ended as one, and
// ends it with the test binary, however that ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
