package crash

import (
	"errors"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// drives are the drives that are mounted. Files elsewhere are left to SQLite.
var drives mounts

type mounts struct {
	mu     sync.RWMutex
	byName map[string]*drive      // by the name of a file
	byFile map[uintptr]*driveFile // by the address that SQLite knows an open file by
}

// driveFile is an open file of a drive.
type driveFile struct {
	drive *drive
	name  string
}

func (m *mounts) mount(d *drive) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byName == nil {
		m.byName, m.byFile = make(map[string]*drive), make(map[uintptr]*driveFile)
	}
	for _, name := range d.names() {
		m.byName[name] = d
	}
}

func (m *mounts) unmount(d *drive) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range d.names() {
		delete(m.byName, name)
	}
}

func (m *mounts) drive(name string) *drive {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byName[name]
}

func (m *mounts) file(f uintptr) *driveFile {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byFile[f]
}

func (m *mounts) setFile(f uintptr, o *driveFile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o == nil {
		delete(m.byFile, f)
	} else {
		m.byFile[f] = o
	}
}

// The layer below SQLite. A file of a drive is, in SQLite's memory, a pointer to
// the methods here, and behind it the file of the layer below.

type tls = *libc.TLS

// beneath is where the file of the layer below begins, in bytes.
const beneath = 16

var (
	below   uintptr // the layer that does the work
	methods uintptr // of the files of drives
	above   uintptr // the layer here
)

// registerVFS puts the layer in, once.
var registerVFS = sync.OnceValue(func() error {
	t := libc.NewTLS()
	below = sqlite3.Xsqlite3_vfs_find(t, 0)
	methods = libc.Xcalloc(t, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	above = libc.Xcalloc(t, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	name, err := libc.CString("drive")
	if err != nil || below == 0 || methods == 0 || above == 0 {
		return errors.Join(errors.New("no layer for SQLite"), err)
	}
	vfs := at[sqlite3.Tsqlite3_vfs](above)
	*vfs = *at[sqlite3.Tsqlite3_vfs](below)
	vfs.FzName, vfs.FpNext = name, 0
	vfs.FszOsFile += beneath
	set(&vfs.FxOpen, vfsOpen)
	set(&vfs.FxDelete, vfsDelete)

	m := at[sqlite3.Tsqlite3_io_methods](methods)
	m.FiVersion = 2 // 3 would let SQLite map files into its memory
	set(&m.FxClose, fileClose)
	set(&m.FxRead, fileRead)
	set(&m.FxWrite, fileWrite)
	set(&m.FxTruncate, fileTruncate)
	set(&m.FxSync, fileSync)
	set(&m.FxFileSize, fileSize)
	set(&m.FxLock, fileLock)
	set(&m.FxUnlock, fileUnlock)
	set(&m.FxCheckReservedLock, fileReserved)
	set(&m.FxFileControl, fileControl)
	set(&m.FxSectorSize, fileSectorSize)
	set(&m.FxDeviceCharacteristics, fileCharacteristics)
	set(&m.FxShmMap, shmMap)
	set(&m.FxShmLock, shmLock)
	set(&m.FxShmBarrier, shmBarrier)
	set(&m.FxShmUnmap, shmUnmap)
	if sqlite3.Xsqlite3_vfs_register(t, above, 1) != sqlite3.SQLITE_OK {
		return errors.New("SQLite does not take the layer")
	}
	return nil
})

// at returns what stands at an address of SQLite's memory.
func at[T any](address uintptr) *T { return (*T)(*(*unsafe.Pointer)(unsafe.Pointer(&address))) }

// set makes a function a method that SQLite can call. The function is one of
// the program's own, so that its address stays.
func set[F any](method *uintptr, f F) { *(*F)(unsafe.Pointer(method)) = f }

// get makes a method of SQLite's a function.
func get[F any](method uintptr) F { return *(*F)(unsafe.Pointer(&method)) }

// lower returns the file of the layer below, and its methods.
func lower(f uintptr) (uintptr, *sqlite3.Tsqlite3_io_methods) {
	f += beneath
	return f, at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](f).FpMethods)
}

type (
	openFunc   = func(t tls, vfs, name, f uintptr, flags int32, out uintptr) int32
	deleteFunc = func(t tls, vfs, name uintptr, sync int32) int32
	plainFunc  = func(t tls, f uintptr) int32
	numberFunc = func(t tls, f uintptr, n int32) int32
	resultFunc = func(t tls, f, result uintptr) int32
	dataFunc   = func(t tls, f, data uintptr, n int32, at int64) int32
	sizeFunc   = func(t tls, f uintptr, size int64) int32
)

