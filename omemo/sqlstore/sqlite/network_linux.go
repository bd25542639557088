package sqlite

import (
	"fmt"
	"syscall"
)

// File systems whose locks or write order cannot be relied on, by the numbers
// of statfs(2).
var networks = map[uint32]string{
	0x6969:     "NFS",
	0x517b:     "SMB",
	0xfe534d42: "SMB2",
	0xff534d42: "CIFS",
	0x564c:     "NCP",
	0x5346414f: "AFS",
	0x73757245: "Coda",
	0x00c36400: "Ceph",
}

func refuseNetwork(dir string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("sqlite: %s: %w", dir, err)
	}
	if name, ok := networks[uint32(stat.Type)]; ok {
		return fmt.Errorf("sqlite: %s is on a network file system (%s), where SQLite is not safe", dir, name)
	}
	return nil
}
