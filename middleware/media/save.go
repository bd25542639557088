package media

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSameName bounds how many files of one name there can be.
const maxSameName = 10_000

// Save decrypts and checks a file whose encrypted form the program has got by itself,
// and saves it as [Fetcher.Save] does. src ends with the encrypted form; whoever calls
// bounds its length.
func (f *File) Save(src io.Reader, dir string) (path string, err error) {
	return save(dir, SafeName(f.Name), func(dst io.Writer) error { return f.decrypt(dst, src) })
}

// save writes a file that gets its name once write has returned nil and all is on
// disk, and is removed otherwise. It never replaces another file, and never leaves
// the directory. It returns the path.
func save(dir, name string, write func(io.Writer) error) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("media: %w", err)
	}
	defer root.Close()
	part := "." + rand.Text() + ".part"
	if err := writePart(root, part, write); err != nil {
		return "", errors.Join(err, remove(root, part))
	}
	final, err := reserve(root, name)
	if err != nil {
		return "", errors.Join(err, remove(root, part))
	}
	if err := root.Rename(part, final); err != nil {
		return "", errors.Join(fmt.Errorf("media: %w", err), remove(root, part), remove(root, final))
	}
	return filepath.Join(dir, final), nil
}

func writePart(root *os.Root, part string, write func(io.Writer) error) error {
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	buffered := bufio.NewWriterSize(f, pieceSize)
	err = write(buffered)
	if err == nil {
		if err = buffered.Flush(); err == nil {
			err = f.Sync()
		}
		if err != nil {
			err = fmt.Errorf("media: %w", err)
		}
	}
	if e := f.Close(); e != nil && err == nil {
		err = fmt.Errorf("media: %w", e)
	}
	return err
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("media: %w", err)
	}
	return nil
}

// reserve makes an empty file of a name that was free: renaming would replace one
// that somebody has made meanwhile.
func reserve(root *os.Root, name string) (string, error) {
	end := path.Ext(name)
	base := strings.TrimSuffix(name, end)
	for i := range maxSameName {
		try := name
		if i > 0 {
			try = base + " (" + strconv.Itoa(i) + ")" + end
		}
		f, err := root.OpenFile(try, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("media: %w", err)
		}
		if err := f.Close(); err != nil {
			return "", errors.Join(fmt.Errorf("media: %w", err), remove(root, try))
		}
		return try, nil
	}
	return "", fmt.Errorf("media: no name left: %w", fs.ErrExist)
}