func vfsOpen(t tls, _, name, f uintptr, flags int32, out uintptr) int32 {
	do := get[openFunc](at[sqlite3.Tsqlite3_vfs](below).FxOpen)
	var d *drive
	path := ""
	if name != 0 {
		path = libc.GoString(name)
		d = drives.drive(path)
	}
	if d == nil {
		return do(t, below, name, f, flags, out)
	}
	at[sqlite3.Tsqlite3_file](f).FpMethods = 0
	if code := do(t, below, name, f+beneath, flags, out); code != sqlite3.SQLITE_OK {
		return code
	}
	d.opened(path)
	drives.setFile(f, &driveFile{d, path})
	at[sqlite3.Tsqlite3_file](f).FpMethods = methods
	return sqlite3.SQLITE_OK
}

func vfsDelete(t tls, _, name uintptr, sync int32) int32 {
	if d := drives.drive(libc.GoString(name)); d != nil {
		d.deleting(libc.GoString(name), sync != 0)
	}
	return get[deleteFunc](at[sqlite3.Tsqlite3_vfs](below).FxDelete)(t, below, name, sync)
}

func fileClose(t tls, f uintptr) int32 {
	drives.setFile(f, nil)
	f, m := lower(f)
	return get[plainFunc](m.FxClose)(t, f)
}

func fileRead(t tls, f, data uintptr, n int32, offset int64) int32 {
	f, m := lower(f)
	return get[dataFunc](m.FxRead)(t, f, data, n, offset)
}

func fileWrite(t tls, f, data uintptr, n int32, offset int64) int32 {
	o := drives.file(f)
	written := append([]byte{}, unsafe.Slice(at[byte](data), n)...)
	o.drive.changing(o.name, change{offset, written})
	f, m := lower(f)
	return get[dataFunc](m.FxWrite)(t, f, data, n, offset)
}

func fileTruncate(t tls, f uintptr, size int64) int32 {
	o := drives.file(f)
	o.drive.changing(o.name, change{at: size})
	f, m := lower(f)
	return get[sizeFunc](m.FxTruncate)(t, f, size)
}

// fileSync leaves the computer's own drive alone: what counts is what this one
// takes note of.
func fileSync(_ tls, f uintptr, _ int32) int32 {
	o := drives.file(f)
	o.drive.synced(o.name)
	return sqlite3.SQLITE_OK
}

func fileSize(t tls, f, size uintptr) int32 {
	f, m := lower(f)
	return get[resultFunc](m.FxFileSize)(t, f, size)
}

func fileLock(t tls, f uintptr, level int32) int32 {
	f, m := lower(f)
	return get[numberFunc](m.FxLock)(t, f, level)
}

func fileUnlock(t tls, f uintptr, level int32) int32 {
	f, m := lower(f)
	return get[numberFunc](m.FxUnlock)(t, f, level)
}

func fileReserved(t tls, f, result uintptr) int32 {
	f, m := lower(f)
	return get[resultFunc](m.FxCheckReservedLock)(t, f, result)
}

func fileControl(t tls, f uintptr, op int32, arg uintptr) int32 {
	f, m := lower(f)
	return get[func(t tls, f uintptr, op int32, arg uintptr) int32](m.FxFileControl)(t, f, op, arg)
}

func fileSectorSize(t tls, f uintptr) int32 {
	f, m := lower(f)
	return get[plainFunc](m.FxSectorSize)(t, f)
}

func fileCharacteristics(t tls, f uintptr) int32 {
	f, m := lower(f)
	return get[plainFunc](m.FxDeviceCharacteristics)(t, f)
}

func shmMap(t tls, f uintptr, page, size, extend int32, result uintptr) int32 {
	f, m := lower(f)
	return get[func(t tls, f uintptr, page, size, extend int32, result uintptr) int32](m.FxShmMap)(t, f, page, size, extend, result)
}

func shmLock(t tls, f uintptr, offset, n, flags int32) int32 {
	f, m := lower(f)
	return get[func(t tls, f uintptr, offset, n, flags int32) int32](m.FxShmLock)(t, f, offset, n, flags)
}

func shmBarrier(t tls, f uintptr) {
	f, m := lower(f)
	get[func(t tls, f uintptr)](m.FxShmBarrier)(t, f)
}

func shmUnmap(t tls, f uintptr, remove int32) int32 {
	f, m := lower(f)
	return get[numberFunc](m.FxShmUnmap)(t, f, remove)
}
