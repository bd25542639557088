package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// growing is a file that only grows, of which each part is read once.
type growing struct {
	path string

	mu   sync.Mutex
	text strings.Builder
}

// read returns all that the file holds now.
func (g *growing) read() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, err := os.Open(g.path)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(int64(g.text.Len()), io.SeekStart); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if _, err := io.Copy(&g.text, f); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	return g.text.String(), nil
}
